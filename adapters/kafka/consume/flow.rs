//! The partitions whose fetching is paused.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;

use super::assignment::Assignment;
use super::partitions::note;

/// The state of fetching: paused in all partitions, or in those that are ahead.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    is_held: AtomicBool,
    /// The partitions that librdkafka was told to pause. It remembers them when they are revoked
    /// and assigned again.
    paused: Mutex<BTreeSet<i32>>,
}

impl Flow {
    /// Returns `true` if fetching is paused in all partitions.
    pub(crate) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Pauses fetching in all partitions, also in those that are assigned later, or resumes it.
    pub(crate) fn hold(&self, held: bool, consumer: &BaseConsumer<impl ConsumerContext>, assignment: &Assignment) {
        if self.is_held.swap(held, Ordering::Relaxed) != held {
            self.apply(consumer, assignment);
        }
    }

    /// Pauses and resumes partitions so that those that are assigned now are in the state that they
    /// should be in. Called after each change of the assignment and of that state, and at
    /// intervals.
    ///
    /// Resuming a partition that is not paused would fetch messages twice, therefore only
    /// differences are passed on.
    pub(crate) fn apply(&self, consumer: &BaseConsumer<impl ConsumerContext>, assignment: &Assignment) {
        let Ok(assigned) = consumer.assignment() else { return };
        let mut paused = self.paused.lock();
        let (mut to_pause, mut to_resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        for partition in assigned.elements() {
            let number = partition.partition();
            let is_ahead = || assignment.get(number).is_some_and(|partition| partition.is_ahead());
            match (self.is_held() || is_ahead(), paused.contains(&number)) {
                (true, false) => drop(to_pause.add_partition(partition.topic(), number)),
                (false, true) => drop(to_resume.add_partition(partition.topic(), number)),
                _ => {}
            }
        }
        if changed("pause", &to_pause, |list| consumer.pause(list)) {
            paused.extend(to_pause.elements().iter().map(|partition| partition.partition()));
        }
        if changed("resume", &to_resume, |list| consumer.resume(list)) {
            to_resume.elements().iter().for_each(|partition| {
                paused.remove(&partition.partition());
            });
        }
    }

    /// Notes that librdkafka has fetched from a partition: it has forgotten that this is paused.
    pub(crate) fn saw(&self, partition: i32) {
        self.paused.lock().remove(&partition);
    }
}

/// Returns `true` if the change succeeded. Otherwise it is repeated at the next interval.
fn changed(what: &str, list: &TopicPartitionList, change: impl FnOnce(&TopicPartitionList) -> KafkaResult<()>) -> bool {
    if list.count() == 0 {
        return false;
    }
    let result = change(list);
    let is_done = result.is_ok();
    note(what, result);
    is_done
}
