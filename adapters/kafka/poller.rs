//! The thread of a subscription: it polls librdkafka without a pause, so that the consumer stays a member of its group, takes
//! messages while the window has room, and brings acknowledgements to the broker.

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
use tokio::sync::{mpsc, oneshot};

use super::assignment::Assignment;
use super::commit;
use super::delivery::Taken;
use super::error;
use super::member::{Member, add, note};
use super::window::Window;
use crate::address::{Guarantee, Subscription};
use crate::error::{Error, ErrorKind, Result};

/// A taken message, or trouble to report.
pub(super) type Item = Result<Taken>;

/// Where a batch is handed over.
pub(super) type Sender = mpsc::Sender<Vec<Item>>;

/// How long to wait for a message at a time. Messages and the end of the subscription end a wait.
const POLL: Duration = Duration::from_millis(100);
/// How long to wait for room in the window at a time.
const ROOM: Duration = Duration::from_millis(5);
/// How long the window may stay full before fetching is paused. Until then librdkafka is not polled, which it takes for minutes
/// and rebalancing has to wait for; pausing throws away what was fetched ahead.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait for room at a time while fetching is paused, in between polls.
const PAUSED: Duration = Duration::from_millis(50);
/// How often the positions to commit are handed to librdkafka.
const STORE: Duration = Duration::from_millis(100);
/// The most messages handed over at a time: enough that the cost of a wake-up is shared, few enough to work side by side.
const BATCH: usize = 128;
/// How long deliveries can be settled after the stream was dropped or the connection closed.
const GRACE: Duration = Duration::from_millis(100);

/// Ends a subscription and tells how it ended.
#[derive(Debug)]
pub(super) struct Control {
    ending: AtomicBool,
    window: Arc<Window>,
    /// Taken by who waits for the end.
    ended: Mutex<Option<oneshot::Receiver<Result<()>>>>,
}

impl Control {
    /// Has the subscription ended soon.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.window.wake();
    }

    /// What to wait for: the thread is done, and the acknowledgements are at the broker or not.
    pub(super) fn ended(&self) -> Option<oneshot::Receiver<Result<()>>> {
        self.ended.lock().take()
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}

/// The consumer and what its thread works on.
pub(super) struct Poller {
    consumer: BaseConsumer<Member>,
    assignment: Arc<Assignment>,
    control: Arc<Control>,
    topic: Arc<str>,
    /// Whether positions are committed at all.
    grouped: bool,
    at_most_once: bool,
    batch_limit: usize,
    limit: usize,
    full_since: Option<Instant>,
    stored: Instant,
    /// Room for the payloads and keys to come, so that not each is allocated here and freed elsewhere.
    bodies: BytesMut,
}

impl Poller {
    /// Starts the thread.
    pub(super) fn start(
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
        let limit = subscription.max_unsettled();
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
            // Nobody waits when the subscription was dropped.
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
        // The stream ends here, whatever the broker does.
        drop(sender);
        self.finish()
    }

    /// Takes what is there, at most `limit` messages; if there is nothing, waits for something to come.
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
                    // It may have been for an event that is not for the application, with messages behind it.
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
        // The channel has room for as many batches as the window for messages, and a few for trouble alone.
        if batch.iter().all(Result::is_err) && sender.capacity() <= self.limit {
            return;
        }
        if sender.try_send(batch).is_err() {
            self.control.end();
        }
    }

    /// At most once: what was taken is committed before it is handed out. Leaves in the batch what may be handed out.
    fn commit_ahead(&self, batch: &mut Vec<Item>) {
        loop {
            let positions = self.positions(commit::after(batch));
            if positions.count() == 0 {
                return;
            }
            match self.consumer.commit(&positions, CommitMode::Sync) {
                Ok(()) => return,
                // Not committed: another consumer gets it.
                Err(_) if self.control.is_ending() => return batch.clear(),
                Err(error) if commit::is_lost(&error) => {
                    // Lets the rebalance go on without taking more, and gives up what was revoked in it.
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
                    tracing::warn!(%error, "kafka: messages wait until it is committed that they are handed out");
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
        // Nothing is fetched while paused, so that this is rebalancing, or trouble.
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

    /// Hands librdkafka the positions to commit, from time to time.
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

    /// Commits what is settled, ends every assignment, and leaves the group.
    fn finish(self) -> Result<()> {
        self.settle_last();
        let positions = self.positions(self.assignment.revoke_all());
        let commits = self.grouped && !self.at_most_once && positions.count() > 0;
        let committed = if commits { commit::last(&self.consumer, positions) } else { Ok(()) };
        // Blocks while it leaves the group, and calls back: that is why it is done here.
        drop(self.consumer);
        committed
    }

    /// Who drops the stream once it got its last message is still at work on it.
    fn settle_last(&self) {
        let deadline = Instant::now() + GRACE;
        while !self.assignment.window.is_free() && Instant::now() < deadline {
            self.assignment.window.sleep(ROOM);
        }
    }
}

/// `None` when the partition was revoked meanwhile.
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

/// What the application should hear of; what librdkafka gets over by itself is only logged.
fn report(error: KafkaError) -> Option<Error> {
    match error::code_of(&error) {
        None | Some(Code::NoError | Code::PartitionEOF) => None,
        Some(code) if error::is_connection(code) => None,
        Some(_) => Some(error::from_client(error)),
    }
}
