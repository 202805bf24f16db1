//! The callbacks of librdkafka to a consumer, for partitions that are assigned and revoked. The
//! polling thread calls them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientContext, Statistics, TopicPartitionList};

use super::super::connection::log::Listener;
use super::assignment::Assignment;
use super::partitions::{add, note};
use super::start;

/// Maximum time that a rebalance spends on finding the start position. After that, it is the
/// earliest message.
const BEGIN: Duration = Duration::from_secs(5);

/// The consumer context that keeps the assignment up to date.
pub(crate) struct Member {
    assignment: Arc<Assignment>,
    /// `true` if positions are stored to be committed.
    stores: bool,
    /// The start positions of partitions in which the group has no position, once they are
    /// assigned.
    begin: Mutex<Vec<(i32, i64)>>,
    /// `true` if newly assigned partitions must not be fetched from.
    paused: AtomicBool,
    /// `true` if an event occurred for this member since the last call of
    /// [`has_heard`](Self::has_heard).
    heard: AtomicBool,
    listener: Listener,
}

impl Member {
    pub(crate) fn new(assignment: Arc<Assignment>, stores: bool) -> Self {
        let (begin, paused, heard) = (Mutex::default(), AtomicBool::default(), AtomicBool::default());
        Self { assignment, stores, begin, paused, heard, listener: Listener::default() }
    }

    /// Sets the start positions of partitions in which the group has no position.
    pub(crate) fn begin_at(&self, positions: Vec<(i32, i64)>) {
        *self.begin.lock() = positions;
    }

    /// Returns `true` if the poller has paused fetching.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Returns `true` if an event occurred since the last call. It tells if a poll returned no
    /// message because of the event or because there is none.
    pub(crate) fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed) && self.heard.swap(false, Ordering::Relaxed)
    }

    fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    fn grant(&self, consumer: &BaseConsumer<Self>, assigned: &TopicPartitionList) {
        let assigned = assigned.elements();
        assigned.iter().for_each(|partition| self.assignment.grant(partition.partition()));
        let here = |position: &mut (i32, i64)| assigned.iter().any(|found| found.partition() == position.0);
        let begin: Vec<_> = self.begin.lock().extract_if(.., here).collect();
        if let (Some(first), false) = (assigned.first(), begin.is_empty()) {
            note("begin", start::position_assigned(consumer, first.topic(), begin, BEGIN));
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, revoked: &TopicPartitionList) {
        // If the assignment was lost, other members may already have these partitions, and may have
        // gone further.
        let lost = consumer.assignment_lost();
        let mut positions = TopicPartitionList::new();
        for partition in revoked.elements() {
            let position = self.assignment.revoke(partition.partition());
            if let (Some(position), false) = (position, lost) {
                add(&mut positions, partition.topic(), partition.partition(), position);
            }
        }
        if self.stores && positions.count() > 0 {
            // Committed by librdkafka when it returns the partitions.
            note("store", consumer.store_offsets(&positions));
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
            Rebalance::Assign(assigned) => self.grant(consumer, assigned),
            Rebalance::Revoke(revoked) => self.revoke(consumer, revoked),
            Rebalance::Error(_) => {}
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let (Rebalance::Assign(assigned), true) = (rebalance, self.is_paused()) {
            note("pause", consumer.pause(assigned));
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        self.hear();
        // Committed again at the next interval. A failure that remains at the end of the
        // subscription is reported then.
        note("commit", result);
    }
}
