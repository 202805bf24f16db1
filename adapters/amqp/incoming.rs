//! What the application sees of a received message's properties.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::AMQPValue;

use super::content_header::RAW_TABLE;
use super::names;
use super::returned;
use super::table::{Entries, Value};
use crate::capability::TimestampSource;
use crate::driver::Timestamp;
use crate::headers::Headers;

/// Key, headers and the rest, as far as they can be read.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) key: Option<Bytes>,
    pub(super) id: Option<String>,
    pub(super) headers: Headers,
    pub(super) unreadable: u32,
    pub(super) timestamp: Option<Timestamp>,
    /// How often the broker has delivered the message before, if it counts.
    pub(super) delivered_before: Option<u32>,
    /// How often it was tried before it was put aside.
    pub(super) tried_before: u32,
    /// What it waited for, if it did.
    waited: Waited,
    /// Entries that cannot be represented, if it was not one of our queues that wrote them.
    deaths: u32,
}

#[derive(Debug, Default, PartialEq)]
enum Waited {
    #[default]
    Not,
    /// To be retried by this group.
    ForUs,
    ForOthers,
}

impl Decoded {
    /// Reads the properties of a message from the queue that messages wait for under the name of `target`.
    pub(super) fn read(properties: &BasicProperties, target: Option<&str>) -> Self {
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
        for entry in Entries::new(table) {
            match entry {
                Some((name, value)) => decoded.entry(name, value, target),
                None => decoded.unreadable += 1,
            }
        }
        decoded.tidy();
        decoded
    }

    /// Leaves out what our own queues wrote. What was tried is believed only of a message that says it waited for this queue: anyone can write
    /// headers, and copy those of a message that came by another.
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
            (Ok(names::KEY), Value::Bytes(key)) => self.key = Some(Bytes::copy_from_slice(key)),
            (Ok(names::TIMESTAMP), Value::Integer(milliseconds)) => {
                let since = u64::try_from(milliseconds).ok().map(Duration::from_millis);
                self.timestamp = since.and_then(sent_at).or(self.timestamp);
            }
            (Ok(names::DELIVERY_COUNT), Value::Integer(count)) => {
                self.delivered_before = Some(u32::try_from(count.max(0)).unwrap_or(u32::MAX));
            }
            (Ok(returned::NUMBER), Value::Integer(_)) => {}
            (Ok(names::TARGET), Value::Bytes(text)) => {
                let ours = target.is_some_and(|target| target.as_bytes() == text);
                self.waited = if ours { Waited::ForUs } else { Waited::ForOthers };
            }
            (Ok(names::PRIOR_ATTEMPTS), Value::Integer(count)) => {
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

/// The header table as it was on the wire.
pub(super) fn raw_table(properties: &BasicProperties) -> &[u8] {
    match properties.headers().as_ref().and_then(|table| table.inner().get(RAW_TABLE)) {
        Some(AMQPValue::ByteArray(raw)) => raw.as_slice(),
        _ => &[],
    }
}

fn sent_at(since: Duration) -> Option<Timestamp> {
    let time = UNIX_EPOCH.checked_add(since)?;
    Some(Timestamp { time, source: TimestampSource::Producer })
}
