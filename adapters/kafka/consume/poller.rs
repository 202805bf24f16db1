//! The thread of a subscription. It polls librdkafka without a pause, so that the consumer stays a
//! member of its group, takes messages while the window has room, and sends acknowledgements to the
//! broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::sync::oneshot;

use super::super::error;
use super::assignment::Assignment;
use super::commit;
use super::delivery::{Item, Sender, Taken};
use super::member::Member;
use super::partitions::{add, note};
use super::window::Window;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Guarantee, Subscription};

/// Maximum time of one wait for a message. A message and the end of the subscription end the wait.
const POLL: Duration = Duration::from_millis(100);
/// Maximum time of one wait for room in the window.
const ROOM: Duration = Duration::from_millis(5);
/// Time that the window may stay full before fetching is paused. Until then librdkafka is not
/// polled: it tolerates this for minutes, and a rebalance has to wait. Pausing discards the
/// messages that were fetched ahead.
const PATIENCE: Duration = Duration::from_secs(1);
/// Maximum time of one wait for room while fetching is paused, between polls.
const PAUSED: Duration = Duration::from_millis(50);
/// Interval at which the positions to commit are passed to librdkafka.
const STORE: Duration = Duration::from_millis(100);
/// Maximum number of messages handed over at once: enough to share the cost of a wake-up, and few
/// enough for the consumer to work in parallel.
const BATCH: usize = 128;
/// Time for which deliveries can still be settled after the stream was dropped or the connection
/// closed.
const GRACE: Duration = Duration::from_millis(100);

/// Ends a subscription and returns its result.
#[derive(Debug)]
pub(crate) struct Control {
    ending: AtomicBool,
    window: Arc<Window>,
    /// Taken by the caller that waits for the end.
    ended: Mutex<Option<oneshot::Receiver<Result<()>>>>,
}

impl Control {
    /// Tells the subscription to end.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.window.wake();
    }

    /// Returns the receiver of the result: the thread has ended, and the acknowledgements reached
    /// the broker or failed to.
    pub(crate) fn ended(&self) -> Option<oneshot::Receiver<Result<()>>> {
        self.ended.lock().take()
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}

/// The consumer and the state of its thread.
pub(crate) struct Poller {
    consumer: BaseConsumer<Member>,
    assignment: Arc<Assignment>,
    control: Arc<Control>,
    topic: Arc<str>,
    /// `true` if positions are committed at all.
    grouped: bool,
    at_most_once: bool,
    batch_limit: usize,
    limit: usize,
    full_since: Option<Instant>,
    stored: Instant,
    /// Room for the next payloads and keys, so that they are not allocated one by one here and
    /// freed in another thread.
    bodies: BytesMut,
}

impl Poller {
    /// Starts the thread.
    pub(crate) fn start(
        mut consumer: BaseConsumer<Member>,
        assignment: Arc<Assignment>,
        sender: Sender,
        subscription: &Subscription,
    ) -> Result<Arc<Control>> {
        let (answer, ended) = oneshot::channel();
        let control = Arc::new(Control {
            ending: AtomicBool::new(false),
            window: Arc::clone(&assignment.window),
            ended: Mutex::new(Some(ended)),
        });
        let window = Arc::clone(&assignment.window);
        consumer.set_nonempty_callback(move || window.wake());
        let limit = subscription.prefetch_limit();
        let poller = Self {
            consumer,
            assignment,
            control: Arc::clone(&control),
            topic: subscription.topic().into(),
            grouped: subscription.group_name().is_some(),
            at_most_once: subscription.guarantee() == Guarantee::AtMostOnce,
            batch_limit: (limit / 2).clamp(1, BATCH),
            limit,
            full_since: None,
            stored: Instant::now(),
            bodies: BytesMut::new(),
        };
        let run = move || {
            // No caller waits if the subscription was dropped.
            let _ = answer.send(poller.run(sender));
        };
        thread::Builder::new().name("kafka-consumer".to_owned()).spawn(run).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "no thread can be started for the kafka consumer").with_source(error)
        })?;
        Ok(control)
    }

    fn run(mut self, sender: Sender) -> Result<()> {
        while !self.control.is_ending() {
            match self.assignment.window.room() {
                0 => self.wait_for_room(&sender),
                room => {
                    self.resume();
                    let batch = self.take(room.min(self.batch_limit));
                    self.hand_over(batch, &sender);
                }
            }
            self.store_positions();
        }
        // The stream ends here, no matter what the broker does.
        drop(sender);
        self.finish()
    }

    /// Takes the available messages, at most `limit`. If there are none, waits for one.
    fn take(&mut self, limit: usize) -> Vec<Item> {
        let mut batch = Vec::new();
        while batch.len() < limit {
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    if batch.is_empty() {
                        batch.reserve_exact(limit);
                    }
                    batch.extend(copy(&self.assignment, self.at_most_once, &mut self.bodies, message).map(Ok));
                }
                Some(Err(error)) => batch.extend(report(error).map(Err)),
                None => {
                    // The poll may have handled an event that is not for the application, with
                    // messages behind it.
                    if !self.consumer.context().has_heard() && batch.is_empty() {
                        self.assignment.window.sleep(POLL);
                    }
                    break;
                }
            }
        }
        batch
    }

    fn hand_over(&self, mut batch: Vec<Item>, sender: &Sender) {
        if self.at_most_once && self.grouped {
            self.commit_ahead(&mut batch);
        }
        if batch.is_empty() {
            if sender.is_closed() {
                self.control.end();
            }
            return;
        }
        // The channel has room for as many batches as the window has for messages, and for a few
        // batches of errors alone.
        if batch.iter().all(Result::is_err) && sender.capacity() <= self.limit {
            return;
        }
        if sender.try_send(batch).is_err() {
            self.control.end();
        }
    }

    /// Commits the taken messages before they are handed out, for the guarantee at most once.
    /// Leaves in the batch those that may be handed out.
    fn commit_ahead(&self, batch: &mut Vec<Item>) {
        loop {
            let positions = self.positions(commit::after(batch));
            if positions.count() == 0 {
                return;
            }
            match self.consumer.commit(&positions, CommitMode::Sync) {
                Ok(()) => return,
                // Not committed: another consumer receives them.
                Err(_) if self.control.is_ending() => return batch.clear(),
                Err(error) if commit::is_lost(&error) => {
                    // Lets the rebalance continue without taking more messages, and drops those
                    // whose partitions were revoked in it.
                    self.pause();
                    drop(self.consumer.poll(PAUSED));
                    batch.retain(|item| {
                        let revoked = item.as_ref().is_ok_and(|taken| taken.partition.is_ended());
                        if revoked {
                            self.assignment.window.release();
                        }
                        !revoked
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "kafka: the commit failed; messages wait until it succeeds");
                    thread::sleep(POLL);
                }
            }
        }
    }

    fn wait_for_room(&mut self, sender: &Sender) {
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if !self.consumer.context().is_paused() {
            self.assignment.window.wait(ROOM);
            if since.elapsed() > PATIENCE && self.assignment.window.room() == 0 {
                self.pause();
            }
            return;
        }
        self.assignment.window.wait(PAUSED);
        // No message is fetched while paused, so the poll handles rebalancing or returns an error.
        if let Some(Err(error)) = self.consumer.poll(Duration::ZERO) {
            let report = report(error).into_iter().map(Err).collect();
            self.hand_over(report, sender);
        }
    }

    fn pause(&self) {
        if !self.consumer.context().is_paused() {
            self.consumer.context().set_paused(true);
            note("pause", self.consumer.assignment().and_then(|all| self.consumer.pause(&all)));
        }
    }

    fn resume(&mut self) {
        self.full_since = None;
        if self.consumer.context().is_paused() {
            self.consumer.context().set_paused(false);
            note("resume", self.consumer.assignment().and_then(|all| self.consumer.resume(&all)));
        }
    }

    /// Passes the positions to commit to librdkafka, at intervals.
    fn store_positions(&mut self) {
        if self.grouped && !self.at_most_once && self.stored.elapsed() >= STORE {
            self.stored = Instant::now();
            let moved = self.assignment.moved();
            if !moved.is_empty() {
                note("store", self.consumer.store_offsets(&self.positions(moved)));
            }
        }
    }

    fn positions(&self, moved: Vec<(i32, i64)>) -> TopicPartitionList {
        let mut positions = TopicPartitionList::with_capacity(moved.len());
        moved.into_iter().for_each(|(partition, position)| add(&mut positions, &self.topic, partition, position));
        positions
    }

    /// Commits the settled positions, ends every assignment, and leaves the group.
    fn finish(self) -> Result<()> {
        self.settle_last();
        let positions = self.positions(self.assignment.revoke_all());
        let commits = self.grouped && !self.at_most_once && positions.count() > 0;
        let committed = if commits { commit::last(&self.consumer, positions) } else { Ok(()) };
        // Blocks while it leaves the group, and calls back; therefore it is done here.
        drop(self.consumer);
        committed
    }

    /// Waits for unsettled deliveries for a short time: a caller that drops the stream after its
    /// last message may still be processing it.
    fn settle_last(&self) {
        let deadline = Instant::now() + GRACE;
        while !self.assignment.window.is_free() && Instant::now() < deadline {
            self.assignment.window.sleep(ROOM);
        }
    }
}

/// Copies the message. Returns `None` if the partition was revoked meanwhile.
fn copy(assignment: &Assignment, settled: bool, bodies: &mut BytesMut, message: BorrowedMessage<'_>) -> Option<Taken> {
    let offset = message.offset();
    let partition = assignment.partition(message.partition(), offset)?;
    if settled {
        partition.pass(offset);
    } else {
        partition.take(offset);
    }
    Some(Taken::copy(message, partition, bodies))
}

/// Returns the errors that the application should see. Errors from which librdkafka recovers by
/// itself are only logged.
fn report(error: KafkaError) -> Option<Error> {
    match error::code_of(&error) {
        None | Some(Code::NoError | Code::PartitionEOF) => None,
        Some(code) if error::is_connection(code) => None,
        Some(_) => Some(error::from_client(error)),
    }
}
