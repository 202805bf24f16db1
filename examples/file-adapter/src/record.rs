//! The contents of records: a message of a topic, an event of a group.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use traced_broker::Headers;
use traced_broker::driver::Outbound;

/// The length of an absent field; an empty field has length 0.
const NONE: u32 = u32::MAX;

/// A message read from a journal.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) time: Option<SystemTime>,
    pub(crate) payload: Option<Bytes>,
    pub(crate) key: Option<Bytes>,
    pub(crate) id: Option<String>,
    pub(crate) headers: Headers,
    pub(crate) unreadable_headers: u32,
}

/// Encodes a message: time, payload, key, id, number of headers, names and values.
pub(crate) fn encode(message: &Outbound, time: SystemTime) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&nanoseconds(time).to_le_bytes());
    put(&mut out, message.payload.as_deref());
    put(&mut out, message.key.as_deref());
    put(&mut out, message.id.as_deref().map(str::as_bytes));
    out.extend_from_slice(&(message.headers.len() as u32).to_le_bytes());
    for (name, value) in message.headers.iter() {
        put(&mut out, Some(name.as_bytes()));
        put(&mut out, Some(value));
    }
    out
}

/// Returns the time in nanoseconds since 1970, as far as they can be counted.
pub(crate) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Decodes a message. A record that this adapter did not write becomes the payload, so that the
/// application can reject it.
pub(crate) fn decode(record: Vec<u8>) -> Stored {
    let record = Bytes::from(record);
    decode_fields(&record).unwrap_or_else(|| Stored {
        payload: Some(record),
        unreadable_headers: 1,
        ..Stored::default()
    })
}

fn decode_fields(record: &Bytes) -> Option<Stored> {
    let mut fields = Fields(record);
    let nanoseconds = fields.array().map(u64::from_le_bytes)?;
    let time = UNIX_EPOCH.checked_add(Duration::from_nanos(nanoseconds));
    let payload = fields.take()?.map(|payload| record.slice_ref(payload));
    let key = fields.take()?.map(|key| record.slice_ref(key));
    let id = fields.take()?.map(|id| String::from_utf8_lossy(id).into_owned());
    let mut stored = Stored { time, payload, key, id, ..Stored::default() };
    for _ in 0..fields.array().map(u32::from_le_bytes)? {
        match (std::str::from_utf8(fields.take()??), fields.take()??) {
            (Ok(name), value) => stored.headers.append(name, value),
            (Err(_), _) => stored.unreadable_headers += 1,
        }
    }
    Some(stored)
}

/// Reads only the time of a message.
pub(crate) fn time_of(record: &[u8]) -> Option<SystemTime> {
    let nanoseconds = Fields(record).array().map(u64::from_le_bytes)?;
    UNIX_EPOCH.checked_add(Duration::from_nanos(nanoseconds))
}

fn put(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let length = bytes.map_or(NONE, |bytes| bytes.len() as u32);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// An event of a group, as its file records it. Messages are identified by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The group begins at this message, which has this position in the journal; earlier events do
    /// not count.
    Began { number: u64, position: u64 },
    /// The message was handed out this many times.
    Handed { number: u64, deliveries: u32 },
    /// So many retries of the message were asked for.
    Retried { number: u64, retries: u32 },
    /// The last retry of the message is due at this time, in nanoseconds since 1970.
    Due { number: u64, time: u64 },
    /// The message is not redelivered.
    Settled { number: u64 },
}

impl Event {
    pub(crate) fn encode(self) -> [u8; 17] {
        let (tag, number, value) = match self {
            Self::Began { number, position } => (0, number, position),
            Self::Handed { number, deliveries } => (1, number, u64::from(deliveries)),
            Self::Settled { number } => (2, number, 0),
            Self::Retried { number, retries } => (3, number, u64::from(retries)),
            Self::Due { number, time } => (4, number, time),
        };
        let mut out = [tag; 17];
        out[1..9].copy_from_slice(&number.to_le_bytes());
        out[9..].copy_from_slice(&value.to_le_bytes());
        out
    }

    /// Decodes an event; returns `None` for an event of a later version.
    pub(crate) fn decode(record: &[u8]) -> Option<Self> {
        let (tag, mut fields) = record.split_first().map(|(tag, rest)| (*tag, Fields(rest)))?;
        let number = fields.array().map(u64::from_le_bytes)?;
        let value = fields.array().map(u64::from_le_bytes)?;
        match tag {
            0 => Some(Self::Began { number, position: value }),
            1 => Some(Self::Handed { number, deliveries: u32::try_from(value).ok()? }),
            2 => Some(Self::Settled { number }),
            3 => Some(Self::Retried { number, retries: u32::try_from(value).ok()? }),
            4 => Some(Self::Due { number, time: value }),
            _ => None,
        }
    }
}

/// The rest of a record. Every step returns `None` if it is too short.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn take(&mut self) -> Option<Option<&'a [u8]>> {
        let length = u32::from_le_bytes(self.array()?);
        if length == NONE {
            return Some(None);
        }
        let (bytes, rest) = self.0.split_at_checked(length as usize)?;
        self.0 = rest;
        Some(Some(bytes))
    }
}
