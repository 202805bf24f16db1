//! Positions in partitions, in the client's lists.

use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::offsets::Mark;

/// Adds a position. A position that does not fit is left out, which only leads to redelivery.
pub(crate) fn add(positions: &mut TopicPartitionList, topic: &str, partition: i32, position: i64) {
    note("position", positions.add_partition_offset(topic, partition, Offset::Offset(position)));
}

/// Returns the list that commits the positions.
pub(crate) fn list(topic: &str, marks: &[(i32, Mark)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(marks.len());
    for (partition, mark) in marks {
        let mut element = list.add_partition(topic, *partition);
        note("position", element.set_offset(Offset::Offset(mark.position)));
        if !mark.metadata.is_empty() {
            element.set_metadata(&mark.metadata);
        }
    }
    list
}

/// Logs the failure of a call that need not succeed.
pub(crate) fn note(what: &str, result: KafkaResult<()>) {
    if let Err(error) = result {
        tracing::debug!(what, %error, "kafka");
    }
}
