//! Positions in partitions, in the client's lists.

use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

/// Adds a position. A position that does not fit is left out, which only leads to redelivery.
pub(crate) fn add(positions: &mut TopicPartitionList, topic: &str, partition: i32, position: i64) {
    note("position", positions.add_partition_offset(topic, partition, Offset::Offset(position)));
}

/// Logs the failure of a call that need not succeed.
pub(crate) fn note(what: &str, result: KafkaResult<()>) {
    if let Err(error) = result {
        tracing::debug!(what, %error, "kafka");
    }
}
