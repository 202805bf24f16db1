//! Where a subscription begins that has no position yet. All of this blocks.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

use super::assignment::Assignment;
use super::error;
use super::member::{Member, add};
use crate::address::Start;
use crate::error::{ErrorKind, Result};

const PAUSE: Duration = Duration::from_millis(20);

/// Lets a group begin at the end of each partition, as of now, where it has no position.
///
/// librdkafka alone would ask for the end when the partition is assigned, and again each time it comes back unsettled; so the
/// position is committed. A group that has members takes commits from members only: then it waits until this consumer is one.
pub(super) fn position_group(
    consumer: &BaseConsumer<Member>,
    topic: &str,
    partitions: i32,
    limit: Duration,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    let all: Vec<i32> = (0..partitions).collect();
    let mut begin = Vec::new();
    for partition in without_position(consumer, topic, &all, limit).map_err(error::from_client)? {
        begin.push((partition, end_of(consumer, topic, partition, deadline)?));
    }
    match commit(consumer, topic, &begin) {
        Err(error) if is_others(&error) => {
            consumer.context().begin_at(begin);
            Ok(())
        }
        other => other.map_err(error::from_client),
    }
}

/// Commits those of the positions whose partitions still have none; for a member that was just assigned them.
pub(super) fn position_assigned(
    consumer: &BaseConsumer<Member>,
    topic: &str,
    mut begin: Vec<(i32, i64)>,
    limit: Duration,
) -> KafkaResult<()> {
    let partitions: Vec<i32> = begin.iter().map(|(partition, _)| *partition).collect();
    let missing = without_position(consumer, topic, &partitions, limit)?;
    begin.retain(|(partition, _)| missing.contains(partition));
    commit(consumer, topic, &begin)
}

/// Assigns every partition of the topic to a reader of its own.
pub(super) fn assign_reader(
    consumer: &BaseConsumer<Member>,
    assignment: &Assignment,
    topic: &str,
    partitions: i32,
    start: Start,
    limit: Duration,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        let offset = match start {
            Start::Earliest => Offset::Beginning,
            // Asked for now: librdkafka would ask later, and leave out what is published meanwhile.
            Start::Latest | Start::Time(_) | Start::Offset(_) => {
                Offset::Offset(end_of(consumer, topic, partition, deadline)?)
            }
        };
        all.add_partition_offset(topic, partition, offset).map_err(error::from_client)?;
        assignment.grant(partition);
    }
    consumer.assign(&all).map_err(error::from_client)
}

/// Which of the partitions the group has no position in.
fn without_position(
    consumer: &BaseConsumer<Member>,
    topic: &str,
    partitions: &[i32],
    limit: Duration,
) -> KafkaResult<Vec<i32>> {
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(asked, limit)?;
    let missing = committed.elements().into_iter().filter(|partition| partition.offset() == Offset::Invalid);
    Ok(missing.map(|partition| partition.partition()).collect())
}

fn commit(consumer: &BaseConsumer<Member>, topic: &str, positions: &[(i32, i64)]) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    let mut list = TopicPartitionList::new();
    positions.iter().for_each(|(partition, position)| add(&mut list, topic, *partition, *position));
    consumer.commit(&list, CommitMode::Sync)
}

/// The offset that the next message of the partition will have. Its leader may not know yet that it is that.
fn end_of(consumer: &BaseConsumer<Member>, topic: &str, partition: i32, deadline: Instant) -> Result<i64> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
        match consumer.fetch_watermarks(topic, partition, left) {
            Ok((_, end)) => return Ok(end),
            Err(error) if is_passing(&error) && Instant::now() < deadline => thread::sleep(PAUSE),
            Err(error) => return Err(error::from_client(error)),
        }
    }
}

fn is_passing(error: &KafkaError) -> bool {
    error::code_of(error).is_some_and(error::is_connection)
}

/// Whether a commit is refused since the group belongs to members.
fn is_others(error: &KafkaError) -> bool {
    error::code_of(error).is_some_and(|code| error::from_code(code).kind() == ErrorKind::SettlementLost)
}
