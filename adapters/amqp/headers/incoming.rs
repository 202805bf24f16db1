//! Reads the properties of a received message for the application.

use crate::names::header;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};

use super::super::topology::names;
use super::super::wire::content_header::RAW_TABLE;
use super::super::wire::table::{Entries, Value};
use crate::headers::Headers;
use crate::message::{Timestamp, TimestampSource};

/// Maximum number of bytes by which arrays repeat their names. An element may be one byte on the
/// wire, and as a header it takes a name of up to 255.
const MOST_REPEATED: usize = 64 * 1024;

/// Key, headers and other parts, as far as they can be read.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) key: Option<Bytes>,
    pub(crate) id: Option<String>,
    pub(crate) headers: Headers,
    pub(crate) unreadable: u32,
    pub(crate) timestamp: Option<Timestamp>,
    /// The number of attempts before the last retry.
    pub(crate) tried_before: u32,
    /// The number of deliveries before the message was last copied.
    pub(crate) delivered_earlier: u32,
    /// The routing key before the message was copied straight to its queue.
    retry_routing_key: Option<ShortString>,
    /// The target that the message waited for, if any.
    waited: Waited,
    /// The bytes of names that arrays have repeated.
    repeated: usize,
}

#[derive(Debug, Default, PartialEq)]
enum Waited {
    #[default]
    Not,
    /// A retry by this group.
    ForUs,
    ForOthers,
}

impl Decoded {
    /// Reads the properties of a message. `target` is the name under which messages wait for its
    /// queue. Earlier attempts and deliveries count only in a copy that is known to be `ours`,
    /// because any publisher can write headers.
    pub(crate) fn read(properties: &BasicProperties, target: &str, ours: bool) -> Self {
        let table = raw_table(properties);
        let mut decoded = Self {
            id: properties.message_id().as_ref().map(|id| id.as_str().to_owned()).filter(|id| !id.is_empty()),
            headers: Headers::with_capacity(names::PROPERTIES.len() + Entries::new(table).count(), table.len() + 64),
            timestamp: properties.timestamp().and_then(|seconds| sent_at(Duration::from_secs(seconds))),
            ..Self::default()
        };
        for property in names::PROPERTIES {
            if let Some(value) = (property.get)(properties) {
                decoded.headers.append(property.header, value.as_str());
            }
        }
        if let Some(priority) = properties.priority() {
            decoded.headers.append(header::AMQP_PRIORITY, priority.to_string());
        }
        if let Some(expiration) = properties.expiration() {
            decoded.headers.append(header::AMQP_EXPIRATION, expiration.as_str());
        }
        for entry in Entries::new(table) {
            match entry {
                Some((name, value)) => decoded.entry(name, value, target),
                None => decoded.unreadable += 1,
            }
        }
        decoded.tidy(ours);
        decoded
    }

    /// Returns the original routing key of a message that was copied straight to this queue, or
    /// `None` if it is no such copy.
    pub(crate) fn copied_from(&mut self) -> Option<ShortString> {
        (self.waited == Waited::ForUs).then(|| self.retry_routing_key.take().unwrap_or_default())
    }

    /// Leaves out the headers that the delay queues wrote. Earlier attempts count only if the copy
    /// was for this queue: it may carry the headers of a message of another queue.
    fn tidy(&mut self, ours: bool) {
        if !ours || self.waited != Waited::ForUs {
            (self.tried_before, self.delivered_earlier) = (0, 0);
        }
        if self.waited != Waited::Not {
            for name in names::FIRST_AND_LAST_DEATH {
                self.headers.remove(name);
            }
        }
    }

    fn entry(&mut self, name: &[u8], value: Value<'_>, target: &str) {
        match (std::str::from_utf8(name), value) {
            (Ok(header::KEY), Value::Bytes(key)) => self.key = Some(Bytes::copy_from_slice(key)),
            (Ok(header::TIMESTAMP_IN_MS), Value::Integer(_) | Value::Bytes(_)) => {
                self.timestamp = milliseconds(value).map(Duration::from_millis).and_then(sent_at).or(self.timestamp);
            }
            (Ok(names::DELIVERY_COUNT), Value::Integer(_)) => {}
            (Ok(header::PUBLISH_NUMBER), Value::Integer(_) | Value::Bytes(_)) => {}
            (Ok(header::DELAYED_FOR), Value::Bytes(text)) => {
                self.waited = if target.as_bytes() == text { Waited::ForUs } else { Waited::ForOthers };
            }
            (Ok(header::PRIOR_ATTEMPTS), Value::Integer(count)) => self.tried_before = number(count),
            (Ok(header::PRIOR_DELIVERIES), Value::Integer(count)) => self.delivered_earlier = number(count),
            (Ok(header::RETRY_ROUTING_KEY), Value::Bytes(key)) => {
                let key = std::str::from_utf8(key).ok().and_then(|key| ShortString::try_new(key).ok());
                self.retry_routing_key = key;
            }
            (Ok(name), Value::Bytes(_)) if names::is_for_waiting(name) => {}
            // Tables of the broker, which nobody's context is in.
            (Ok(names::DEATHS), Value::Array(_)) => {}
            (Ok(name), Value::Array(elements)) => {
                for (index, element) in elements.enumerate() {
                    self.repeated += if index > 0 { name.len() } else { 0 };
                    match self.repeated <= MOST_REPEATED {
                        true => self.append(name, element),
                        false => self.unreadable += 1,
                    }
                }
            }
            (Ok(name), value) => self.append(name, Some(value)),
            (Err(_), _) => self.unreadable += 1,
        }
    }

    fn append(&mut self, name: &str, value: Option<Value<'_>>) {
        match value.and_then(Value::text) {
            Some(text) => self.headers.append(name, text),
            None => self.unreadable += 1,
        }
    }
}

/// Returns the number of earlier deliveries in the properties, if the broker counts them.
pub(crate) fn delivery_count(properties: &BasicProperties) -> Option<u32> {
    match Entries::new(raw_table(properties)).find(names::DELIVERY_COUNT) {
        Some(Value::Integer(count)) => Some(number(count)),
        _ => None,
    }
}

/// Reads a time that this library writes as text, and RabbitMQ's timestamp plugin as a number.
fn milliseconds(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Integer(number) => u64::try_from(number).ok(),
        Value::Bytes(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

fn number(count: i64) -> u32 {
    u32::try_from(count.max(0)).unwrap_or(u32::MAX)
}

/// Returns the header table as it was on the wire.
pub(crate) fn raw_table(properties: &BasicProperties) -> &[u8] {
    match properties.headers().as_ref().and_then(|table| table.inner().get(RAW_TABLE)) {
        Some(AMQPValue::ByteArray(raw)) => raw.as_slice(),
        _ => &[],
    }
}

fn sent_at(since: Duration) -> Option<Timestamp> {
    let time = UNIX_EPOCH.checked_add(since)?;
    Some(Timestamp { time, source: TimestampSource::Producer })
}
