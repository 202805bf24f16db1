//! Messages by the batch: one handler call for many, an outcome for each.

use std::fmt;
use std::future::{Future, pending};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, join_all, select};
use tokio::time::{timeout, timeout_at};

use super::report::Report;
use super::retry::Retry;
use super::{DEFAULT_DRAIN_TIME, invalid};
use crate::address::{MAX_PREFETCH, Subscription};
use crate::broker::TracedBroker;
use crate::consumer::Deliveries;
use crate::delivery::{Delivery, Settlement, contained};
use crate::error::{ErrorKind, Result};
use crate::handler::{HandlerError, Verdict};
use crate::held::due_after;
use crate::received::Received;

/// How many messages a batch has at most unless [`ConsumeBatch::size`] says otherwise.
pub const DEFAULT_BATCH_SIZE: usize = 100;
/// How long a batch waits for more messages after its first unless [`ConsumeBatch::linger`] says otherwise.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(50);

/// A message of a batch that was not handled.
#[derive(Debug)]
pub struct Failed {
    /// Which one: its place in the batch, from 0.
    pub index: usize,
    /// Why, and what is to happen to it.
    pub error: HandlerError,
}

/// A consumer of batches that is being set up; nothing happens until [`run`](Self::run) or [`run_until`](Self::run_until).
///
/// The handler gets 1 to [`size`](Self::size) messages in the order in which they came and returns those that
/// [failed](Failed); the others are acknowledged. An error fails all of them. Each message is settled by its own outcome: retried ones
/// come again in a later batch. One batch is worked on at a time.
///
/// A batch has one `process` span, a trace of its own that links the creation context of every message.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::consume::Failed;
/// use traced_broker::{HandlerError, Message, Received, Subscription, TracedBroker, TracedBrokerExt, connect};
///
/// async fn store(rows: Vec<Received>) -> Result<Vec<Failed>, HandlerError> {
///     let empty = |(index, row): (usize, &Received)| {
///         row.payload().is_empty().then(|| Failed { index, error: HandlerError::reject("an empty row") })
///     };
///     Ok(rows.iter().enumerate().filter_map(empty).collect())
/// }
///
/// let broker = connect("memory://").await?;
/// let loader = Subscription::new("rows").group("loader").dead_letter("rows.dead");
/// broker.publish_batch("rows", vec![Message::new("1"), Message::new(""), Message::new("3")]).await;
/// let shutdown = tokio::time::sleep(Duration::from_millis(200));
/// let report = broker.consume_batch(loader, store).size(500).linger(Duration::from_millis(10)).run_until(shutdown).await?;
/// assert_eq!((report.handled, report.rejected), (2, 1));
/// # Ok(()) }
/// ```
#[must_use = "a consumer does nothing until it is run"]
pub struct ConsumeBatch<'a, B: ?Sized, H> {
    broker: &'a B,
    subscription: Subscription,
    handler: H,
    size: usize,
    linger: Duration,
    time_limit: Option<Duration>,
    retry: Retry,
    drain: Duration,
}

impl<'a, B: TracedBroker + ?Sized, H> ConsumeBatch<'a, B, H> {
    pub(crate) fn new(broker: &'a B, subscription: Subscription, handler: H) -> Self {
        Self {
            broker,
            subscription,
            handler,
            size: DEFAULT_BATCH_SIZE,
            linger: DEFAULT_LINGER,
            time_limit: None,
            retry: Retry::default(),
            drain: DEFAULT_DRAIN_TIME,
        }
    }

    /// How many messages a batch has at most, at least 1. Default 100.
    ///
    /// The subscription's prefetch is raised to it if it is lower.
    pub fn size(mut self, messages: usize) -> Self {
        self.size = messages;
        self
    }

    /// How long a batch waits for more messages after its first. Default 50 ms.
    pub fn linger(mut self, time: Duration) -> Self {
        self.linger = time;
        self
    }

    /// How long the handler may take with one batch. One that takes longer is cancelled and all of the batch counts as failed. Default: no limit.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// What to do with messages that failed. Default: [`Retry::default`].
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Where rejected messages are copied to; the same as [`Subscription::dead_letter`].
    pub fn dead_letter(mut self, topic: impl AsRef<str>) -> Self {
        self.subscription = self.subscription.dead_letter(topic);
        self
    }

    /// How long to wait, after being told to stop, for the batch that is worked on. Default 30 s.
    pub fn drain_time(mut self, time: Duration) -> Self {
        self.drain = time;
        self
    }

    /// Consumes until the broker is closed.
    ///
    /// # Errors
    /// As [`run_until`](Self::run_until).
    pub async fn run<F>(self) -> Result<Report>
    where
        H: Fn(Vec<Received>) -> F,
        F: Future<Output = Result<Vec<Failed>, HandlerError>>,
    {
        self.run_until(pending::<()>()).await
    }

    /// Consumes until `shutdown` ends or the broker is closed; then finishes the batch that is worked on and gives back what is
    /// collected for the next.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a size of 0 or above the highest prefetch, and whatever
    /// [`subscribe`](TracedBroker::subscribe) returns.
    pub async fn run_until<F>(mut self, shutdown: impl Future) -> Result<Report>
    where
        H: Fn(Vec<Received>) -> F,
        F: Future<Output = Result<Vec<Failed>, HandlerError>>,
    {
        if !(1..=MAX_PREFETCH).contains(&self.size) {
            return Err(invalid("the size of batches is outside 1 to 65535", "size", self.size));
        }
        if (1..self.size).contains(&self.subscription.max_unsettled()) {
            self.subscription = self.subscription.prefetch(self.size);
        }
        let mut deliveries = self.broker.subscribe(self.subscription.clone()).await?;
        let mut shutdown = pin!(shutdown);
        let mut report = Report::default();
        let mut batch = Vec::new();
        loop {
            let open = match select(&mut shutdown, pin!(self.collect(&mut deliveries, &mut batch, &mut report))).await {
                Either::Left(_) => break,
                Either::Right((open, _)) => open,
            };
            let work = pin!(self.work(std::mem::take(&mut batch), &mut report));
            let stopped = match select(&mut shutdown, work).await {
                Either::Left((_, work)) => Some(timeout(self.drain, work).await),
                Either::Right(_) => None,
            };
            if stopped.is_some() || !open {
                break;
            }
        }
        report.abandoned += batch.len() as u64;
        drop(deliveries);
        batch.into_iter().for_each(Delivery::give_back);
        Ok(report)
    }

    /// Fills `batch` until it is full or no more come in time; false when the subscription has ended.
    async fn collect(&self, deliveries: &mut Deliveries, batch: &mut Vec<Delivery>, report: &mut Report) -> bool {
        let mut until = None;
        while batch.len() < self.size {
            let next = match until {
                None => deliveries.next().await,
                Some(until) => match timeout_at(until, deliveries.next()).await {
                    Ok(next) => next,
                    Err(_) => return true,
                },
            };
            match next {
                Some(Ok(delivery)) => {
                    batch.push(delivery);
                    until.get_or_insert_with(|| due_after(self.linger));
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "trouble with a subscription, which goes on");
                    report.errors += 1;
                }
                None => return false,
            }
        }
        true
    }

    /// Runs the handler on a batch and settles every message of it.
    async fn work<F>(&self, batch: Vec<Delivery>, report: &mut Report)
    where
        H: Fn(Vec<Received>) -> F,
        F: Future<Output = Result<Vec<Failed>, HandlerError>>,
    {
        let Some(mut span) = Delivery::start_batch_span(&batch) else { return };
        // Counted as abandoned until they are settled, in case the time to drain runs out.
        report.abandoned += batch.len() as u64;
        let messages = batch.iter().map(|delivery| delivery.message().clone()).collect();
        // Called within, so that a panic before the first await is contained, too.
        let result = contained(&mut span, self.time_limit, async { (self.handler)(messages).await }).await;
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
        let settling = batch.into_iter().zip(&errors).map(|(delivery, own)| {
            let error = own.as_ref().or(whole.as_ref());
            let verdict = error.map(|error| self.retry.verdict(error, delivery.message().attempt()));
            settle(delivery, verdict, error, &span)
        });
        let settled = join_all(settling).await;
        report.abandoned -= settled.len() as u64;
        settled.iter().for_each(|settlement| count(report, settlement));
        if let Some(first) = errors.iter().flatten().next() {
            let count = errors.iter().flatten().count();
            let words = || format!("{count} of {} messages failed, the first: {first}", errors.len());
            span.fail(first.error_type(), words);
        }
        span.finish(overall(&settled));
    }
}

async fn settle(
    delivery: Delivery,
    verdict: Option<Verdict>,
    error: Option<&HandlerError>,
    span: &crate::span::ProcessSpan,
) -> Result<Settlement> {
    let topic = delivery.message().topic().clone();
    let settled = delivery.settle_by(verdict, error, span.context()).await;
    settled.inspect_err(|error| tracing::warn!(%topic, %error, "a message of a batch was not settled"))
}

fn count(report: &mut Report, settled: &Result<Settlement>) {
    match settled {
        Ok(Settlement::Acknowledged | Settlement::None) => report.handled += 1,
        Ok(Settlement::Retried) => report.retried += 1,
        Ok(Settlement::Rejected) => report.rejected += 1,
        Err(error) if error.kind() == ErrorKind::Unsupported => report.failed += 1,
        Err(_) => report.unsettled += 1,
    }
}

/// How a batch was settled, if all of it was in the same way.
fn overall(settled: &[Result<Settlement>]) -> &'static str {
    let mut names = settled.iter().map(|one| one.as_ref().map_or("none", |settlement| settlement.as_str()));
    let first = names.next().unwrap_or("none");
    if names.all(|name| name == first) { first } else { "mixed" }
}

impl<B: TracedBroker + ?Sized, H> fmt::Debug for ConsumeBatch<'_, B, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumeBatch")
            .field("subscription", &self.subscription)
            .field("size", &self.size)
            .field("linger", &self.linger)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
