//! The start position of a subscription, and moving positions. All functions here block.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

use super::super::error;
use super::assignment::Assignment;
use super::offsets::Offsets;
use super::partitions::add;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Start;

const PAUSE: Duration = Duration::from_millis(20);

/// Sets the start position of a group to `start`, as of now, in each partition in which it has no
/// position.
///
/// librdkafka alone would look the position up when the partition is assigned, and again after each
/// assignment that ended without a commit. The position is therefore committed here. A group with
/// members accepts commits from members only; `begin_at` then
/// receives the positions, for when this consumer is a member.
pub(crate) fn position_group(
    consumer: &BaseConsumer<impl ConsumerContext>,
    topic: &str,
    partitions: i32,
    start: Start,
    limit: Duration,
    begin_at: impl FnOnce(Vec<(i32, i64)>),
) -> Result<()> {
    let deadline = Instant::now() + limit;
    let all: Vec<i32> = (0..partitions).collect();
    let missing = without_position(consumer, topic, &all, limit).map_err(error::from_client)?;
    let begin = places(consumer, topic, &missing, start, deadline)?;
    match commit(consumer, topic, &begin) {
        Err(error) if is_others(&error) => {
            begin_at(begin);
            Ok(())
        }
        other => other.map_err(error::from_client),
    }
}

/// Moves a group without members to `start` in every partition. The broker itself checks that there
/// are none.
pub(crate) fn reposition_group(
    consumer: &BaseConsumer<impl ConsumerContext>,
    topic: &str,
    partitions: i32,
    start: Start,
    limit: Duration,
) -> Result<()> {
    let all: Vec<i32> = (0..partitions).collect();
    let positions = places(consumer, topic, &all, start, Instant::now() + limit)?;
    commit(consumer, topic, &positions).map_err(|error| {
        if !is_others(&error) {
            return error::from_client(error);
        }
        let message = "the group has members, and only they can move its position: end its subscriptions everywhere first; \
                       one that crashed is counted until its session times out";
        Error::new(ErrorKind::Conflict, message).with_source(error)
    })
}

/// Commits the positions of partitions that still have none, for a member to which they were just
/// assigned.
pub(crate) fn position_assigned(
    consumer: &BaseConsumer<impl ConsumerContext>,
    topic: &str,
    mut begin: Vec<(i32, i64)>,
    limit: Duration,
) -> KafkaResult<()> {
    let partitions: Vec<i32> = begin.iter().map(|(partition, _)| *partition).collect();
    let missing = without_position(consumer, topic, &partitions, limit)?;
    begin.retain(|(partition, _)| missing.contains(partition));
    commit(consumer, topic, &begin)
}

/// Assigns every partition of the topic to a reader without a group.
pub(crate) fn assign_reader(
    consumer: &BaseConsumer<impl ConsumerContext>,
    assignment: &Assignment,
    topic: &str,
    partitions: i32,
    start: Start,
    limit: Duration,
) -> Result<()> {
    // Looked up now: librdkafka would do so later, and miss messages published meanwhile.
    let numbers: Vec<i32> = (0..partitions).collect();
    let mut all = TopicPartitionList::new();
    for (partition, offset) in places(consumer, topic, &numbers, start, Instant::now() + limit)? {
        all.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(error::from_client)?;
        assignment.grant(partition, Offsets::default());
    }
    consumer.assign(&all).map_err(error::from_client)
}

/// Returns the offset for `start` in each partition, never before its first message or after its
/// end.
fn places(
    consumer: &BaseConsumer<impl ConsumerContext>,
    topic: &str,
    partitions: &[i32],
    start: Start,
    deadline: Instant,
) -> Result<Vec<(i32, i64)>> {
    let mut places = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let (first, end) = bounds_of(consumer, topic, *partition, deadline)?;
        let place = match start {
            Start::Earliest => first,
            Start::Latest => end,
            Start::Offset(offset) => i64::try_from(offset).unwrap_or(i64::MAX).clamp(first, end),
            Start::Time(time) => stored_at(consumer, topic, *partition, time, deadline)?.unwrap_or(end),
        };
        places.push((*partition, place));
    }
    Ok(places)
}

/// Returns the offset of the first message of the partition with a timestamp of `time` or later, to
/// the millisecond.
fn stored_at(
    consumer: &BaseConsumer<impl ConsumerContext>,
    topic: &str,
    partition: i32,
    time: SystemTime,
    deadline: Instant,
) -> Result<Option<i64>> {
    // No message is older than the epoch, and negative numbers stand for the beginning and the end.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let milliseconds = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let found = retried(deadline, |left| {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(topic, partition, Offset::Offset(milliseconds))?;
        let answer = consumer.offsets_for_times(asked, left)?;
        let found = answer.elements().first().map(|found| found.error().map(|()| found.offset()));
        found.unwrap_or(Ok(Offset::Invalid))
    })?;
    // The end is returned as such, not as a number.
    Ok(if let Offset::Offset(offset) = found { Some(offset) } else { None })
}

/// Returns the partitions in which the group has no position.
fn without_position(
    consumer: &BaseConsumer<impl ConsumerContext>,
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

fn commit(consumer: &BaseConsumer<impl ConsumerContext>, topic: &str, positions: &[(i32, i64)]) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    let mut list = TopicPartitionList::new();
    positions.iter().for_each(|(partition, position)| add(&mut list, topic, *partition, *position));
    consumer.commit(&list, CommitMode::Sync)
}

/// Returns the offset of the first message of the partition, and that of the next message to come.
fn bounds_of(
    consumer: &BaseConsumer<impl ConsumerContext>,
    topic: &str,
    partition: i32,
    deadline: Instant,
) -> Result<(i64, i64)> {
    retried(deadline, |left| consumer.fetch_watermarks(topic, partition, left))
}

/// Repeats a request while the leader of the partition may not know yet that it is the leader.
fn retried<T>(deadline: Instant, ask: impl Fn(Duration) -> KafkaResult<T>) -> Result<T> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
        match ask(left) {
            Err(error) if is_passing(&error) && Instant::now() < deadline => thread::sleep(PAUSE),
            other => return other.map_err(error::from_client),
        }
    }
}

fn is_passing(error: &KafkaError) -> bool {
    error::code_of(error).is_some_and(error::is_connection)
}

/// Returns `true` if a commit is refused because the group has members.
fn is_others(error: &KafkaError) -> bool {
    error::code_of(error).is_some_and(|code| error::from_code(code).kind() == ErrorKind::SettlementLost)
}
