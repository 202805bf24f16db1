//! The queues of the assigned partitions, from which messages are taken.
//!
//! Each partition has a queue in librdkafka, apart from that of events. Rebalances and answers are
//! therefore handled whether or not there is room for messages, and a partition from which none is
//! taken holds up no other. The messages that were fetched stay in its queue, and librdkafka
//! fetches no more while that is full. Pausing a partition instead would throw them away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::message::BorrowedMessage;

use super::assignment::Assignment;
use super::window::Window;

/// Time after its assignment for which a partition is expected to have messages.
const NEW: Duration = Duration::from_secs(1);

/// A message, or an error of its partition.
pub(crate) type Polled<'m> = KafkaResult<BorrowedMessage<'m>>;

/// The queues of the partitions that are assigned to one consumer.
pub(crate) struct Intake<C: ConsumerContext> {
    /// Weak, because the consumer owns its context, and so this.
    consumer: OnceLock<Weak<BaseConsumer<C>>>,
    inlets: Mutex<Vec<Inlet<C>>>,
}

impl<C: ConsumerContext> Default for Intake<C> {
    fn default() -> Self {
        Self { consumer: OnceLock::new(), inlets: Mutex::default() }
    }
}

/// The queue of one partition.
struct Inlet<C: ConsumerContext> {
    number: i32,
    queue: PartitionQueue<C>,
    /// `false` if the queue was empty and no message has come since.
    is_ready: Arc<AtomicBool>,
    opened: Instant,
}

impl<C: ConsumerContext> Intake<C> {
    /// Sets the consumer whose partitions these are.
    pub(crate) fn belong_to(&self, consumer: &Arc<BaseConsumer<C>>) {
        self.consumer.get_or_init(|| Arc::downgrade(consumer));
    }

    /// Opens the queues of partitions, before they are assigned: messages that were fetched earlier
    /// would be in the queue of events.
    pub(crate) fn open(&self, topic: &str, numbers: &[i32], window: &Arc<Window>) {
        let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) else { return };
        self.close(numbers);
        let opened = numbers.iter().filter_map(|number| {
            let mut queue = consumer.split_partition_queue(topic, *number)?;
            let is_ready = Arc::new(AtomicBool::new(true));
            let (flag, window) = (Arc::clone(&is_ready), Arc::clone(window));
            queue.set_nonempty_callback(move || {
                flag.store(true, Ordering::Release);
                window.wake();
            });
            Some(Inlet { number: *number, queue, is_ready, opened: Instant::now() })
        });
        let opened: Vec<_> = opened.collect();
        self.inlets.lock().extend(opened);
    }

    /// Closes the queues of partitions that are revoked.
    pub(crate) fn close(&self, numbers: &[i32]) {
        self.inlets.lock().retain(|inlet| !numbers.contains(&inlet.number));
    }

    /// Closes all queues, each of which holds the consumer.
    pub(crate) fn clear(&self) {
        self.inlets.lock().clear();
    }

    /// Takes at most `limit` messages, first from the partitions that hold the fewest places of the
    /// window.
    pub(crate) fn take(&self, limit: usize, assignment: &Assignment, mut each: impl FnMut(Polled<'_>)) {
        let inlets = self.inlets.lock();
        let mut left = limit;
        while left > 0
            && let Some((inlet, quota)) = next(&inlets, assignment)
        {
            left -= inlet.take(quota.min(left), &mut each);
        }
    }

    /// Returns `true` if messages wait in a queue.
    pub(crate) fn has_waiting(&self) -> bool {
        self.inlets.lock().iter().any(Inlet::is_ready)
    }

    /// Returns the partitions in whose queues messages wait.
    pub(crate) fn waiting(&self) -> Vec<i32> {
        self.inlets.lock().iter().filter(|inlet| inlet.is_ready()).map(|inlet| inlet.number).collect()
    }
}

/// Returns the queue from which to take next, with the number of messages.
fn next<'i, C: ConsumerContext>(inlets: &'i [Inlet<C>], assignment: &Assignment) -> Option<(&'i Inlet<C>, usize)> {
    let held = |inlet: &Inlet<C>| Some(assignment.get(inlet.number).filter(|partition| partition.is_wanted())?.held());
    let ready = inlets.iter().filter(|inlet| inlet.is_ready());
    let (held, inlet) = ready.filter_map(|inlet| Some((held(inlet)?, inlet))).min_by_key(|(held, _)| *held)?;
    let is_other = |other: &&Inlet<C>| other.number != inlet.number;
    let are_others_busy = || inlets.iter().filter(is_other).any(|other| other.is_busy(assignment));
    let quota = assignment.window.quota(held, inlets.len(), are_others_busy);
    (quota > 0).then_some((inlet, quota))
}

impl<C: ConsumerContext> Inlet<C> {
    /// Returns `true` if messages of the partition are settled, or are expected.
    fn is_busy(&self, assignment: &Assignment) -> bool {
        self.opened.elapsed() < NEW || assignment.get(self.number).is_some_and(|partition| partition.settles())
    }

    /// Returns `true` if messages wait.
    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    /// Takes at most `limit` messages, and returns their number.
    fn take(&self, limit: usize, each: &mut impl FnMut(Polled<'_>)) -> usize {
        for taken in 0..limit {
            // Before the look, so that a message after it is not missed.
            self.is_ready.store(false, Ordering::Release);
            let Some(polled) = self.queue.poll(Duration::ZERO) else { return taken };
            self.is_ready.store(true, Ordering::Release);
            each(polled);
        }
        limit
    }
}
