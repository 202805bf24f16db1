//! Descriptions of streams and consumers, as the server gives them: the fields that are used here.
//!
//! They are read from JSON values, not by derived code for the client's types: the configurations
//! of JetStream have a hundred fields, of which fifteen matter here, and code for all of them would
//! be a fifth of this library.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// A stream.
#[derive(Debug)]
pub(crate) struct StreamInfo {
    pub(crate) name: String,
    /// The time of creation, as text.
    pub(crate) created: String,
    pub(crate) subjects: Vec<String>,
    pub(crate) retention: String,
    pub(crate) no_ack: bool,
    pub(crate) allow_schedules: bool,
    pub(crate) allow_ttl: bool,
    pub(crate) max_age: Duration,
    pub(crate) replicas: u64,
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
}

impl StreamInfo {
    pub(crate) fn read(answer: &Value) -> Result<Self> {
        let (config, state) = (&answer["config"], &answer["state"]);
        let subjects = config["subjects"].as_array().into_iter().flatten();
        Ok(Self {
            name: required(&config["name"], "config.name")?,
            created: text(&answer["created"]).to_owned(),
            subjects: subjects.map(|subject| text(subject).to_owned()).collect(),
            retention: text(&config["retention"]).to_owned(),
            no_ack: flag(&config["no_ack"]),
            allow_schedules: flag(&config["allow_msg_schedules"]),
            allow_ttl: flag(&config["allow_msg_ttl"]),
            max_age: nanoseconds(&config["max_age"]),
            replicas: number(&config["num_replicas"]),
            first_sequence: number(&state["first_seq"]),
            last_sequence: number(&state["last_seq"]),
        })
    }
}

/// A consumer.
#[derive(Debug)]
pub(crate) struct ConsumerInfo {
    pub(crate) stream: String,
    pub(crate) name: String,
    /// The time of creation, as text.
    pub(crate) created: String,
    pub(crate) config: ConsumerConfig,
    /// The sequence in the stream up to which everything is settled.
    pub(crate) ack_floor: u64,
    /// The highest sequence in the stream that was delivered.
    pub(crate) delivered: u64,
    /// The number of deliveries so far.
    pub(crate) deliveries: u64,
    /// The number of messages that are delivered and not settled.
    pub(crate) unsettled: u64,
    /// The number of requests for messages that wait.
    pub(crate) waiting: u64,
}

impl ConsumerInfo {
    pub(crate) fn read(answer: Value) -> Result<Self> {
        let mut info = Self {
            stream: required(&answer["stream_name"], "stream_name")?,
            name: required(&answer["name"], "name")?,
            created: text(&answer["created"]).to_owned(),
            config: ConsumerConfig(Map::new()),
            ack_floor: number(&answer["ack_floor"]["stream_seq"]),
            delivered: number(&answer["delivered"]["stream_seq"]),
            deliveries: number(&answer["delivered"]["consumer_seq"]),
            unsettled: number(&answer["num_ack_pending"]),
            waiting: number(&answer["num_waiting"]),
        };
        if let Value::Object(mut fields) = answer
            && let Some(Value::Object(config)) = fields.remove("config")
        {
            info.config = ConsumerConfig(config);
        }
        Ok(info)
    }
}

/// The configuration of a consumer with all its fields, also those that this library does not know:
/// a consumer that is created again must not lose the settings of an operator.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerConfig(Map<String, Value>);

impl ConsumerConfig {
    pub(crate) fn new(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        Self(map(fields))
    }

    /// Sets a field, or removes it if the value is null.
    pub(crate) fn set(&mut self, name: &str, value: Value) {
        match value {
            Value::Null => drop(self.0.remove(name)),
            value => drop(self.0.insert(name.to_owned(), value)),
        }
    }

    fn field(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    /// Returns a text, empty if it is not set.
    pub(crate) fn text(&self, name: &str) -> &str {
        text(self.field(name))
    }

    /// Returns the texts of a list, none if it is not set.
    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        self.field(name).as_array().into_iter().flatten().map(text).collect()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        flag(self.field(name))
    }

    /// Returns a limit; `None` if it is not set, or zero or less, by which the server means none.
    pub(crate) fn limit(&self, name: &str) -> Option<u64> {
        Some(number(self.field(name))).filter(|limit| *limit > 0)
    }

    pub(crate) fn duration(&self, name: &str) -> Duration {
        nanoseconds(self.field(name))
    }

    /// Returns the time until the first redelivery.
    pub(crate) fn ack_wait(&self) -> Duration {
        // If a back-off is configured, its first value replaces `ack_wait`.
        match self.field("backoff").as_array().and_then(|pauses| pauses.first()) {
            Some(first) => nanoseconds(first),
            None => self.duration("ack_wait"),
        }
    }

    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// Returns a JSON object with these fields.
pub(crate) fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Object(map(fields))
}

fn map(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, value) in fields {
        map.insert(name.to_owned(), value);
    }
    map
}

/// Returns a duration in the form of the server's configurations.
pub(crate) fn nanos(duration: Duration) -> Value {
    // The server counts in 63 bits, which is 292 years.
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX).into()
}

/// Returns a text, empty if it is none.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns a number, zero if it is none or less.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn flag(value: &Value) -> bool {
    value.as_bool().unwrap_or_default()
}

fn nanoseconds(value: &Value) -> Duration {
    Duration::from_nanos(number(value))
}

fn required(value: &Value, field: &'static str) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| missing(field))
}

/// Returns the error for an answer without a field that each server writes.
pub(crate) fn missing(field: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, "the server's answer cannot be read").with_context("missing", field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_keeps_what_this_library_does_not_know() {
        let answer = r#"{"stream_name":"orders","name":"workers","created":"2026-01-01T00:00:00Z",
            "config":{"durable_name":"workers","max_deliver":-1,"max_batch":3,"ack_wait":30000000000,
                "priority_policy":"pinned_client","metadata":{"owner":"shop"}},
            "ack_floor":{"consumer_seq":1,"stream_seq":4},"delivered":{"stream_seq":7},
            "num_ack_pending":3,"num_waiting":1}"#;
        let info = ConsumerInfo::read(answer.parse().unwrap()).unwrap();
        assert_eq!((info.ack_floor, info.delivered, info.unsettled, info.waiting), (4, 7, 3, 1));
        assert_eq!((info.config.limit("max_deliver"), info.config.limit("max_batch")), (None, Some(3)));
        assert_eq!(info.config.ack_wait(), Duration::from_secs(30));
        let mut config = info.config.clone();
        config.set("deliver_policy", "all".into());
        config.set("max_batch", Value::Null);
        let written = config.into_value();
        assert_eq!(written["priority_policy"], "pinned_client");
        assert_eq!(written["metadata"]["owner"], "shop");
        assert_eq!((&written["deliver_policy"], &written["max_batch"]), (&"all".into(), &Value::Null));
    }

    #[test]
    fn a_back_off_replaces_the_wait() {
        let config = ConsumerConfig::new([("ack_wait", nanos(Duration::from_secs(9))), ("backoff", vec![7, 8].into())]);
        assert_eq!(config.ack_wait(), Duration::from_nanos(7));
    }

    #[test]
    fn an_answer_without_a_name_is_refused() {
        assert_eq!(StreamInfo::read(&object([])).unwrap_err().kind(), ErrorKind::Unexpected);
        assert_eq!(ConsumerInfo::read(object([])).unwrap_err().kind(), ErrorKind::Unexpected);
    }
}
