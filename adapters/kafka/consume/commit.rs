//! Commits positions: at intervals, when partitions are revoked, and at the end of a subscription.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};

use super::super::connection::native;
use super::super::error;
use super::assignment::Assignment;
use super::delivery::Item;
use super::offsets::{Mark, Offsets};
use super::partitions::list;
use super::progress::Progress;
use super::window::Window;
use crate::error::ErrorKind;

/// Maximum time that the commit of revoked partitions is repeated while the member's state changes.
const REVOKED: Duration = Duration::from_secs(1);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// Returns the positions after the messages of a batch that are committed before they are handed
/// out.
pub(crate) fn after(batch: &[Item], limit: usize) -> Vec<(i32, Mark)> {
    let mut marks: Vec<(i32, Mark)> = Vec::new();
    for taken in batch.iter().flatten() {
        let number = taken.partition.number;
        if marks.iter().all(|(partition, _)| *partition != number) {
            marks.extend(taken.partition.mark(limit).map(|mark| (number, mark)));
        }
    }
    marks
}

/// Removes the messages of partitions that were revoked after they were taken. Committing them
/// would move the position of the member that has the partition now.
pub(crate) fn drop_revoked(batch: &mut Vec<Item>, window: &Window) {
    batch.retain(|item| {
        let is_revoked = item.as_ref().is_ok_and(|taken| taken.partition.is_ended());
        if is_revoked {
            window.release();
        }
        !is_revoked
    });
}

/// Commits positions and waits for the broker's answer. If the broker refuses the size of the
/// metadata, the positions are committed without.
pub(crate) fn now(
    consumer: &BaseConsumer<impl ConsumerContext>,
    assignment: &Assignment,
    topic: &str,
    mut marks: Vec<(i32, Mark)>,
) -> KafkaResult<()> {
    let result = consumer.commit(&list(topic, &marks), CommitMode::Sync);
    match result {
        Err(error) if error::code_of(&error) == Some(Code::OffsetMetadataTooLarge) => {
            assignment.limit_metadata();
            marks.iter_mut().for_each(|(_, mark)| mark.metadata.clear());
            consumer.commit(&list(topic, &marks), CommitMode::Sync)
        }
        other => other,
    }
}

/// Commits the positions of partitions that are revoked, before they are let go. Called from within
/// a poll.
pub(crate) fn revoked(
    consumer: &BaseConsumer<impl ConsumerContext>,
    assignment: &Assignment,
    topic: &str,
    marks: &[(i32, Mark)],
) -> KafkaResult<()> {
    let deadline = Instant::now() + REVOKED;
    loop {
        match now(consumer, assignment, topic, marks.to_vec()) {
            // The member's epoch has changed, and is known soon.
            Err(error) if is_lost(&error) && !consumer.assignment_lost() && Instant::now() < deadline => {
                thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

/// Returns where the assignment of each of these partitions begins: at the position that the group
/// has committed, with the progress beyond it, if this adapter has committed it. Returns no offsets
/// for partitions without a position, and for those that could not be asked for in time; these only
/// have more redelivered.
pub(crate) fn resumed(
    consumer: &BaseConsumer<impl ConsumerContext>,
    topic: &str,
    partitions: &[i32],
    limit: Duration,
) -> KafkaResult<Vec<(i32, Offsets)>> {
    let deadline = Instant::now() + limit;
    loop {
        let mut asked = rdkafka::TopicPartitionList::new();
        for partition in partitions {
            asked.add_partition(topic, *partition);
        }
        let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
        match consumer.committed_offsets(asked, left) {
            Ok(committed) => {
                let known = native::committed(&committed).into_iter().filter(|(_, offset, _)| *offset >= 0);
                let resumed = known.map(|(partition, offset, metadata)| {
                    (partition, Offsets::resume(offset, Progress::decode(metadata, offset).unwrap_or_default()))
                });
                return Ok(resumed.collect());
            }
            Err(error) if is_lost(&error) && Instant::now() < deadline => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
}

/// Returns `true` if a commit failed because the assignment changed.
pub(crate) fn is_lost(error: &KafkaError) -> bool {
    error::code_of(error).is_some_and(|code| error::from_code(code).kind() == ErrorKind::SettlementLost)
}

#[cfg(test)]
mod tests {
    use super::super::delivery::Taken;
    use super::*;

    #[test]
    fn nothing_is_committed_for_a_partition_that_was_revoked_within_the_batch() {
        let assignment = Assignment::new(8);
        let mut batch = Vec::new();
        for (partition, offset) in [(1, 10), (2, 20), (1, 11), (2, 21)] {
            if assignment.get(partition).is_none() {
                assignment.grant(partition, Offsets::default());
            }
            let taken = assignment.partition(partition, offset).unwrap();
            assert!(taken.pass(offset));
            batch.push(Ok(Taken::example(taken, offset)));
        }
        batch.push(Err(crate::error::Error::new(ErrorKind::Unexpected, "reported")));
        let positions = |batch: &[Item]| -> Vec<(i32, i64)> {
            after(batch, 0).into_iter().map(|(partition, mark)| (partition, mark.position)).collect()
        };
        assert_eq!(positions(&batch), [(1, 12), (2, 22)]);
        assignment.revoke(1);
        // Assigned again, as it is when the group rebalances twice.
        assignment.grant(1, Offsets::default());
        drop_revoked(&mut batch, &assignment.window);
        assert_eq!(positions(&batch), [(2, 22)]);
        assert_eq!((batch.len(), assignment.window.room()), (3, 6), "the revoked ones left the window");
    }
}
