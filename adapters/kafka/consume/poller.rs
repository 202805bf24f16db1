//! The thread of a subscription. It polls librdkafka without a pause, so that the consumer stays a
//! member of its group, takes messages while the window has room, and sends acknowledgements to the
//! broker.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::sync::oneshot;

use super::super::connection::native;
use super::super::error;
use super::assignment::Assignment;
use super::commit;
use super::control::Control;
use super::delivery::{Item, Taken};
use super::member::Member;
use super::opening::Opening;
use super::partitions::{list, note};
use super::queue::{Closing, Queue};
use super::recipe::Recipe;
use super::renewals::Renewals;
use super::watch::{self, Watch};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Guarantee, Subscription};

/// Maximum time of one wait for a message. A message and the end of the subscription end the wait.
const POLL: Duration = Duration::from_millis(100);
/// Maximum time of one wait for room in the window.
const ROOM: Duration = Duration::from_millis(5);
/// Time that the window may stay full before fetching is paused. Until then librdkafka is not
/// polled: it tolerates this for minutes, and a rebalance has to wait. Pausing discards the
/// messages that were fetched ahead, up to 16 MiB. Therefore it doubles each time, up to the time
/// for which a rebalance waits for deliveries in hand anyway.
const PATIENCE: Duration = Duration::from_secs(1);
/// Maximum time of one wait for room while fetching is paused, between polls.
const PAUSED: Duration = Duration::from_millis(50);
/// Interval at which positions are looked at.
const SURVEY: Duration = Duration::from_millis(100);
/// Interval at which the state of fetching is set again, in case that a call of the client failed.
const FLOW: Duration = Duration::from_secs(1);
/// Maximum number of messages handed over at once: enough to share the cost of a wake-up, and few
/// enough for the consumer to work in parallel.
const BATCH: usize = 128;
/// Time for which deliveries can still be settled after the stream was dropped or the connection
/// closed.
const GRACE: Duration = Duration::from_millis(100);
/// Maximum time that the last commit of a subscription is repeated while the group rebalances.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// The consumer and the state of its thread.
pub(crate) struct Poller {
    consumer: BaseConsumer<Member>,
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
    full_since: Option<Instant>,
    /// Time that the window may stay full before fetching is paused.
    patience: Duration,
    committed: Instant,
    surveyed: Instant,
    flowed: Instant,
    /// Room for the next payloads and keys, so that they are not allocated one by one here and
    /// freed in another thread.
    bodies: BytesMut,
}

impl Poller {
    pub(crate) fn new(
        consumer: BaseConsumer<Member>,
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
            patience: PATIENCE,
            watch: Watch::new(),
            renewals: Renewals::default(),
            opening: Opening::default(),
            commits_ahead: at_most_once && recipe.is_grouped,
            at_most_once,
            commit_interval,
            full_since: None,
            committed: now,
            surveyed: now,
            flowed: now,
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
            match self.assignment.window.room() {
                _ if self.control.is_stopping() => self.idle(),
                0 => {
                    self.watch.note();
                    self.wait_for_room();
                }
                room => {
                    self.full_since = None;
                    self.hold(false);
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
        let mut batch = Vec::new();
        while batch.len() < limit {
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    self.watch.note();
                    self.renewals.succeed();
                    if batch.is_empty() {
                        batch.reserve_exact(limit);
                    }
                    batch.extend(copy(&self.assignment, self.at_most_once, &mut self.bodies, message).map(Ok));
                }
                Some(Err(error)) => batch.extend(self.report(error).map(Err)),
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
                    self.hold(true);
                    self.assignment.window.sleep(PAUSED);
                    self.poll_paused();
                }
            }
        }
    }

    fn wait_for_room(&mut self) {
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if !self.consumer.context().flow.is_held() {
            self.assignment.window.wait(ROOM);
            // Answers to commits come with polls.
            let is_urgent = self.assignment.notes.is_waited_for();
            let is_long = since.elapsed() > self.patience;
            if (is_urgent || is_long) && self.assignment.window.room() == 0 {
                self.hold(true);
                if is_long {
                    self.patience = (2 * self.patience).min(self.recipe.policy.patience.max(PATIENCE));
                }
            }
            return;
        }
        self.assignment.window.wait(PAUSED);
        self.poll_paused();
    }

    /// Takes no more messages, and stays a member of the group.
    fn idle(&mut self) {
        self.watch.note();
        self.hold(true);
        self.assignment.window.sleep(POLL);
        self.poll_paused();
    }

    /// Lets the client handle its events while fetching is paused.
    fn poll_paused(&self) {
        match self.consumer.poll(Duration::ZERO) {
            Some(Err(error)) => {
                let error = self.report(error);
                self.queue.push(error.into_iter().map(Err).collect());
            }
            // Not paused after all. The message is fetched again when it is resumed; passing it
            // over would lose it.
            Some(Ok(message)) => self.put_back(&message),
            None => {}
        }
    }

    fn put_back(&self, message: &BorrowedMessage<'_>) {
        let context = self.consumer.context();
        context.flow.saw(message.partition());
        context.flow.apply(&self.consumer, &self.assignment);
        let offset = Offset::Offset(message.offset());
        let result = self.consumer.seek(message.topic(), message.partition(), offset, Duration::ZERO);
        note("seek", result);
    }

    fn hold(&self, held: bool) {
        self.consumer.context().flow.hold(held, &self.consumer, &self.assignment);
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

    /// Commits positions at their interval, keeps the state of fetching, and looks after the
    /// client.
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
            let changed = self.assignment.survey();
            if self.committed.elapsed() >= self.commit_interval {
                self.commit_moved();
            }
            if changed {
                self.flowed = Instant::now() - FLOW;
            }
        }
        if self.flowed.elapsed() >= FLOW {
            self.flowed = Instant::now();
            self.consumer.context().flow.apply(&self.consumer, &self.assignment);
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
            if self.watch.look(&self.consumer, &self.recipe) {
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
            if self.assignment.is_behind() {
                self.consumer.context().lose();
            }
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
        let committed = self.commit_last();
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
            let left = context.left_with()?;
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
