//! Committing: up to where, and for the last time.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::error;
use super::member::{Member, add, note};
use super::poller::Item;
use crate::error::{ErrorKind, Result};

/// How long the last commit of a subscription is tried again while the group rebalances.
const LAST_COMMIT: Duration = Duration::from_secs(5);
/// How long to let a rebalance go on at a time.
const POLL: Duration = Duration::from_millis(100);

/// The position after the messages of a batch, of each partition in it.
pub(super) fn after(batch: &[Item]) -> Vec<(i32, i64)> {
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
pub(super) fn last(consumer: &BaseConsumer<Member>, mut positions: TopicPartitionList) -> Result<()> {
    let deadline = Instant::now() + LAST_COMMIT;
    loop {
        note("store", consumer.store_offsets(&positions));
        match consumer.commit(&positions, CommitMode::Sync) {
            Ok(()) => return Ok(()),
            Err(error) if is_lost(&error) && Instant::now() < deadline => {
                // Lets the rebalance go on; what is taken away in it is committed by librdkafka.
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

/// Whether a commit failed since the assignment changed.
pub(super) fn is_lost(error: &KafkaError) -> bool {
    error::code_of(error).is_some_and(|code| error::from_code(code).kind() == ErrorKind::SettlementLost)
}
