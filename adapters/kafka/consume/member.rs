//! The callbacks of librdkafka to a consumer, for partitions that are assigned and revoked. The
//! polling thread calls them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::super::connection::log::Listener;
use super::super::error;
use super::assignment::Assignment;
use super::control::Control;
use super::intake::Intake;
use super::offsets::Mark;
use super::partition::Partition;
use super::partitions::note;
use super::queue::Queue;
use super::{commit, start};
use crate::error::ErrorKind;

/// Maximum time that a rebalance spends on finding the start position, and on reading the progress
/// beyond it. After that, it is the earliest message, or none.
const BEGIN: Duration = Duration::from_secs(5);
/// Maximum time of one wait for deliveries in hand. Settling the last one ends it.
const WAIT: Duration = Duration::from_millis(100);

/// The demands of a subscription on its consumers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// `true` if settled positions are committed.
    pub(crate) commits: bool,
    /// `true` if a partition gets a position as soon as it is assigned, because librdkafka would
    /// begin elsewhere.
    pub(crate) positions: bool,
    /// Maximum time that revoked partitions wait for deliveries in hand.
    pub(crate) patience: Duration,
}

/// The consumer context that keeps the assignment up to date.
pub(crate) struct Member {
    assignment: Arc<Assignment>,
    control: Arc<Control>,
    queue: Arc<Queue>,
    pub(crate) intake: Intake<Self>,
    policy: Policy,
    /// `true` if another consumer has taken the place of this one.
    is_retired: AtomicBool,
    /// The start positions of partitions in which the group has no position, once they are
    /// assigned.
    begin: Mutex<Vec<(i32, i64)>>,
    /// The last positions of a subscription that ends, until they are committed.
    last: Mutex<Vec<(i32, Mark)>>,
    /// `true` while the broker has not answered a commit.
    committing: AtomicBool,
    /// `true` after a commit that failed, until one succeeds.
    failing: AtomicBool,
    /// `true` if an event occurred for this member since the last call of
    /// [`has_heard`](Self::has_heard).
    heard: AtomicBool,
    listener: Listener,
}

impl Member {
    pub(crate) fn new(
        assignment: &Arc<Assignment>,
        control: &Arc<Control>,
        queue: &Arc<Queue>,
        policy: Policy,
    ) -> Self {
        Self {
            assignment: Arc::clone(assignment),
            control: Arc::clone(control),
            queue: Arc::clone(queue),
            intake: Intake::default(),
            policy,
            is_retired: AtomicBool::default(),
            begin: Mutex::default(),
            last: Mutex::default(),
            committing: AtomicBool::default(),
            failing: AtomicBool::default(),
            heard: AtomicBool::default(),
            listener: Listener::default(),
        }
    }

    /// Sets the start positions of partitions in which the group has no position.
    pub(crate) fn begin_at(&self, positions: Vec<(i32, i64)>) {
        *self.begin.lock() = positions;
    }

    /// Hears no more of the assignment, which is another consumer's now. Returns the start
    /// positions that are left.
    pub(crate) fn retire(&self) -> Vec<(i32, i64)> {
        self.is_retired.store(true, Ordering::Relaxed);
        self.intake.clear();
        std::mem::take(&mut self.begin.lock())
    }

    /// Returns `true` if settled positions are committed.
    pub(crate) fn commits(&self) -> bool {
        self.policy.commits
    }

    /// Returns `true` if an event occurred since the last call. It tells if a poll returned no
    /// message because of the event or because there is none.
    pub(crate) fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed) && self.heard.swap(false, Ordering::Relaxed)
    }

    /// Returns `true` while the broker has not answered a commit.
    pub(crate) fn is_committing(&self) -> bool {
        self.committing.load(Ordering::Relaxed)
    }

    /// Notes that a commit is sent.
    pub(crate) fn begin_commit(&self) {
        self.committing.store(true, Ordering::Relaxed);
    }

    /// Notes the broker's answer to a commit, or that none was sent.
    pub(crate) fn end_commit(&self, result: KafkaResult<()>) {
        self.committing.store(false, Ordering::Relaxed);
        self.assignment.notes.end(|| result.clone().map_err(error::from_client));
        let Err(error) = result else { return self.failing.store(false, Ordering::Relaxed) };
        // Committed again at the next interval. A failure that remains at the end of the
        // subscription is reported then.
        self.assignment.repeat();
        if error::code_of(&error) == Some(Code::OffsetMetadataTooLarge) {
            self.assignment.limit_metadata();
        } else if !commit::is_lost(&error) {
            self.tell(error);
        }
    }

    /// Tells of a commit that failed, once until one succeeds: in the log, and as an error item,
    /// unless it passes by itself.
    fn tell(&self, error: KafkaError) {
        if self.failing.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(%error, "kafka: commits fail; a restart redelivers what is handled meanwhile");
        let error = error::from_client(error).with_context("request", "commit");
        if !error.is_retryable() {
            self.queue.push(vec![Err(error)]);
        }
    }

    /// Sets the last positions of a subscription that ends. If a partition is revoked before they
    /// are committed, its revocation commits them.
    pub(crate) fn leave_with(&self, last: Vec<(i32, Mark)>) {
        *self.last.lock() = last;
    }

    /// Returns the last positions that are not committed yet.
    pub(crate) fn left_with(&self) -> Vec<(i32, Mark)> {
        self.last.lock().clone()
    }

    fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    fn grant(&self, consumer: &BaseConsumer<Self>, assigned: &TopicPartitionList) {
        if self.control.is_ending() {
            // A client that is closing answers no more questions.
            return;
        }
        let elements = assigned.elements();
        let Some(topic) = elements.first().map(|first| first.topic()) else { return };
        let numbers: Vec<i32> = elements.iter().map(|partition| partition.partition()).collect();
        self.intake.open(topic, &numbers, &self.assignment.window);
        let begin: Vec<_> = self.begin.lock().extract_if(.., |(partition, _)| numbers.contains(partition)).collect();
        let asked = if self.policy.positions { numbers.clone() } else { begin.iter().map(|(of, _)| *of).collect() };
        if !asked.is_empty() {
            note("begin", start::position_assigned(consumer, topic, &asked, begin, BEGIN));
        }
        let mut resumed = commit::resumed(consumer, topic, &numbers, BEGIN).unwrap_or_else(|error| {
            tracing::debug!(%error, "kafka: the progress beyond the position is not known");
            Vec::new()
        });
        let open = resumed.iter().filter(|(_, offsets)| self.policy.commits && offsets.were_left_open());
        let open: Vec<i32> = open.map(|(number, _)| *number).collect();
        let ends = start::offsets(consumer, topic, &open, Offset::End, BEGIN).unwrap_or_default();
        for number in numbers {
            let known = resumed.iter().position(|(partition, _)| *partition == number);
            let offsets = known.map(|index| resumed.swap_remove(index).1).unwrap_or_default();
            if self.policy.commits {
                let end = ends.iter().find(|(partition, _)| *partition == number).map(|(_, end)| *end);
                self.assignment.grant_with_trials(number, offsets, end);
            } else {
                self.assignment.grant(number, offsets);
            }
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, revoked: &TopicPartitionList) {
        let elements = revoked.elements();
        let Some(topic) = elements.first().map(|first| first.topic()) else { return };
        let numbers: Vec<i32> = elements.iter().map(|partition| partition.partition()).collect();
        self.intake.close(&numbers);
        // If the assignment was lost, other members may already have these partitions, and may have
        // gone further.
        let lost = consumer.assignment_lost();
        if !lost {
            let partitions: Vec<_> = numbers.iter().filter_map(|number| self.assignment.get(*number)).collect();
            self.give_up(consumer, &partitions);
        }
        let is_behind = |number: &i32| self.assignment.get(*number).is_some_and(|partition| partition.is_behind());
        let were_behind = self.is_committing() || numbers.iter().any(is_behind);
        let mut settled = self.assignment.settled(&numbers);
        let mut marks: Vec<_> =
            numbers.iter().filter_map(|number| Some((*number, self.assignment.revoke(*number)?))).collect();
        let last: Vec<_> = self.last.lock().extract_if(.., |(number, _)| numbers.contains(number)).collect();
        settled.extend(last.iter().map(|(number, mark)| (*number, mark.position)));
        marks.extend(last);
        self.queue.purge();
        if !self.policy.commits || marks.is_empty() {
            return;
        }
        let result = if lost {
            Err(KafkaError::ConsumerCommit(Code::AssignmentLost))
        } else {
            commit::revoked(consumer, &self.assignment, topic, &marks)
        };
        let Err(error) = result else { return };
        // A topic that was deleted redelivers nothing.
        if error::code_of(&error).is_none_or(|code| error::from_code(code).kind() != ErrorKind::NotFound) {
            self.assignment.lose(settled);
        }
        if were_behind {
            tracing::warn!(%error, "kafka: acknowledgements of lost partitions are lost; they are redelivered");
        }
        if !commit::is_lost(&error) {
            self.tell(error);
        }
    }

    /// Stops handing out of partitions that are about to be revoked, and waits for deliveries in
    /// hand.
    ///
    /// It waits within the callback: librdkafka fetches from no partition until the revocation is
    /// done, so that there is nothing else to poll for. The session is kept alive meanwhile.
    fn give_up(&self, consumer: &BaseConsumer<Self>, partitions: &[Arc<Partition>]) {
        partitions.iter().for_each(|partition| partition.give_up());
        self.queue.purge();
        self.assignment.notes.refuse();
        let deadline = Instant::now() + self.policy.patience;
        let in_hand = || partitions.iter().any(|partition| partition.in_hand() > 0);
        while in_hand() && !self.control.is_ending() && !consumer.assignment_lost() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::info!("kafka: partitions are revoked with deliveries in hand, which another member receives");
                return;
            }
            self.assignment.window.sleep(left.min(WAIT));
        }
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.hear();
        self.listener.log(level, facility, text);
    }

    fn stats(&self, statistics: Statistics) {
        self.hear();
        self.listener.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.hear();
        self.listener.error(error, reason);
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.hear();
        match rebalance {
            _ if self.is_retired.load(Ordering::Relaxed) => {}
            Rebalance::Assign(assigned) => self.grant(consumer, assigned),
            Rebalance::Revoke(revoked) => self.revoke(consumer, revoked),
            Rebalance::Error(_) => {}
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        self.hear();
        if !self.is_retired.load(Ordering::Relaxed) {
            self.end_commit(result);
        }
    }
}
