//! Encodes a message's headers, key, id and time as AMQP properties.

use crate::names::header;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

use super::super::config::RoutingKey;
use super::super::topology::delay::Delay;
use super::super::topology::names::{self, PERSISTENT, ROUTING_HEADERS};
use super::super::topology::waiting::{self, Target, labels};
use super::super::wire::returned::written;
use super::{copy, typed};
use crate::error::{Error, ErrorKind, Result};
use crate::headers::Headers;

/// The fixed bytes of a frame and of a content header: class, weight, body size, flags, mode, time,
/// and the length of the table.
const FIXED_BYTES: usize = 8 + 14 + 1 + 8 + 4;
/// Bytes left free in the frame for the delivery count that the broker adds on redelivery, and for
/// the way this adapter reads tables.
const RESERVE: usize = 64;
/// The bytes of a value's type and length.
const VALUE_BYTES: usize = 5;

/// The parts of a message that become its properties.
pub(crate) struct Envelope<'a> {
    pub(crate) headers: &'a Headers,
    pub(crate) key: Option<&'a Bytes>,
    pub(crate) id: Option<&'a str>,
    /// The properties of the original, if the message is a copy of one from RabbitMQ.
    pub(crate) original: Option<&'a BasicProperties>,
    /// The number that identifies a returned message, if the broker is to return it.
    pub(crate) number: Option<i64>,
    /// The wait of a delayed message.
    pub(crate) wait: Option<Waiting<'a>>,
}

/// The delay of a message, and its target.
pub(crate) struct Waiting<'a> {
    pub(crate) until: SystemTime,
    pub(crate) delay: Delay,
    pub(crate) target: &'a Target,
}

impl Envelope<'_> {
    /// Returns the properties and the routing key.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`] for values that AMQP cannot carry, [`ErrorKind::TooLarge`] for
    /// properties that exceed one frame: the broker would close the connection.
    pub(crate) fn encode(self, routing: RoutingKey, frame_max: usize) -> Result<(BasicProperties, ShortString)> {
        let mut encoder = Encoder::new(self.headers, self.original, self.wait.is_some());
        for (name, value) in self.headers.iter().filter(|(name, _)| !names::is_reserved(name)) {
            encoder.header(name, value)?;
        }
        match (self.key, routing) {
            (Some(key), RoutingKey::None) => encoder.entry(short(header::KEY)?, text_or_bytes(key), key.len()),
            (Some(key), RoutingKey::Key) => encoder.routing_key = as_routing_key(key)?,
            (None, _) => {}
        }
        let routing_key = std::mem::take(&mut encoder.routing_key);
        if let Some(id) = self.id {
            let id = property("the id of the message", id)?;
            encoder.size += 1 + id.as_str().len();
            encoder.properties = encoder.properties.with_message_id(id);
        }
        if let Some(number) = self.number {
            let number = written(number);
            encoder.entry(short(header::PUBLISH_NUMBER)?, text_or_bytes(number.as_bytes()), number.len());
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
    routing_key: ShortString,
    table: BTreeMap<ShortString, AMQPValue>,
    /// The entries whose types are those of the original.
    typed: BTreeMap<ShortString, AMQPValue>,
    size: usize,
    is_copy: bool,
    is_dead: bool,
    is_delayed: bool,
}

impl Encoder {
    fn new(headers: &Headers, original: Option<&BasicProperties>, is_delayed: bool) -> Self {
        let typed = original.map(|original| typed::agreeing(original, headers)).unwrap_or_default();
        let sizes = typed.iter().map(|(name, value)| 1 + name.as_str().len() + typed::size(value));
        Self {
            size: FIXED_BYTES + RESERVE + sizes.sum::<usize>(),
            properties: BasicProperties::default().with_delivery_mode(PERSISTENT),
            routing_key: ShortString::default(),
            table: BTreeMap::new(),
            typed,
            is_copy: original.is_some(),
            is_dead: headers.contains(header::DEAD_LETTER_TOPIC),
            is_delayed,
        }
    }

    fn header(&mut self, name: &str, value: &[u8]) -> Result<()> {
        if self.is_copy && copy::is_left_out(name) {
            if ROUTING_HEADERS.contains(&name) {
                // The copy goes to its topic only, wherever else the original went.
                let name = short(&[header::BRIDGE_RENAMED, name].concat())?;
                self.entry(name, text_or_bytes(value), value.len());
            }
            return Ok(());
        }
        if ROUTING_HEADERS.contains(&name) {
            let message = "the broker takes a header of this name for routing keys: give it another name";
            return Err(Error::new(ErrorKind::InvalidMessage, message).with_context("header", name));
        }
        if self.native_property(name, value) || self.native_setting(name, value) {
            return Ok(());
        }
        let name = short(name)?;
        if self.typed.contains_key(&name) {
            return Ok(());
        }
        self.entry(name, text_or_bytes(value), value.len());
        Ok(())
    }

    /// Sets the native property of that header. Returns `false` if there is none, if it is already
    /// set, or if it cannot hold the value.
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

    /// Sets the priority, the time to live or the routing key of the message. Returns `false` if
    /// the header is none of them, or has to stay a header: a dead letter or a delayed message must
    /// not expire, and a dead letter goes to its queue by no key of another exchange.
    fn native_setting(&mut self, name: &str, value: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(value) else { return false };
        let is = |header: &str| name.eq_ignore_ascii_case(header);
        let properties = std::mem::take(&mut self.properties);
        let set = if is(header::AMQP_PRIORITY) {
            text.parse().map(|priority| properties.clone().with_priority(priority)).ok()
        } else if is(header::AMQP_EXPIRATION) && !self.is_dead && !self.is_delayed {
            // The broker closes the channel over any other text.
            text.parse::<u32>().map(|time| properties.clone().with_expiration(time.to_string().into())).ok()
        } else if is(header::AMQP_ROUTING_KEY) && !self.is_dead {
            ShortString::try_new(text).ok().map(|key| {
                self.routing_key = key;
                properties.clone()
            })
        } else {
            None
        };
        let is_set = set.is_some();
        self.size += if is_set { 1 + value.len() } else { 0 };
        self.properties = set.unwrap_or(properties);
        is_set
    }

    /// Adds an entry. Further values of the same name form an array, because a table holds each
    /// name once.
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
        // A clock before 1970 is not an error.
        let now = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = now.as_millis().to_string();
        self.table.append(&mut self.typed);
        // As text: there are consumers that refuse headers of other types.
        self.entry(short(header::TIMESTAMP_IN_MS)?, text_or_bytes(milliseconds.as_bytes()), milliseconds.len());
        if self.size > frame_max {
            return Err(Error::new(ErrorKind::TooLarge, "the headers are larger than the broker accepts")
                .with_context("size", self.size)
                .with_context("limit", frame_max));
        }
        Ok(self.properties.with_timestamp(now.as_secs()).with_headers(FieldTable::from(self.table)))
    }
}

/// Encodes UTF-8 as a long string, the type that every language reads as text, and other bytes as a
/// byte array.
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

fn property(what: &str, text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|error| {
        Error::new(ErrorKind::InvalidMessage, format!("{what} is longer than 255 bytes")).with_source(error)
    })
}

fn as_routing_key(key: &[u8]) -> Result<ShortString> {
    match std::str::from_utf8(key) {
        Ok(text) => property("the key, used as the routing key,", text),
        Err(error) => Err(Error::new(
            ErrorKind::InvalidMessage,
            "the key, used as the routing key, is not UTF-8: leave out routing_key=key",
        )
        .with_source(error)),
    }
}
