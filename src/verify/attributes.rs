//! Attributes: an ordered list of names and typed values.

use std::fmt;

/// The attributes of a span, link or event, in the order they were exported.
///
/// ```
/// use traced_broker::verify::{Attributes, Value};
///
/// let attributes = Attributes::from_iter([
///     ("messaging.destination.name", Value::String("orders".to_owned())),
///     ("messaging.batch.message_count", Value::Int(3)),
/// ]);
/// assert_eq!(attributes.text("messaging.destination.name"), Some("orders"));
/// assert_eq!(attributes.int("messaging.batch.message_count"), Some(3));
/// assert_eq!(attributes.text("messaging.batch.message_count"), None); // not text
/// assert_eq!(attributes.get("server.port"), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(Vec<(String, Value)>);

/// The value of an attribute: the types of OTLP's `AnyValue`.
///
/// ```
/// use traced_broker::verify::Value;
///
/// let topics = ["orders", "shipments"].map(|topic| Value::String(topic.to_owned()));
/// assert_eq!(Value::Array(topics.to_vec()).to_string(), "[orders, shipments]");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A value without a type, or of a type unknown to this version.
    Empty,
    /// Text.
    String(String),
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Double(f64),
    /// Bytes, kept as the base64 text in which OTLP/JSON carries them.
    Bytes(String),
    /// A list.
    Array(Vec<Value>),
    /// A nested set of attributes.
    Map(Attributes),
}

impl Attributes {
    /// Returns the value under this name; the first one if there are several.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Returns the text under this name; `None` if it is absent or of another type.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the integer under this name; `None` if it is absent or of another type.
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns the number under this name as floating point; `None` if it is absent or not a
    /// number.
    ///
    /// JSON writers drop the fraction of round numbers, so an integer is accepted too.
    #[must_use]
    pub fn double(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            Value::Double(number) => Some(*number),
            Value::Int(number) => Some(*number as f64),
            _ => None,
        }
    }

    /// Iterates over all names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Returns the number of attributes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if there are no attributes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<String>> FromIterator<(N, Value)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => Ok(()),
            Self::String(text) | Self::Bytes(text) => f.write_str(text),
            Self::Bool(flag) => flag.fmt(f),
            Self::Int(number) => number.fmt(f),
            Self::Double(number) => number.fmt(f),
            Self::Array(values) => {
                f.write_str("[")?;
                for (position, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if position == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Map(attributes) => {
                f.write_str("{")?;
                for (position, (name, value)) in attributes.iter().enumerate() {
                    write!(f, "{}{name}: {value}", if position == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}
