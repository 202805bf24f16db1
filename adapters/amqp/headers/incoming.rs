//! Reads the properties of a received message for the application.

use crate::names::header;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::AMQPValue;

use super::super::topology::names;
use super::super::wire::content_header::RAW_TABLE;
use super::super::wire::table::{Entries, Value};
use crate::headers::Headers;
use crate::message::{Timestamp, TimestampSource};

/// Key, headers and other parts, as far as they can be read.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) key: Option<Bytes>,
    pub(crate) id: Option<String>,
    pub(crate) headers: Headers,
    pub(crate) unreadable: u32,
    pub(crate) timestamp: Option<Timestamp>,
    /// The number of earlier deliveries of the message, if the broker counts them.
    pub(crate) delivered_before: Option<u32>,
    /// The number of attempts before the last delayed retry.
    pub(crate) tried_before: u32,
    /// The target that the message waited for, if any.
    waited: Waited,
    /// The number of entries of the broker's `x-death` header. They count as unreadable if the
    /// message did not wait in the delay queues.
    deaths: u32,
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
    /// queue.
    pub(crate) fn read(properties: &BasicProperties, target: Option<&str>) -> Self {
        let table = raw_table(properties);
        let mut decoded = Self {
            id: properties.message_id().as_ref().map(|id| id.as_str().to_owned()),
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
        decoded.tidy();
        decoded
    }

    /// Leaves out the headers that the delay queues wrote. Earlier attempts count only if the
    /// message waited for this queue: any publisher can write headers, or copy those of a message
    /// of another queue.
    fn tidy(&mut self) {
        if self.waited != Waited::ForUs {
            self.tried_before = 0;
        }
        if self.waited == Waited::Not {
            self.unreadable += self.deaths;
        } else {
            for name in names::FIRST_AND_LAST_DEATH {
                self.headers.remove(name);
            }
        }
    }

    fn entry(&mut self, name: &[u8], value: Value<'_>, target: Option<&str>) {
        match (std::str::from_utf8(name), value) {
            (Ok(header::KEY), Value::Bytes(key)) => self.key = Some(Bytes::copy_from_slice(key)),
            (Ok(header::TIMESTAMP_IN_MS), Value::Integer(milliseconds)) => {
                let since = u64::try_from(milliseconds).ok().map(Duration::from_millis);
                self.timestamp = since.and_then(sent_at).or(self.timestamp);
            }
            (Ok(names::DELIVERY_COUNT), Value::Integer(count)) => {
                self.delivered_before = Some(u32::try_from(count.max(0)).unwrap_or(u32::MAX));
            }
            (Ok(header::PUBLISH_NUMBER), Value::Integer(_)) => {}
            (Ok(header::DELAYED_FOR), Value::Bytes(text)) => {
                let ours = target.is_some_and(|target| target.as_bytes() == text);
                self.waited = if ours { Waited::ForUs } else { Waited::ForOthers };
            }
            (Ok(header::PRIOR_ATTEMPTS), Value::Integer(count)) => {
                self.tried_before = u32::try_from(count.max(0)).unwrap_or(u32::MAX);
            }
            (Ok(name), Value::Bytes(_)) if names::is_for_waiting(name) => {}
            (Ok(names::DEATHS), Value::Array(deaths)) => {
                self.deaths = u32::try_from(deaths.count()).unwrap_or(u32::MAX);
            }
            (Ok(name), Value::Array(elements)) => {
                for element in elements {
                    self.append(name, element);
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
