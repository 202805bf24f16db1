//! A message's headers, key, id and time as AMQP properties.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

use super::config::RoutingKey;
use super::delay::Delay;
use super::names;
use super::returned;
use super::waiting::{self, Target, labels};
use crate::error::{Error, ErrorKind, Result};
use crate::headers::Headers;

/// Written to disk by the broker.
pub(super) const PERSISTENT: u8 = 2;
/// A frame's own bytes, and of a content header the class, weight, body size, flags, mode, time and the table's length.
const FIXED_BYTES: usize = 8 + 14 + 1 + 8 + 4;
/// Room left in the frame for the count that the broker adds when it delivers again, and for how this adapter reads tables.
const RESERVE: usize = 64;
/// The type of a value and its length.
const VALUE_BYTES: usize = 5;

/// Headers that the broker takes as further routing keys, and whose type it insists on.
pub(super) const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];

/// What the properties are made from.
pub(super) struct Envelope<'a> {
    pub(super) headers: &'a Headers,
    pub(super) key: Option<&'a Bytes>,
    pub(super) id: Option<String>,
    /// The number by which a returned message is recognised, where returns are asked for.
    pub(super) number: Option<i64>,
    /// Where the message is to wait, if it is not to be delivered at once.
    pub(super) wait: Option<Waiting<'a>>,
}

/// How long a message waits, and what for.
pub(super) struct Waiting<'a> {
    pub(super) until: SystemTime,
    pub(super) delay: Delay,
    pub(super) target: &'a Target,
}

impl Envelope<'_> {
    /// The properties and the routing key.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`] for what AMQP cannot carry, [`ErrorKind::TooLarge`] for properties that do not fit one
    /// frame: the broker would close the connection.
    pub(super) fn encode(self, routing: RoutingKey, frame_max: usize) -> Result<(BasicProperties, ShortString)> {
        let mut encoder = Encoder::new();
        for (name, value) in self.headers.iter().filter(|(name, _)| !names::is_reserved(name)) {
            encoder.header(name, value)?;
        }
        let mut routing_key = ShortString::default();
        match (self.key, routing) {
            (Some(key), RoutingKey::None) => encoder.entry(short(names::KEY)?, text_or_bytes(key), key.len()),
            (Some(key), RoutingKey::Key) => routing_key = as_routing_key(key)?,
            (None, _) => {}
        }
        if let Some(id) = self.id {
            let id = property("the id of the message", id)?;
            encoder.size += 1 + id.as_str().len();
            encoder.properties = encoder.properties.with_message_id(id);
        }
        if let Some(number) = self.number {
            encoder.entry(short(returned::NUMBER)?, AMQPValue::LongLongInt(number), 4);
        }
        if let Some(wait) = &self.wait {
            encoder.size += waiting::RESERVE;
            for (name, value) in labels(wait.delay, wait.target) {
                encoder.entry(short(name)?, text_or_bytes(value.as_bytes()), value.len());
            }
        }
        let time = self.wait.map_or_else(SystemTime::now, |wait| wait.until);
        Ok((encoder.finish(time, frame_max)?, routing_key))
    }
}

struct Encoder {
    properties: BasicProperties,
    table: BTreeMap<ShortString, AMQPValue>,
    size: usize,
}

impl Encoder {
    fn new() -> Self {
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        Self { properties, table: BTreeMap::new(), size: FIXED_BYTES + RESERVE }
    }

    fn header(&mut self, name: &str, value: &[u8]) -> Result<()> {
        if ROUTING_HEADERS.contains(&name) {
            let message = "the broker takes a header of this name for routing keys: give it another name";
            return Err(Error::new(ErrorKind::InvalidMessage, message).with_context("header", name));
        }
        if self.native_property(name, value) {
            return Ok(());
        }
        let name = short(name)?;
        self.entry(name, text_or_bytes(value), value.len());
        Ok(())
    }

    /// Sets the native property of that header, unless there is none, it is set, or it cannot hold the value.
    fn native_property(&mut self, name: &str, value: &[u8]) -> bool {
        let Some(property) = names::PROPERTIES.iter().find(|property| property.header.eq_ignore_ascii_case(name))
        else {
            return false;
        };
        let text = std::str::from_utf8(value).ok().and_then(|text| ShortString::try_new(text).ok());
        let (Some(text), None) = (text, (property.get)(&self.properties)) else {
            return false;
        };
        self.size += 1 + value.len();
        self.properties = (property.set)(std::mem::take(&mut self.properties), text);
        true
    }

    /// Adds an entry; further values of one name become an array, since a table has each name once.
    fn entry(&mut self, name: ShortString, value: AMQPValue, bytes: usize) {
        self.size += VALUE_BYTES + bytes;
        match self.table.entry(name) {
            Entry::Vacant(vacant) => {
                self.size += 1 + vacant.key().as_str().len();
                vacant.insert(value);
            }
            Entry::Occupied(mut occupied) => match occupied.get_mut() {
                AMQPValue::FieldArray(values) => values.push(value),
                first => {
                    self.size += VALUE_BYTES;
                    let first_value = std::mem::replace(first, AMQPValue::Void);
                    *first = AMQPValue::FieldArray(FieldArray::from(vec![first_value, value]));
                }
            },
        }
    }

    fn finish(mut self, time: SystemTime, frame_max: usize) -> Result<BasicProperties> {
        // A clock before 1970 is not worth an error.
        let now = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        self.entry(short(names::TIMESTAMP)?, AMQPValue::LongLongInt(milliseconds), 4);
        if self.size > frame_max {
            return Err(Error::new(ErrorKind::TooLarge, "the headers are larger than the broker takes")
                .with_context("size", self.size)
                .with_context("limit", frame_max));
        }
        Ok(self.properties.with_timestamp(now.as_secs()).with_headers(FieldTable::from(self.table)))
    }
}

/// A long string, the type that every language reads as text; a byte array if it is not text.
fn text_or_bytes(value: &[u8]) -> AMQPValue {
    if std::str::from_utf8(value).is_ok() {
        AMQPValue::LongString(value.into())
    } else {
        AMQPValue::ByteArray(value.into())
    }
}

fn short(name: &str) -> Result<ShortString> {
    ShortString::try_new(name).map_err(|error| {
        let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
        Error::new(ErrorKind::InvalidMessage, "the name of a header is longer than 255 bytes")
            .with_context("header", shown)
            .with_source(error)
    })
}

fn property(what: &str, text: String) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|error| {
        Error::new(ErrorKind::InvalidMessage, format!("{what} is longer than 255 bytes")).with_source(error)
    })
}

fn as_routing_key(key: &[u8]) -> Result<ShortString> {
    match std::str::from_utf8(key) {
        Ok(text) => property("the key, which is to be the routing key,", text.to_owned()),
        Err(error) => Err(Error::new(
            ErrorKind::InvalidMessage,
            "the key, which is to be the routing key, is not UTF-8: leave out routing_key=key",
        )
        .with_source(error)),
    }
}
