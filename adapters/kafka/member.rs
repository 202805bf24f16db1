//! What a consumer hears from librdkafka: partitions coming and going. Called by the thread that polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::assignment::Assignment;
use super::log::Listener;
use super::start;

/// How long rebalancing may take to find out where to begin; after that it is at the earliest message.
const BEGIN: Duration = Duration::from_secs(5);

/// Keeps the assignment up to date.
pub(super) struct Member {
    assignment: Arc<Assignment>,
    /// Whether positions are stored to be committed.
    stores: bool,
    /// Where to begin with partitions in which the group has no position, once they are assigned.
    begin: Mutex<Vec<(i32, i64)>>,
    /// Whether partitions that come now must not be fetched from.
    paused: AtomicBool,
    /// Whether there was an event for this member since [`has_heard`](Self::has_heard) was last asked.
    heard: AtomicBool,
    listener: Listener,
}

impl Member {
    pub(super) fn new(assignment: Arc<Assignment>, stores: bool) -> Self {
        let (begin, paused, heard) = (Mutex::default(), AtomicBool::default(), AtomicBool::default());
        Self { assignment, stores, begin, paused, heard, listener: Listener::default() }
    }

    /// Says where to begin with partitions in which the group has no position.
    pub(super) fn begin_at(&self, positions: Vec<(i32, i64)>) {
        *self.begin.lock() = positions;
    }

    /// Whether the poller has paused fetching.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Whether an event came since this was last asked. It tells why a poll gave no message: for the event, or for want of messages.
    pub(super) fn has_heard(&self) -> bool {
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
        // Then others may have been assigned these partitions already, and gone further.
        let lost = consumer.assignment_lost();
        let mut positions = TopicPartitionList::new();
        for partition in revoked.elements() {
            let position = self.assignment.revoke(partition.partition());
            if let (Some(position), false) = (position, lost) {
                add(&mut positions, partition.topic(), partition.partition(), position);
            }
        }
        if self.stores && positions.count() > 0 {
            // Committed by librdkafka as it gives the partitions back.
            note("store", consumer.store_offsets(&positions));
        }
    }
}

/// Adds a position; one that does not fit is left out, which only means that messages come again.
pub(super) fn add(positions: &mut TopicPartitionList, topic: &str, partition: i32, position: i64) {
    note("position", positions.add_partition_offset(topic, partition, Offset::Offset(position)));
}

/// Logs the failure of a call that need not succeed.
pub(super) fn note(what: &str, result: KafkaResult<()>) {
    if let Err(error) = result {
        tracing::debug!(what, %error, "kafka");
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
        // Committed again with the next interval; what is not by the end of the subscription is reported then.
        note("commit", result);
    }
}
