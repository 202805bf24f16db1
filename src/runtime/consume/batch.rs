//! Batches of messages: one handler call for many, and an outcome for each.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, pending};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, join_all, select};
use tokio::time::{timeout, timeout_at};

use super::report::Report;
use super::retry::Retry;
use super::settings::{Crowded, Settings, Unburied};
use super::work::discard;
use crate::broker::{Concluded, Deliveries, Delivery, Settlement, TracedBroker, contained, due_after};
use crate::error::Result;
use crate::message::{HandlerError, Received, Subscription};

/// The default of [`ConsumeBatch::size`].
pub const DEFAULT_BATCH_SIZE: usize = 100;
/// The default of [`ConsumeBatch::linger`].
pub const DEFAULT_LINGER: Duration = Duration::from_millis(50);

/// A message of a batch that was not handled.
///
/// ```
/// use traced_broker::HandlerError;
/// use traced_broker::consume::Failed;
///
/// // The third message of the batch goes to the dead-letter topic.
/// let failed = Failed { index: 2, error: HandlerError::reject("an empty row") };
/// assert_eq!(failed.error.to_string(), "an empty row");
/// ```
#[derive(Debug)]
pub struct Failed {
    /// The index of the message in the batch, from 0.
    pub index: usize,
    /// The error, with the verdict on the message.
    pub error: HandlerError,
}

/// The builder of a consumer of batches; it does nothing until [`run`](Self::run) or
/// [`run_until`](Self::run_until).
///
/// The handler gets 1 to [`size`](Self::size) messages in the order in which they arrived, and
/// returns those that [failed](Failed); the others are acknowledged. An error fails all of them.
/// Each message is settled by its own outcome; retried messages are redelivered in a later batch.
/// Batches are processed one at a time.
///
/// A batch has one `process` span, in its own trace, which links the creation context of every
/// message.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::consume::Failed;
/// use traced_broker::{HandlerError, Message, Received, Subscription};
/// use traced_broker::{TracedBroker, TracedBrokerExt, connect};
///
/// async fn store(rows: Vec<Received>) -> Result<Vec<Failed>, HandlerError> {
///     let empty = rows.iter().enumerate().filter(|(_, row)| row.payload().is_empty());
///     let error = || HandlerError::reject("an empty row");
///     Ok(empty.map(|(index, _)| Failed { index, error: error() }).collect())
/// }
///
/// let broker = connect("memory://").await?;
/// let loader = Subscription::new("rows").group("loader").dead_letter("rows.dead");
/// let rows = ["1", "", "3"].map(Message::new);
/// broker.publish_batch("rows", rows.into()).await;
/// let shutdown = tokio::time::sleep(Duration::from_millis(200));
/// let loading = broker.consume_batch(loader, store).size(500).linger(Duration::from_millis(10));
/// let report = loading.run_until(shutdown).await?;
/// assert_eq!((report.handled, report.rejected), (2, 1));
/// # Ok(()) }
/// ```
#[must_use = "a consumer does nothing until it is run"]
pub struct ConsumeBatch<'a, B: ?Sized, H> {
    broker: &'a B,
    subscription: Subscription,
    handler: H,
    linger: Duration,
    settings: Settings,
}

impl<'a, B: TracedBroker + ?Sized, H> ConsumeBatch<'a, B, H> {
    pub(crate) fn new(broker: &'a B, subscription: Subscription, handler: H) -> Self {
        Self {
            broker,
            subscription,
            handler,
            linger: DEFAULT_LINGER,
            settings: Settings { size: DEFAULT_BATCH_SIZE, ..Settings::default() },
        }
    }

    /// Sets the maximum number of messages in a batch, 1 to 65,535. Default 100.
    ///
    /// A lower prefetch of the subscription is raised to this number.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::consume::Failed;
    /// use traced_broker::{ErrorKind, HandlerError, Received, Subscription};
    /// use traced_broker::{TracedBrokerExt, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let store = async |_rows: Vec<Received>| Ok::<Vec<Failed>, HandlerError>(Vec::new());
    /// let rows = Subscription::new("rows").group("loader");
    /// let error = broker.consume_batch(rows, store).size(0).run().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    /// # Ok(()) }
    /// ```
    pub fn size(mut self, messages: usize) -> Self {
        self.settings.size = messages;
        self
    }

    /// Sets the maximum time that a batch waits for more messages after its first. Default 50 ms.
    pub fn linger(mut self, time: Duration) -> Self {
        self.linger = time;
        self
    }

    /// Sets the maximum duration of one handler call. A handler that takes longer is cancelled, and
    /// all of the batch counts as failed. Default: no limit.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.settings.time_limit = Some(limit);
        self
    }

    /// Sets the policy for messages that failed. Default: [`Retry::default`].
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = retry;
        self
    }

    /// Sets the topic to which rejected messages are copied; the same as
    /// [`Subscription::dead_letter`].
    pub fn dead_letter(mut self, topic: impl AsRef<str>) -> Self {
        self.subscription = self.subscription.dead_letter(topic);
        self
    }

    /// Sets the maximum time for the current batch to finish after the consumer is told to stop.
    /// Default 15 s.
    pub fn drain_time(mut self, time: Duration) -> Self {
        self.settings.drain = time;
        self
    }

    /// Sets the treatment of a message whose dead letter the broker refuses for good. Default:
    /// [`Unburied::Stop`].
    pub fn when_unburied(mut self, unburied: Unburied) -> Self {
        self.settings.unburied = unburied;
        self
    }

    /// Sets the treatment of a message whose handler failed while too many others wait. Default:
    /// [`Crowded::Wait`].
    pub fn when_crowded(mut self, crowded: Crowded) -> Self {
        self.settings.crowded = crowded;
        self
    }

    /// Consumes until the broker is closed.
    ///
    /// # Errors
    /// The errors of [`run_until`](Self::run_until).
    pub async fn run<F>(self) -> Result<Report>
    where
        H: Fn(Vec<Received>) -> F,
        F: Future<Output = Result<Vec<Failed>, HandlerError>>,
    {
        self.run_until(pending::<()>()).await
    }

    /// Consumes until `shutdown` ends or the broker is closed; then finishes the current batch and
    /// gives back the messages that were collected for the next one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a size outside 1 to
    /// 65,535, an error of [`subscribe`](TracedBroker::subscribe), or the error of a dead letter
    /// that the broker refuses for good; its message is kept.
    pub async fn run_until<F>(mut self, shutdown: impl Future) -> Result<Report>
    where
        H: Fn(Vec<Received>) -> F,
        F: Future<Output = Result<Vec<Failed>, HandlerError>>,
    {
        self.subscription = self.settings.fit(self.subscription, self.broker.capabilities(), "size of batches")?;
        let mut deliveries = self.broker.subscribe(self.subscription.clone()).await?;
        let mut shutdown = pin!(shutdown);
        let mut report = Report::default();
        let (mut batch, mut alone) = (Vec::new(), VecDeque::new());
        let mut failure = None;
        loop {
            let collecting = self.collect(&mut deliveries, &mut batch, &mut alone, &mut report);
            let open = match select(&mut shutdown, pin!(collecting)).await {
                Either::Left(_) => break,
                Either::Right((open, _)) => open,
            };
            let work = self.work(std::mem::take(&mut batch), &mut report);
            let (worked, stopped) = match select(&mut shutdown, pin!(work)).await {
                Either::Left((_, work)) => {
                    deliveries.stop();
                    (timeout(self.settings.drain, work).await.unwrap_or(Ok(())), true)
                }
                Either::Right((worked, _)) => (worked, false),
            };
            failure = worked.err();
            if stopped || !open || failure.is_some() {
                break;
            }
        }
        batch.extend(alone);
        report.abandoned += batch.len() as u64;
        drop(deliveries);
        batch.into_iter().for_each(Delivery::give_back);
        match failure {
            None => Ok(report),
            Some(error) => Err(error.with_operation("consume").with_context("report", report)),
        }
    }

    /// Fills `batch` until it is full or the linger time ends; returns `false` when the
    /// subscription has ended. A message that is to be tried `alone` is a batch of its own, later.
    async fn collect(
        &self,
        deliveries: &mut Deliveries,
        batch: &mut Vec<Delivery>,
        alone: &mut VecDeque<Delivery>,
        report: &mut Report,
    ) -> bool {
        if let Some(next) = alone.pop_front() {
            batch.push(next);
            return true;
        }
        let mut until = None;
        while batch.len() + alone.len() < self.settings.size {
            let next = match until {
                None => deliveries.next().await,
                Some(until) => match timeout_at(until, deliveries.next()).await {
                    Ok(next) => next,
                    Err(_) => return true,
                },
            };
            match next {
                Some(Ok(delivery)) => {
                    match delivery.runs_alone() {
                        true => alone.push_back(delivery),
                        false => batch.push(delivery),
                    }
                    until.get_or_insert_with(|| due_after(self.linger));
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "a subscription reported an error and continues");
                    report.errors += 1;
                }
                None => return false,
            }
        }
        true
    }

    /// Runs the handler on a batch and settles every message of it.
    ///
    /// # Errors
    /// The error of a dead letter that is refused for good, for which the consumer is to stop.
    async fn work<F>(&self, batch: Vec<Delivery>, report: &mut Report) -> Result<()>
    where
        H: Fn(Vec<Received>) -> F,
        F: Future<Output = Result<Vec<Failed>, HandlerError>>,
    {
        let batch = self.sift(batch, report).await?;
        join_all(batch.iter().filter(|delivery| delivery.is_suspect()).map(Delivery::begin_trial)).await;
        let Some(mut span) = Delivery::start_batch_span(&batch) else { return Ok(()) };
        // Count as abandoned until they are settled, in case the drain time runs out.
        report.abandoned += batch.len() as u64;
        let messages = batch.iter().map(|delivery| delivery.message().clone()).collect();
        // The handler is called inside the future, so that a panic before its first await is
        // contained too.
        let result = contained(&mut span, self.settings.time_limit, async { (self.handler)(messages).await }).await;
        let mut errors: Vec<Option<HandlerError>> = Vec::new();
        errors.resize_with(batch.len(), || None);
        let whole = match result {
            Ok(failed) => {
                for Failed { index, error } in failed {
                    match errors.get_mut(index) {
                        Some(slot) => *slot = Some(error),
                        None => tracing::warn!(index, "a handler named a message that is not in its batch"),
                    }
                }
                None
            }
            Err(error) => Some(error),
        };
        let (context, whole) = (span.context(), whole.as_ref());
        let settling = batch.into_iter().zip(&errors).map(|(delivery, own)| async move {
            let error = own.as_ref().or(whole);
            let verdict = error.map(|error| self.settings.verdict(error, &delivery));
            delivery.settle_by(verdict, error, context).await
        });
        let concluded = join_all(settling).await;
        report.abandoned -= concluded.len() as u64;
        let mut settled = Vec::with_capacity(concluded.len());
        let mut failure = None;
        for concluded in concluded {
            match self.settled(concluded).await {
                Ok(settlement) => settled.push(settlement),
                Err(error) => failure = Some(error),
            }
        }
        settled.iter().for_each(|settlement| report.count(settlement));
        if let Some(first) = errors.iter().flatten().next() {
            let count = errors.iter().flatten().count();
            let words = || format!("{count} of {} messages failed, the first: {}", errors.len(), first.describe());
            span.fail(first.error_type(), words);
        }
        span.finish(overall(&settled));
        failure.map_or(Ok(()), Err)
    }

    /// Leaves out the messages that were lost, and those with an earlier verdict of this process,
    /// which is carried out.
    async fn sift(&self, batch: Vec<Delivery>, report: &mut Report) -> Result<Vec<Delivery>> {
        let mut left = Vec::with_capacity(batch.len());
        for mut delivery in batch {
            if !delivery.may_begin() {
                delivery.let_go();
                report.lost += 1;
            } else if let Some(verdict) = delivery.recall().or_else(|| delivery.condemned()) {
                let settled = self.settled(delivery.apply(verdict).await).await?;
                report.count(&settled);
            } else {
                left.push(delivery);
            }
        }
        Ok(left)
    }

    /// Returns the settlement of a message.
    ///
    /// # Errors
    /// The error of a dead letter that is refused for good, for which the consumer is to stop.
    async fn settled(&self, concluded: Concluded<Settlement>) -> Result<Result<Settlement>> {
        match concluded {
            Concluded::Settled(settled) => {
                Ok(settled.inspect_err(|error| tracing::warn!(%error, "a message of a batch was not settled")))
            }
            Concluded::Again(delivery, _) => {
                delivery.give_back();
                Ok(Ok(Settlement::Retried))
            }
            Concluded::Unburied(delivery, decision, error) if self.settings.unburied == Unburied::Discard => {
                Ok(discard(delivery, &decision, &error).await)
            }
            Concluded::Unburied(delivery, decision, error) => {
                delivery.leave_unburied(decision);
                Err(error)
            }
        }
    }
}

/// Returns the settlement of a batch, or `mixed` if its messages were settled in different ways.
fn overall(settled: &[Result<Settlement>]) -> &'static str {
    let mut names = settled.iter().map(|one| one.as_ref().map_or("none", |settlement| settlement.as_str()));
    let first = names.next().unwrap_or("none");
    if names.all(|name| name == first) { first } else { "mixed" }
}

impl<B: TracedBroker + ?Sized, H> fmt::Debug for ConsumeBatch<'_, B, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumeBatch")
            .field("subscription", &self.subscription)
            .field("size", &self.settings.size)
            .field("linger", &self.linger)
            .field("retry", &self.settings.retry)
            .finish_non_exhaustive()
    }
}
