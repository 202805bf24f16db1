//! A message as it was received, to be published again unchanged.
//!
//! The header table is read from the wire again, with its types, because the application sees
//! values as text. The headers that the broker added on the way are left out: with them, the broker
//! would consider a message that passes the same queues again to be in a cycle, and drop it.

use crate::names::header;
use std::collections::BTreeMap;
use std::sync::Arc;

use ::bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, ShortString};

use super::super::topology::delay::Delay;
use super::super::topology::names::{self, PERSISTENT, ROUTING_HEADERS};
use super::super::topology::waiting::{RESERVE, Target, labels};
use super::super::wire::bytes::Reader;
use super::super::wire::returned::written;
use super::incoming::raw_table;
use crate::error::{Error, ErrorKind, Result};

/// Maximum depth of nested tables and arrays; deeper values are left out.
pub(super) const DEEPEST: usize = 16;
/// Maximum size of the other properties and of the frame's own bytes: nine short strings, and the
/// rest.
const BESIDE_THE_TABLE: usize = 9 * 256 + 64;
/// Bytes left free in the frame for the headers of a copy that goes straight to its queue: two
/// names of at most 255 bytes, and the rest.
const STRAIGHT: usize = 1024;

/// The parts of a delivery that are needed to publish it again.
#[derive(Debug, Clone)]
pub(crate) struct Original {
    pub(crate) properties: Arc<BasicProperties>,
    pub(crate) routing_key: ShortString,
    pub(crate) payload: Bytes,
    /// The number of the attempt.
    pub(crate) attempt: u32,
    /// The number of attempts that failed, if it is to be kept when the message is given back.
    pub(crate) failed: Option<u32>,
    /// The number of deliveries with this one, as far as they are known.
    pub(crate) deliveries: u32,
    /// `true` if the broker drops the message when it is returned once more.
    pub(crate) is_last: bool,
}

/// The way of a copy back to its queue.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// Through the delay queues; the routing key stays.
    Delayed(Delay),
    /// Straight to the queue, by its name as the routing key.
    Straight,
}

/// The parts of a copy that its publisher decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copied<'a> {
    pub(crate) way: Way,
    pub(crate) target: &'a Target,
    /// The number of attempts that were made.
    pub(crate) attempts: u32,
    /// The number by which the broker returns the copy if no queue takes it.
    pub(crate) number: i64,
    /// The user of the connection, which the broker compares with the one that it knows.
    pub(crate) user: Option<&'a str>,
}

impl Original {
    /// Returns `true` if a message with these properties can be copied. The broker's count is the
    /// only one for a message whose headers fill the frame.
    pub(crate) fn fits(properties: &BasicProperties, frame_max: usize) -> bool {
        raw_table(properties).len() + BESIDE_THE_TABLE + STRAIGHT <= frame_max
    }

    /// Returns the properties of the copy.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if they may exceed one frame: the broker would close the connection.
    pub(crate) fn encode(&self, copied: Copied<'_>, frame_max: usize) -> Result<BasicProperties> {
        let raw = raw_table(&self.properties);
        let reserve = match copied.way {
            Way::Delayed(_) => RESERVE,
            Way::Straight => STRAIGHT,
        };
        let size = raw.len() + BESIDE_THE_TABLE + reserve;
        if size > frame_max {
            return Err(Error::new(ErrorKind::TooLarge, "the headers are too large for a copy of the message")
                .with_context("size", size)
                .with_context("limit", frame_max));
        }
        let mut headers = table(Reader::new(raw), DEEPEST);
        headers.retain(|name, _| !is_left_out(name.as_str()));
        let mut write = |name: &str, value| headers.insert(name.into(), value);
        match copied.way {
            Way::Delayed(delay) => {
                for (name, value) in labels(delay, copied.target) {
                    write(name, AMQPValue::LongString(value.into()));
                }
            }
            Way::Straight => {
                write(header::DELAYED_FOR, AMQPValue::LongString(copied.target.to_string().into()));
                if !self.routing_key.as_str().is_empty() {
                    write(header::RETRY_ROUTING_KEY, AMQPValue::LongString(self.routing_key.as_str().into()));
                }
            }
        }
        write(header::PRIOR_ATTEMPTS, AMQPValue::LongLongInt(copied.attempts.into()));
        write(header::PRIOR_DELIVERIES, AMQPValue::LongLongInt(self.deliveries.into()));
        write(header::PUBLISH_NUMBER, AMQPValue::LongString(written(copied.number).into()));
        let mut properties = kept(&self.properties).with_delivery_mode(PERSISTENT);
        if let Some(user) = copied.user.and_then(|user| ShortString::try_new(user).ok()) {
            properties = properties.with_user_id(user);
        }
        Ok(properties.with_headers(FieldTable::from(headers)))
    }
}

/// Returns `true` for headers that the broker wrote, whose type it checks, or that are written
/// anew.
pub(super) fn is_left_out(name: &str) -> bool {
    ROUTING_HEADERS.contains(&name)
        || name == names::DELIVERY_COUNT
        || name == "x-acquired-count"
        || name == names::DEATHS
        || names::FIRST_AND_LAST_DEATH.contains(&name)
        || names::is_for_waiting(name)
}

/// Returns the properties except the time to live, which would end the wait, and the user, which
/// the broker compares with this connection's user.
fn kept(from: &BasicProperties) -> BasicProperties {
    type Set = fn(BasicProperties, ShortString) -> BasicProperties;
    let texts: [(&Option<ShortString>, Set); 8] = [
        (from.content_type(), BasicProperties::with_content_type),
        (from.content_encoding(), BasicProperties::with_content_encoding),
        (from.correlation_id(), BasicProperties::with_correlation_id),
        (from.reply_to(), BasicProperties::with_reply_to),
        (from.message_id(), BasicProperties::with_message_id),
        (from.kind(), BasicProperties::with_type),
        (from.app_id(), BasicProperties::with_app_id),
        (from.cluster_id(), BasicProperties::with_cluster_id),
    ];
    let mut kept = BasicProperties::default();
    for (text, set) in texts {
        if let Some(text) = text {
            kept = set(kept, text.clone());
        }
    }
    if let Some(priority) = from.priority() {
        kept = kept.with_priority(*priority);
    }
    if let Some(timestamp) = from.timestamp() {
        kept = kept.with_timestamp(*timestamp);
    }
    kept
}

/// Returns the entries that can be written again, up to the first malformed one.
pub(super) fn table(mut reader: Reader<'_>, deepest: usize) -> BTreeMap<ShortString, AMQPValue> {
    let mut entries = BTreeMap::new();
    while let Some(name) = reader.short_string() {
        let Some(value) = value(&mut reader, deepest) else { break };
        let name = std::str::from_utf8(name).ok().and_then(|name| ShortString::try_new(name).ok());
        if let (Some(name), Some(value)) = (name, value) {
            entries.insert(name, value);
        }
    }
    entries
}

fn array(mut reader: Reader<'_>, deepest: usize) -> FieldArray {
    let mut elements = Vec::new();
    while !reader.is_empty() {
        let Some(element) = value(&mut reader, deepest) else { break };
        elements.extend(element);
    }
    FieldArray::from(elements)
}

/// Reads a value with its type in front. Returns `None` if it is malformed, and `Some(None)` if it
/// is nested too deeply.
fn value(reader: &mut Reader<'_>, deepest: usize) -> Option<Option<AMQPValue>> {
    let kind = reader.u8()?;
    Some(Some(match kind {
        b'F' | b'A' => {
            let inner = Reader::new(reader.long_string()?);
            let Some(deepest) = deepest.checked_sub(1) else { return Some(None) };
            match kind {
                b'F' => AMQPValue::FieldTable(FieldTable::from(table(inner, deepest))),
                _ => AMQPValue::FieldArray(array(inner, deepest)),
            }
        }
        b'S' => AMQPValue::LongString(reader.long_string()?.into()),
        b'x' => AMQPValue::ByteArray(reader.long_string()?.into()),
        b't' => AMQPValue::Boolean(reader.u8()? != 0),
        b'b' => AMQPValue::ShortShortInt(i8::from_be_bytes(reader.array()?)),
        b'B' => AMQPValue::ShortShortUInt(reader.u8()?),
        b's' | b'U' => AMQPValue::ShortInt(i16::from_be_bytes(reader.array()?)),
        b'u' => AMQPValue::ShortUInt(reader.u16()?),
        b'I' => AMQPValue::LongInt(i32::from_be_bytes(reader.array()?)),
        b'i' => AMQPValue::LongUInt(reader.u32()?),
        b'l' | b'L' => AMQPValue::LongLongInt(i64::from_be_bytes(reader.array()?)),
        b'f' => AMQPValue::Float(f32::from_be_bytes(reader.array()?)),
        b'd' => AMQPValue::Double(f64::from_be_bytes(reader.array()?)),
        b'D' => AMQPValue::DecimalValue(DecimalValue { scale: reader.u8()?, value: reader.u32()? }),
        b'T' => AMQPValue::Timestamp(u64::from_be_bytes(reader.array()?)),
        b'V' => AMQPValue::Void,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::wire::content_header::RAW_TABLE;
    use super::*;

    #[test]
    fn what_the_broker_wrote_is_not_copied_and_what_leads_the_way_is_written_anew() {
        let left_out = [
            "CC",
            "x-death",
            "x-first-death-queue",
            "x-last-death-reason",
            "x-delivery-count",
            "x-acquired-count",
            "delay-6",
            "delayed-for",
            "prior-attempts",
            "prior-deliveries",
            "retry-routing-key",
        ];
        let entry = |name: &str| [&[name.len() as u8][..], name.as_bytes(), b"S\0\0\0\x03old"].concat();
        let raw: Vec<u8> = left_out.into_iter().chain(["tenant", "x-own"]).flat_map(entry).collect();
        let mut wrapped = FieldTable::default();
        wrapped.insert(RAW_TABLE.into(), AMQPValue::ByteArray(raw.into()));
        let properties = Arc::new(BasicProperties::default().with_headers(wrapped));
        let original = Original {
            properties,
            routing_key: "key".into(),
            payload: Bytes::new(),
            attempt: 7,
            failed: None,
            deliveries: 9,
            is_last: false,
        };
        let way = Way::Delayed(Delay::of(Duration::from_millis(0x1020)).unwrap());
        let target = &Target::Queue("orders.billing".to_owned());
        let copied = Copied { way, target, attempts: 7, number: 42, user: Some("shop") };
        let copy = original.encode(copied, 131_072).unwrap();
        let text = |text: &str| AMQPValue::LongString(text.into());
        let mut expected = FieldTable::default();
        expected.insert("delay-2".into(), text("1"));
        expected.insert("delay-1".into(), text("0"));
        expected.insert("delay-0".into(), text("2"));
        expected.insert("delayed-for".into(), text("queue:orders.billing"));
        expected.insert("prior-attempts".into(), AMQPValue::LongLongInt(7));
        expected.insert("prior-deliveries".into(), AMQPValue::LongLongInt(9));
        expected.insert("publish-number".into(), text("000000000000002a"));
        expected.insert("tenant".into(), text("old"));
        expected.insert("x-own".into(), text("old"));
        assert_eq!(copy.headers().as_ref(), Some(&expected));
        assert_eq!(copy.user_id().as_ref().map(ShortString::as_str), Some("shop"));
        let straight = original.encode(Copied { way: Way::Straight, user: None, ..copied }, 131_072).unwrap();
        let mut remaining = expected.inner().clone();
        for level in ["delay-0", "delay-1", "delay-2"] {
            remaining.remove(level);
        }
        remaining.insert("retry-routing-key".into(), text("key"));
        let remaining = FieldTable::from(remaining);
        assert_eq!((straight.headers().as_ref(), straight.user_id()), (Some(&remaining), &None));
    }

    #[test]
    fn a_table_is_read_with_its_types_and_without_what_lies_too_deep() {
        let mut deep = b"V".to_vec();
        for _ in 0..=DEEPEST {
            deep = [&b"A"[..], &(deep.len() as u32).to_be_bytes(), &deep].concat();
        }
        let raw =
            [&b"\x01aS\0\0\0\x01\xff\x01\xffV\x01bx\0\0\0\x01?\x01cs\xff\xfe\x04deep"[..], &deep, b"\x01zV\x02bad!"]
                .concat();
        let read = table(Reader::new(&raw), DEEPEST);
        assert_eq!(read.get("a"), Some(&AMQPValue::LongString(vec![0xff].into())));
        assert_eq!(read.get("b"), Some(&AMQPValue::ByteArray(vec![b'?'].into())));
        assert_eq!(read.get("c"), Some(&AMQPValue::ShortInt(-2)));
        assert_eq!(read.get("z"), Some(&AMQPValue::Void), "what comes after an entry that is left out stays");
        assert_eq!(read.len(), 5, "{read:?}");
        let mut innermost = read.get("deep").unwrap();
        let mut levels = 0;
        while let AMQPValue::FieldArray(array) = innermost {
            levels += 1;
            let Some(inner) = array.as_slice().first() else { break };
            innermost = inner;
        }
        assert_eq!(levels, DEEPEST);
    }
}
