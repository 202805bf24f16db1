//! One message taken from a partition, copied out of librdkafka's buffer, to be settled.

use crate::names::{attribute, header};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use rdkafka::Timestamp as NativeTimestamp;
use rdkafka::message::{BorrowedMessage, Message as _};

use super::super::headers;
use super::offsets::Past;
use super::partition::Partition;
use crate::driver::{AttributeValue, Confirmation, DeliveryHandle, Disposition, Inbound, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::headers::Headers;
use crate::message::TimestampSource;

/// A taken message, or an error to report.
pub(crate) type Item = Result<Taken>;

/// A message that has left librdkafka and is not yet handed out.
#[derive(Debug)]
pub(crate) struct Taken {
    payload: Option<Bytes>,
    key: Option<Bytes>,
    headers: Headers,
    unreadable_headers: u32,
    timestamp: Option<Timestamp>,
    offset: i64,
    pub(crate) partition: Arc<Partition>,
    past: Past,
    /// `true` if the message was committed before and needs no settlement.
    pub(crate) settled: bool,
}

impl Taken {
    /// Takes the message from its partition and copies it. The buffer in which it was fetched
    /// cannot be freed while the message is borrowed. Returns `None` if the message was settled
    /// before.
    pub(crate) fn copy(
        mut message: BorrowedMessage<'_>,
        partition: Arc<Partition>,
        settled: bool,
        bodies: &mut BytesMut,
    ) -> Option<Self> {
        let past = match settled {
            true => partition.pass(message.offset()).then(Past::default),
            false => partition.take(message.offset()),
        }?;
        let (payload, key) = copy_body(message.payload(), message.key(), bodies);
        let (headers, unreadable_headers) = headers::from_native(&mut message);
        let (timestamp, offset) = (timestamp(message.timestamp()), message.offset());
        Some(Self { payload, key, headers, unreadable_headers, timestamp, offset, partition, past, settled })
    }

    /// Creates a message that was committed before.
    #[cfg(test)]
    pub(crate) fn example(partition: Arc<Partition>, offset: i64) -> Self {
        let headers = Headers::new();
        let (payload, key, timestamp) = (None, None, None);
        let past = Past::default();
        Self { payload, key, headers, unreadable_headers: 0, timestamp, offset, partition, past, settled: true }
    }

    /// Returns `true` if the message may no longer be handed out, because its partition is revoked.
    pub(crate) fn is_given_up(&self) -> bool {
        !self.settled && self.partition.is_given_up()
    }

    /// Hands the message out, unless its partition is revoked: the member that has it next receives
    /// the message.
    pub(crate) fn hand_out(self) -> Option<Inbound> {
        (self.settled || self.partition.hand_out()).then(|| self.into_inbound())
    }

    fn into_inbound(self) -> Inbound {
        let (partition, tenure) = (self.partition.number, self.partition.tenure.clone());
        let handle = Handle {
            partition: self.partition,
            offset: self.offset,
            key: self.key.clone(),
            tombstone: self.payload.is_none(),
            settled: self.settled,
            is_suspect: self.past.lost_trials.is_some(),
            is_aside: AtomicBool::new(false),
        };
        Inbound {
            payload: self.payload,
            key: self.key,
            id: self.headers.get_str(header::MESSAGE_ID).map(str::to_owned),
            headers: self.headers,
            unreadable_headers: self.unreadable_headers,
            attempt: self.past.failed.saturating_add(1),
            deliveries: None,
            lost_trials: self.past.lost_trials,
            timestamp: self.timestamp,
            partition: Some(partition),
            offset: Some(self.offset),
            native: None,
            tenure,
            handle: Box::new(handle),
        }
    }
}

/// Size of the shared buffer for small payloads and keys. Keeping one of them keeps the whole
/// buffer.
const ROOM: usize = 32 * 1024;

/// Copies payload and key into the shared buffer; large ones get their own allocations.
fn copy_body(payload: Option<&[u8]>, key: Option<&[u8]>, room: &mut BytesMut) -> (Option<Bytes>, Option<Bytes>) {
    let size = key.map_or(0, <[u8]>::len) + payload.map_or(0, <[u8]>::len);
    if size > ROOM / 8 {
        return (payload.map(Bytes::copy_from_slice), key.map(Bytes::copy_from_slice));
    }
    if room.capacity() < size {
        // Not `reserve`, which would reuse the same memory once all of it is returned, at an
        // unknown time.
        *room = BytesMut::with_capacity(ROOM);
    }
    let mut copy = |bytes: &[u8]| {
        room.extend_from_slice(bytes);
        room.split().freeze()
    };
    let key = key.map(&mut copy);
    (payload.map(copy), key)
}

/// Returns the record's timestamp, unless it is before 1970 or cannot be represented.
fn timestamp(native: NativeTimestamp) -> Option<Timestamp> {
    let (milliseconds, source) = match native {
        NativeTimestamp::NotAvailable => return None,
        NativeTimestamp::CreateTime(milliseconds) => (milliseconds, TimestampSource::Producer),
        NativeTimestamp::LogAppendTime(milliseconds) => (milliseconds, TimestampSource::Broker),
    };
    let since = Duration::from_millis(u64::try_from(milliseconds).ok()?);
    let time: SystemTime = UNIX_EPOCH.checked_add(since)?;
    Some(Timestamp { time, source })
}

/// The handle that settles one delivery in the assignment it came from.
#[derive(Debug)]
struct Handle {
    partition: Arc<Partition>,
    offset: i64,
    key: Option<Bytes>,
    tombstone: bool,
    settled: bool,
    is_suspect: bool,
    /// `true` if it takes up no place of the window any more.
    is_aside: AtomicBool,
}

impl DeliveryHandle for Handle {
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        let result = match disposition {
            Disposition::Retry(_) | Disposition::GiveBack => {
                Err(Error::new(ErrorKind::Unsupported, "kafka cannot redeliver a single message"))
            }
            _ if self.settled || self.partition.settle(self.offset, self.is_aside.load(Ordering::Relaxed)) => Ok(()),
            _ => {
                let message = "the partition is no longer assigned to this consumer; the message is redelivered";
                Err(Error::new(ErrorKind::SettlementLost, message)
                    .with_context("partition", self.partition.number)
                    .with_context("offset", self.offset))
            }
        };
        Confirmation::ready(result)
    }

    fn failed(&self, attempts: u32) {
        self.partition.fail(self.offset, attempts);
        if self.is_suspect {
            self.partition.end_trial(self.offset);
        }
    }

    fn begin_trial(&self) -> Confirmation<()> {
        match self.is_suspect {
            true => self.partition.begin_trial(self.offset),
            false => Confirmation::ready(Ok(())),
        }
    }

    fn set_aside(&self) -> bool {
        let may = !self.settled && self.partition.set_aside();
        self.is_aside.store(may, Ordering::Relaxed);
        may
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        visit(attribute::KAFKA_OFFSET, self.offset.into());
        // A key that is not text has no canonical form; the semantic conventions then omit it.
        if let Some(key) = self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) {
            visit(attribute::KAFKA_MESSAGE_KEY, key.into());
        }
        if self.tombstone {
            visit(attribute::KAFKA_TOMBSTONE, true.into());
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.is_suspect {
            self.partition.end_trial(self.offset);
        }
        if !self.settled {
            self.partition.hand_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_differ() {
        let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let mut room = BytesMut::new();
        let mut copy = |payload: Option<&str>, key: Option<&str>| {
            copy_body(payload.map(str::as_bytes), key.map(str::as_bytes), &mut room)
        };
        assert_eq!(copy(None, None), (None, None));
        assert_eq!(copy(Some(""), Some("")), (bytes(""), bytes("")));
        assert_eq!(copy(None, Some("k")), (None, bytes("k")));
        assert_eq!(copy(Some("payload"), Some("k")), (bytes("payload"), bytes("k")));
    }

    #[test]
    fn what_was_copied_stays_as_it_was() {
        let mut room = BytesMut::new();
        let bodies: Vec<Vec<u8>> = (0..200_usize).map(|n| vec![n as u8; n * 37]).collect();
        let copies: Vec<_> =
            bodies.iter().map(|body| copy_body(Some(body), Some(&body[..body.len() / 2]), &mut room)).collect();
        for (body, (payload, key)) in bodies.iter().zip(&copies) {
            assert_eq!((payload.as_deref(), key.as_deref()), (Some(&body[..]), Some(&body[..body.len() / 2])));
        }
    }

    #[test]
    fn absurd_timestamps_are_none() {
        assert_eq!(timestamp(NativeTimestamp::CreateTime(-1)), None);
        assert_eq!(timestamp(NativeTimestamp::LogAppendTime(i64::MIN)), None);
        let far = timestamp(NativeTimestamp::CreateTime(i64::MAX));
        assert!(far.is_none_or(|far| far.time > SystemTime::now()));
        let known = timestamp(NativeTimestamp::LogAppendTime(1_500)).unwrap();
        assert_eq!((known.time, known.source), (UNIX_EPOCH + Duration::from_millis(1_500), TimestampSource::Broker));
    }
}
