//! The start position of a subscription, and moving positions. All functions here block.

use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

use super::super::error;
use super::assignment::Assignment;
use super::offsets::Offsets;
use super::partitions::add;
use super::progress::Progress;
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

/// Commits a position for each of these partitions that has none, for a member to which they were
/// just assigned: that of `begin`, or else the first message.
pub(crate) fn position_assigned(
    consumer: &BaseConsumer<impl ConsumerContext>,
    topic: &str,
    partitions: &[i32],
    mut begin: Vec<(i32, i64)>,
    limit: Duration,
) -> KafkaResult<()> {
    let missing = without_position(consumer, topic, partitions, limit)?;
    begin.retain(|(partition, _)| missing.contains(partition));
    let is_unknown = |partition: &i32| begin.iter().all(|(known, _)| known != partition);
    let unknown: Vec<i32> = missing.into_iter().filter(is_unknown).collect();
    begin.extend(offsets(consumer, topic, &unknown, Offset::Beginning, limit)?);
    commit(consumer, topic, &begin)
}

/// Grants every partition of the topic to a reader without a group.
pub(crate) fn grant_reader(
    consumer: &BaseConsumer<impl ConsumerContext>,
    assignment: &Assignment,
    topic: &str,
    partitions: i32,
    start: Start,
    limit: Duration,
) -> Result<()> {
    // Looked up now: librdkafka would do so later, and miss messages published meanwhile.
    let numbers: Vec<i32> = (0..partitions).collect();
    for (partition, offset) in places(consumer, topic, &numbers, start, Instant::now() + limit)? {
        assignment.grant(partition, Offsets::resume(offset, Progress::default()));
    }
    Ok(())
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
    let ask = |what, left| offsets(consumer, topic, partitions, what, left);
    let find = |what| retried(deadline, |left| ask(what, left)).map_err(error::from_client);
    match start {
        Start::Earliest => find(Offset::Beginning),
        Start::Latest => find(Offset::End),
        Start::Offset(offset) => {
            let offset = i64::try_from(offset).unwrap_or(i64::MAX);
            let bounds = find(Offset::Beginning)?.into_iter().zip(find(Offset::End)?);
            Ok(bounds.map(|((partition, first), (_, end))| (partition, offset.clamp(first, end.max(first)))).collect())
        }
        Start::Time(time) => {
            // No message is older than the epoch, and negative numbers stand for the beginning and
            // the end.
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let milliseconds = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
            let found = find(Offset::Offset(milliseconds))?.into_iter().zip(find(Offset::End)?);
            Ok(found
                .map(|((partition, offset), (_, end))| (partition, if offset < 0 { end } else { offset }))
                .collect())
        }
    }
}

/// Returns an offset of each partition, in that order: of its beginning, of its end, or of the
/// first message with that timestamp or a later one, to the millisecond, which is negative if there
/// is none. One request to each broker.
pub(crate) fn offsets(
    consumer: &BaseConsumer<impl ConsumerContext>,
    topic: &str,
    partitions: &[i32],
    what: Offset,
    limit: Duration,
) -> KafkaResult<Vec<(i32, i64)>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        asked.add_partition_offset(topic, *partition, what)?;
    }
    let answer = consumer.offsets_for_times(asked, limit)?;
    let found = answer.elements().into_iter().map(|found| {
        found.error()?;
        let offset = if let Offset::Offset(offset) = found.offset() { offset } else { -1 };
        Ok((found.partition(), offset))
    });
    found.collect()
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

/// Repeats a request while the leader of the partition may not know yet that it is the leader.
fn retried<T>(deadline: Instant, ask: impl Fn(Duration) -> KafkaResult<T>) -> KafkaResult<T> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
        match ask(left) {
            Err(error) if is_passing(&error) && Instant::now() < deadline => thread::sleep(PAUSE),
            other => return other,
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
