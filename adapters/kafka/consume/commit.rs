//! Commits positions, and makes the last commit of a subscription.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::super::error;
use super::delivery::Item;
use super::member::Member;
use super::partitions::{add, note};
use crate::error::{ErrorKind, Result};

/// Maximum time that the last commit of a subscription is repeated while the group rebalances.
const LAST_COMMIT: Duration = Duration::from_secs(5);
/// Maximum time of one poll that lets a rebalance continue.
const POLL: Duration = Duration::from_millis(100);

/// Returns the position after the messages of a batch, for each partition in it.
pub(crate) fn after(batch: &[Item]) -> Vec<(i32, i64)> {
    let mut positions: Vec<(i32, i64)> = Vec::new();
    for taken in batch.iter().flatten() {
        let (number, next) = (taken.partition.number, taken.offset + 1);
        match positions.iter_mut().find(|(partition, _)| *partition == number) {
            Some((_, position)) => *position = next,
            None => positions.push((number, next)),
        }
    }
    positions
}

/// Commits the positions of a subscription that ends.
pub(crate) fn last(consumer: &BaseConsumer<Member>, mut positions: TopicPartitionList) -> Result<()> {
    let deadline = Instant::now() + LAST_COMMIT;
    loop {
        note("store", consumer.store_offsets(&positions));
        match consumer.commit(&positions, CommitMode::Sync) {
            Ok(()) => return Ok(()),
            Err(error) if is_lost(&error) && Instant::now() < deadline => {
                // Lets the rebalance continue. librdkafka commits the positions of partitions that
                // are revoked in it.
                drop(consumer.poll(POLL));
                positions = still_assigned(consumer, &positions);
                if positions.count() == 0 {
                    return Ok(());
                }
            }
            Err(error) => return Err(error::from_client(error)),
        }
    }
}

fn still_assigned(consumer: &BaseConsumer<Member>, positions: &TopicPartitionList) -> TopicPartitionList {
    let assigned = consumer.assignment().unwrap_or_default();
    let mut left = TopicPartitionList::new();
    for position in positions.elements() {
        let found = assigned.find_partition(position.topic(), position.partition()).is_some();
        if let (true, Offset::Offset(offset)) = (found, position.offset()) {
            add(&mut left, position.topic(), position.partition(), offset);
        }
    }
    left
}

/// Returns `true` if a commit failed because the assignment changed.
pub(crate) fn is_lost(error: &KafkaError) -> bool {
    error::code_of(error).is_some_and(|code| error::from_code(code).kind() == ErrorKind::SettlementLost)
}
