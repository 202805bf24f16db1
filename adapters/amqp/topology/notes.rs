//! The stream in which the trials of a queue's messages are noted.

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::super::connection::Live;
use super::super::error::During;
use super::name;
use crate::driver::Topology;
use crate::error::Result;

/// The prefix of the names of all such streams.
const PREFIX: &str = "traced-broker.trials.v1";

/// Bounds of a stream. Its oldest segment is deleted as a whole, so that a note goes before, or
/// with, the record that withdraws it.
const MAX_AGE: &str = "7D";
const MAX_BYTES: i64 = 2 << 20;
const SEGMENT_BYTES: i64 = 1 << 19;

/// Returns the name of the stream for a queue.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if it is too long.
pub(crate) fn stream_of(queue: &ShortString) -> Result<ShortString> {
    name(&format!("{PREFIX}.{queue}"))
}

/// Declares the stream, or only checks that it exists. A refusal ends the channel.
pub(crate) async fn declare(live: &Live, channel: &Channel, stream: &ShortString, topology: Topology) -> Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    arguments.insert("x-max-age".into(), AMQPValue::LongString(MAX_AGE.into()));
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(MAX_BYTES));
    arguments.insert("x-stream-max-segment-size-bytes".into(), AMQPValue::LongLongInt(SEGMENT_BYTES));
    let passive = topology == Topology::Check;
    let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(stream.clone(), options, arguments);
    live.request(During::Declare, declared).await.map(drop)
}

/// Returns the arguments of a consumer that reads the stream from its beginning.
pub(crate) fn from_first() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    arguments
}
