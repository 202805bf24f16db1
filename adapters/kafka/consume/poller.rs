//! The thread of a subscription. It handles the events of librdkafka without a pause, so that the
//! consumer stays a member of its group, takes messages while the window has room, and sends
//! acknowledgements to the broker.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rdkafka::Offset;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::sync::oneshot;

use super::super::connection::native;
use super::super::error;
use super::assignment::Assignment;
use super::commit;
use super::control::Control;
use super::delivery::{Item, Taken};
use super::opening::Opening;
use super::partitions::{list, note};
use super::queue::{Closing, Queue};
use super::recipe::{Client, Recipe};
use super::renewals::Renewals;
use super::watch::{self, Watch};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Guarantee, Subscription};

/// Maximum time of one wait for a message. A message and the end of the subscription end the wait.
const POLL: Duration = Duration::from_millis(100);
/// Maximum time of one wait for room in the window, and for a partition's part of it.
const ROOM: Duration = Duration::from_millis(5);
/// The same if nothing was taken for a while.
const SLOW: Duration = Duration::from_millis(50);
/// Time without a message after which waits are longer.
const BUSY: Duration = Duration::from_secs(1);
/// Maximum number of events that are handled at once.
const EVENTS: usize = 64;
/// Interval at which positions are looked at.
const SURVEY: Duration = Duration::from_millis(100);
/// Maximum number of messages handed over at once: enough to share the cost of a wake-up, and few
/// enough for the consumer to work in parallel.
const BATCH: usize = 128;
/// Time for which deliveries can still be settled after the stream was dropped or the connection
/// closed.
const GRACE: Duration = Duration::from_millis(100);
/// Maximum time of the question if lost positions are reached.
const LOST: Duration = Duration::from_secs(2);
/// Maximum time that the last commit of a subscription is repeated while the group rebalances.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// The consumer and the state of its thread.
pub(crate) struct Poller {
    consumer: Client,
    recipe: Recipe,
    watch: Watch,
    renewals: Renewals,
    assignment: Arc<Assignment>,
    control: Arc<Control>,
    queue: Arc<Queue>,
    topic: Arc<str>,
    /// The messages that are not handed over yet.
    opening: Opening,
    /// `true` if messages are committed before they are handed out.
    commits_ahead: bool,
    /// `true` if messages need no settlement.
    at_most_once: bool,
    batch_limit: usize,
    commit_interval: Duration,
    /// The time at which a message was taken last.
    took: Instant,
    committed: Instant,
    surveyed: Instant,
    /// Room for the next payloads and keys, so that they are not allocated one by one here and
    /// freed in another thread.
    bodies: BytesMut,
}

impl Poller {
    pub(crate) fn new(
        consumer: Client,
        recipe: Recipe,
        subscription: &Subscription,
        commit_interval: Duration,
    ) -> Self {
        let assignment = Arc::clone(&recipe.assignment);
        let at_most_once = subscription.guarantee() == Guarantee::AtMostOnce;
        let now = Instant::now();
        Self {
            consumer,
            batch_limit: (assignment.window.limit() / 2).clamp(1, BATCH),
            assignment,
            control: Arc::clone(&recipe.control),
            queue: Arc::clone(&recipe.queue),
            topic: Arc::clone(&recipe.topic),
            watch: Watch::new(),
            renewals: Renewals::default(),
            opening: Opening::default(),
            commits_ahead: at_most_once && recipe.is_grouped,
            at_most_once,
            commit_interval,
            took: now,
            committed: now,
            surveyed: now,
            bodies: BytesMut::new(),
            recipe,
        }
    }

    /// Starts the thread, which sends the result of the subscription at its end.
    pub(crate) fn start(self, answer: oneshot::Sender<Result<()>>) -> Result<()> {
        let run = move || {
            // No caller waits if the subscription was dropped.
            let _ = answer.send(self.run());
        };
        let started = thread::Builder::new().name("kafka-consumer".to_owned()).spawn(run);
        started.map(drop).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "no thread can be started for the kafka consumer").with_source(error)
        })
    }

    fn run(mut self) -> Result<()> {
        let closing = Closing(Arc::clone(&self.queue));
        self.assignment.window.attend();
        while !self.control.is_ending() {
            self.handle_events();
            match self.assignment.window.room() {
                // Takes no more messages, and stays a member of the group.
                _ if self.control.is_stopping() => {
                    self.watch.note();
                    self.assignment.window.sleep(POLL);
                }
                0 => {
                    self.watch.note();
                    self.assignment.window.wait(self.pace());
                }
                room => {
                    let batch = self.take(room.min(self.batch_limit));
                    self.hand_over(batch);
                }
            }
            self.look_after_positions();
            if self.opening.is_waiting() {
                self.hand_over(Vec::new());
            }
        }
        // The stream ends here, no matter what the broker does.
        drop(closing);
        self.finish()
    }

    /// Takes the available messages, at most `limit`. If there are none, waits for one.
    fn take(&mut self, limit: usize) -> Vec<Item> {
        let (mut batch, mut errors) = (Vec::new(), Vec::new());
        let (assignment, bodies, at_most_once) = (&self.assignment, &mut self.bodies, self.at_most_once);
        let mut has_taken = false;
        self.consumer.context().intake.take(limit, assignment, |polled| match polled {
            Ok(message) => {
                has_taken = true;
                if batch.is_empty() {
                    batch.reserve_exact(limit);
                }
                batch.extend(copy(assignment, at_most_once, bodies, message).map(Ok));
            }
            Err(error) => errors.push(error),
        });
        if has_taken {
            self.took = Instant::now();
            self.watch.note();
            self.renewals.succeed();
        } else if errors.is_empty() {
            let intake = &self.consumer.context().intake;
            let limit = if intake.has_waiting() { self.pace() } else { POLL };
            self.assignment.window.sleep(limit);
        }
        batch.extend(errors.into_iter().filter_map(|error| self.report(error)).map(Err));
        batch
    }

    /// Returns the maximum time of one wait for room.
    fn pace(&self) -> Duration {
        if self.took.elapsed() < BUSY { ROOM } else { SLOW }
    }

    fn hand_over(&mut self, mut batch: Vec<Item>) {
        if self.commits_ahead {
            self.commit_ahead(&mut batch);
        } else {
            batch = self.opening.pass(batch, &self.assignment.notes);
            // Their places in the window are free already.
            batch.retain(|item| !item.as_ref().is_ok_and(Taken::is_given_up));
        }
        self.queue.push(batch);
    }

    /// Commits the taken messages before they are handed out, for the guarantee at most once.
    /// Leaves in the batch those that may be handed out.
    fn commit_ahead(&self, batch: &mut Vec<Item>) {
        let mut failed = false;
        loop {
            commit::drop_revoked(batch, &self.assignment.window);
            let marks = commit::after(batch, self.assignment.metadata_limit());
            if marks.is_empty() {
                return;
            }
            match commit::now(&self.consumer, &self.assignment, &self.topic, marks) {
                Ok(()) => return,
                // Not committed: another consumer receives them.
                Err(_) if self.control.is_ending() => return batch.clear(),
                // Made anew, or ended: nothing else is taken meanwhile.
                Err(_) if self.consumer.client().fatal_error().is_some() => {
                    return batch.retain(|item| {
                        item.iter().for_each(|_| self.assignment.window.release());
                        item.is_err()
                    });
                }
                Err(error) => {
                    if !commit::is_lost(&error) && !std::mem::replace(&mut failed, true) {
                        tracing::warn!(%error, "kafka: the commit failed; messages wait until it succeeds");
                        self.queue.push(vec![Err(error::from_client(error))]);
                    }
                    // Lets a rebalance continue without taking more messages.
                    self.assignment.window.sleep(SLOW);
                    self.handle_events();
                }
            }
        }
    }

    /// Lets the client handle rebalances, answers and errors.
    fn handle_events(&self) {
        for _ in 0..EVENTS {
            match self.consumer.poll(Duration::ZERO) {
                Some(Err(error)) => {
                    let error = self.report(error);
                    self.queue.push(error.into_iter().map(Err).collect());
                }
                // Of a partition that could not be given a queue.
                Some(Ok(message)) => self.put_back(&message),
                // The poll may have handled an event, with others behind it.
                None if self.consumer.context().has_heard() => {}
                None => return,
            }
        }
    }

    /// Lets a message be fetched again: passing it over would lose it.
    fn put_back(&self, message: &BorrowedMessage<'_>) {
        let offset = Offset::Offset(message.offset());
        let result = self.consumer.seek(message.topic(), message.partition(), offset, Duration::ZERO);
        note("seek", result);
    }

    /// Returns the errors that the application should see. Errors from which librdkafka recovers by
    /// itself are only logged; after those from which it does not, the consumer is made anew.
    fn report(&self, error: KafkaError) -> Option<Error> {
        match error::code_of(&error) {
            None | Some(Code::NoError | Code::PartitionEOF) => None,
            Some(code) if error::is_connection(code) => None,
            Some(_) if self.consumer.client().fatal_error().is_some() => None,
            Some(_) => Some(error::from_client(error)),
        }
    }

    /// Commits positions at their interval, and looks after the client.
    fn look_after_positions(&mut self) {
        if self.assignment.notes.is_due() && !self.consumer.context().is_committing() {
            self.commit_moved();
        }
        if self.surveyed.elapsed() < SURVEY {
            return;
        }
        self.surveyed = Instant::now();
        self.look_after_client();
        if self.consumer.context().commits() {
            self.assignment.survey();
            if self.committed.elapsed() >= self.commit_interval {
                self.commit_moved();
            }
        }
    }

    /// Notices a client that has given up, and one to which nothing comes.
    fn look_after_client(&mut self) {
        if let Some((code, reason)) = self.consumer.client().fatal_error() {
            let error = error::from_code(code).with_context("reason", reason);
            match code {
                Code::FencedInstanceId => self.end_with(fenced(error)),
                _ => self.renew(error),
            }
        } else if self.watch.is_due() {
            if !self.recipe.is_grouped {
                self.recipe.add_partitions(&self.consumer, watch::ASK);
            }
            if self.watch.look(&self.consumer, &self.recipe, &self.consumer.context().intake.waiting()) {
                let message = "the subscription was silent while messages waited; its consumer is made anew";
                self.renew(Error::new(ErrorKind::Unavailable, message));
            }
        }
    }

    /// Ends the subscription, because it cannot go on.
    fn end_with(&self, error: Error) {
        tracing::error!(%error, "kafka: a subscription ends");
        self.abandon();
        self.queue.end_with(error);
        self.control.end();
    }

    /// Makes the consumer anew.
    fn renew(&mut self, why: Error) {
        if !self.renewals.try_begin() {
            return;
        }
        match self.recipe.make() {
            Ok(consumer) => {
                consumer.context().begin_at(self.consumer.context().retire());
                self.abandon();
                let begun = self.recipe.begin(&consumer);
                self.renewals.count(std::mem::replace(&mut self.consumer, consumer));
                tracing::warn!(error = %why, "kafka: the consumer of a subscription is made anew");
                let why = why.with_context("count", self.renewals.count);
                self.queue.push([why].into_iter().chain(begun.err()).map(Err).collect());
            }
            Err(error) => self.queue.push(vec![Err(error)]),
        }
    }

    /// Gives up what is in hand of a group: it is redelivered. A reader keeps it, and its place.
    fn abandon(&self) {
        if self.recipe.is_grouped {
            let numbers: Vec<i32> = self.assignment.each_next().into_iter().map(|(number, _)| number).collect();
            self.assignment.lose(self.assignment.settled(&numbers));
            self.assignment.revoke_all(false);
            self.assignment.notes.refuse();
            self.queue.purge();
        }
    }

    fn commit_moved(&mut self) {
        let context = self.consumer.context();
        if context.is_committing() {
            return;
        }
        self.committed = Instant::now();
        self.assignment.notes.begin();
        let moved = self.assignment.moved();
        if moved.is_empty() {
            // The partition of a trial is revoked, or its note and its withdrawal have met.
            self.assignment.notes.end(|| Ok(()));
            return;
        }
        context.begin_commit();
        if let Err(error) = native::commit_later(&self.consumer, &list(&self.topic, &moved)) {
            context.end_commit(Err(error));
        }
    }

    /// Commits the settled positions, ends every assignment, and leaves the group.
    fn finish(self) -> Result<()> {
        self.settle_last();
        let context = self.consumer.context();
        let last = self.assignment.revoke_all(!context.is_committing());
        if context.commits() {
            context.leave_with(last);
        }
        let committed = self.commit_last().and_then(|()| self.look_for_lost());
        self.assignment.notes.begin();
        self.assignment.notes.end(|| Ok(()));
        // Blocks while it leaves the group, and calls back; therefore it is done here.
        drop(self.consumer);
        committed
    }

    /// Commits the last positions. Those of partitions that are revoked meanwhile are committed by
    /// their revocation.
    fn commit_last(&self) -> Result<()> {
        let deadline = Instant::now() + LAST_COMMIT;
        let context = self.consumer.context();
        loop {
            let left = context.left_with();
            if left.is_empty() {
                return Ok(());
            }
            match commit::now(&self.consumer, &self.assignment, &self.topic, left) {
                Ok(()) => {
                    context.leave_with(Vec::new());
                    return Ok(());
                }
                // Lets the rebalance continue.
                Err(error) if commit::is_lost(&error) && Instant::now() < deadline => {
                    drop(self.consumer.poll(POLL));
                }
                Err(error) => return Err(error::from_client(error)),
            }
        }
    }

    /// Returns an error if the group has not reached positions that could not be committed when
    /// their partitions were lost: neither by this member, to which their messages were
    /// redelivered, nor by another one.
    fn look_for_lost(&self) -> Result<()> {
        let lost = self.assignment.lost();
        if lost.is_empty() {
            return Ok(());
        }
        let numbers: Vec<i32> = lost.iter().map(|(number, _)| *number).collect();
        let message = "partitions were lost before their acknowledgements reached the broker; \
                       their messages are redelivered";
        let error = Error::new(ErrorKind::SettlementLost, message);
        let reached = match commit::resumed(&self.consumer, &self.topic, &numbers, LOST) {
            Ok(reached) => reached,
            Err(unknown) => return Err(error.with_source(unknown)),
        };
        let is_reached = |number, position| reached.iter().any(|(of, at)| *of == number && at.begin() >= position);
        match lost.iter().filter(|(number, position)| !is_reached(*number, *position)).count() {
            0 => Ok(()),
            count => Err(error.with_context("partitions", count)),
        }
    }

    /// Waits for deliveries in hand for a short time: a caller that drops the stream after its last
    /// message may still be processing it.
    fn settle_last(&self) {
        let deadline = Instant::now() + GRACE;
        while !self.assignment.is_idle() && Instant::now() < deadline {
            self.assignment.window.sleep(ROOM);
        }
    }
}

/// Copies the message. Returns `None` if the partition was revoked meanwhile, or the message was
/// settled before.
fn copy(assignment: &Assignment, settled: bool, bodies: &mut BytesMut, message: BorrowedMessage<'_>) -> Option<Taken> {
    let partition = assignment.partition(message.partition(), message.offset())?;
    Taken::copy(message, partition, settled, bodies)
}

/// Returns the error of a member whose instance id another one has.
fn fenced(error: Error) -> Error {
    let message = "another member of the group began with the same group.instance.id, and has taken its place; give \
                   each a group.instance.id of its own";
    Error::new(ErrorKind::Conflict, message).with_source(error)
}
