//! The data types of the answers. Fields not named here are ignored; absent and null fields are
//! empty.

use std::collections::HashMap;

use serde::Deserialize;

use crate::verify::otlp::{ResourceSpans, Scalar, or_default};

/// Tempo's `TraceByIDResponse` (version 2) and `Trace` (version 1).
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Tempo {
    pub(super) trace: Option<TempoTrace>,
    pub(super) batches: Option<Vec<ResourceSpans>>,
    pub(super) resource_spans: Option<Vec<ResourceSpans>>,
    #[serde(deserialize_with = "or_default")]
    status: Scalar,
    #[serde(deserialize_with = "or_default")]
    pub(super) message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TempoTrace {
    pub(super) batches: Option<Vec<ResourceSpans>>,
    pub(super) resource_spans: Option<Vec<ResourceSpans>>,
}

impl Tempo {
    /// Returns `true` if Tempo's `PartialStatus` is `PARTIAL`.
    pub(super) fn is_partial(&self) -> bool {
        match &self.status {
            Scalar::Unsigned(number) => *number == 1,
            Scalar::Text(name) => name == "PARTIAL",
            _ => false,
        }
    }
}

/// Jaeger's answer: `data` and `errors` in the older interface, `result` and `error` in the newer
/// one.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Jaeger {
    pub(super) data: Option<Vec<ClassicTrace>>,
    pub(super) errors: Option<Vec<Problem>>,
    pub(super) result: Option<JaegerResult>,
    pub(super) error: Option<Problem>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct JaegerResult {
    #[serde(deserialize_with = "or_default")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

/// An error message of either interface.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    #[serde(alias = "msg", deserialize_with = "or_default")]
    pub(super) message: String,
    #[serde(alias = "httpCode", deserialize_with = "or_default")]
    pub(super) code: u16,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ClassicTrace {
    #[serde(deserialize_with = "or_default")]
    pub(super) spans: Vec<ClassicSpan>,
    #[serde(deserialize_with = "or_default")]
    pub(super) processes: HashMap<String, Process>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Process {
    pub(super) service_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ClassicSpan {
    #[serde(rename = "traceID", deserialize_with = "or_default")]
    pub(super) trace_id: String,
    #[serde(rename = "spanID", deserialize_with = "or_default")]
    pub(super) span_id: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) operation_name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) references: Vec<Reference>,
    /// Microseconds since the Unix epoch.
    #[serde(deserialize_with = "or_default")]
    pub(super) start_time: u64,
    /// Microseconds.
    #[serde(deserialize_with = "or_default")]
    pub(super) duration: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) tags: Vec<Tag>,
    #[serde(deserialize_with = "or_default")]
    pub(super) logs: Vec<Log>,
    #[serde(rename = "processID", deserialize_with = "or_default")]
    pub(super) process_id: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Reference {
    #[serde(deserialize_with = "or_default")]
    pub(super) ref_type: String,
    #[serde(rename = "traceID", deserialize_with = "or_default")]
    pub(super) trace_id: String,
    #[serde(rename = "spanID", deserialize_with = "or_default")]
    pub(super) span_id: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Tag {
    #[serde(deserialize_with = "or_default")]
    pub(super) key: String,
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(super) of_type: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) value: TagValue,
}

/// The value of a tag. Integers that JavaScript cannot represent are text.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum TagValue {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
}

impl Default for TagValue {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Log {
    /// Microseconds since the Unix epoch.
    #[serde(deserialize_with = "or_default")]
    pub(super) timestamp: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) fields: Vec<Tag>,
}
