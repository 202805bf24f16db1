//! The data types of OTLP in JSON.
//!
//! Every field may be absent or null (protobuf's JSON mapping takes both for the default), and
//! fields not named here are ignored.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::base64;
use crate::verify::id::{SpanId, TraceId};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Request {
    #[serde(deserialize_with = "or_default")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::verify) struct ResourceSpans {
    #[serde(deserialize_with = "or_default")]
    pub(super) resource: Resource,
    #[serde(deserialize_with = "or_default")]
    pub(super) scope_spans: Vec<ScopeSpans>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Resource {
    #[serde(deserialize_with = "or_default")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ScopeSpans {
    #[serde(deserialize_with = "or_default")]
    pub(super) spans: Vec<WireSpan>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WireSpan {
    #[serde(deserialize_with = "or_default")]
    pub(super) trace_id: Id<TraceId>,
    #[serde(deserialize_with = "or_default")]
    pub(super) span_id: Id<SpanId>,
    #[serde(deserialize_with = "or_default")]
    pub(super) parent_span_id: Id<SpanId>,
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) kind: Scalar,
    #[serde(deserialize_with = "number")]
    pub(super) start_time_unix_nano: u64,
    #[serde(deserialize_with = "number")]
    pub(super) end_time_unix_nano: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "or_default")]
    pub(super) events: Vec<WireEvent>,
    #[serde(deserialize_with = "or_default")]
    pub(super) links: Vec<WireLink>,
    #[serde(deserialize_with = "number")]
    pub(super) dropped_links_count: u32,
    #[serde(deserialize_with = "or_default")]
    pub(super) status: WireStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WireEvent {
    #[serde(deserialize_with = "number")]
    pub(super) time_unix_nano: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WireLink {
    #[serde(deserialize_with = "or_default")]
    pub(super) trace_id: Id<TraceId>,
    #[serde(deserialize_with = "or_default")]
    pub(super) span_id: Id<SpanId>,
    #[serde(deserialize_with = "or_default")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WireStatus {
    #[serde(deserialize_with = "or_default")]
    pub(super) code: Scalar,
    #[serde(deserialize_with = "or_default")]
    pub(super) message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "or_default")]
    pub(super) key: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) value: AnyValue,
}

/// At most one field is set; the others are absent or null.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AnyValue {
    pub(super) string_value: Option<String>,
    pub(super) bool_value: Option<bool>,
    pub(super) int_value: Option<Scalar>,
    pub(super) double_value: Option<Scalar>,
    pub(super) array_value: Option<List<AnyValue>>,
    pub(super) kvlist_value: Option<List<KeyValue>>,
    pub(super) bytes_value: Option<String>,
}

#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(super) struct List<T> {
    #[serde(default = "Vec::new", deserialize_with = "or_default")]
    pub(super) values: Vec<T>,
}

/// An id in hex or base64; `None` if the text is empty, which is how an absent id is written.
pub(super) struct Id<T>(pub(super) Option<T>);

/// A number or its text: 64-bit integers are quoted because JavaScript cannot represent them,
/// enumerations may be names, and floating-point numbers that JSON lacks are words.
#[derive(Deserialize)]
#[serde(untagged)]
pub(in crate::verify) enum Scalar {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
}

impl<T> Default for Id<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Id<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        // The two forms of an id differ in length, so neither can be mistaken for the other.
        let hex = base64::to_hex(&text).unwrap_or(text);
        hex.parse().map(|id| Self(Some(id))).map_err(D::Error::custom)
    }
}

impl Default for Scalar {
    fn default() -> Self {
        Self::Unsigned(0)
    }
}

pub(in crate::verify) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads an unsigned number, quoted or not.
fn number<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    let number = match or_default(deserializer)? {
        Scalar::Unsigned(number) => Some(number),
        Scalar::Text(text) => text.parse().ok(),
        Scalar::Signed(_) | Scalar::Float(_) => None,
    };
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| D::Error::custom("not an unsigned integer in range"))
}
