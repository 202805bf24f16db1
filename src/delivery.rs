//! One delivery: process it, or settle it by hand, once.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use opentelemetry::Context;
use opentelemetry::context::FutureExt as _;
use tokio::time::timeout;

use crate::ambient;
use crate::consumer::Consumer;
use crate::dead_letter::Grounds;
use crate::driver::{DeliveryHandle, Disposition};
use crate::error::{Error, ErrorKind, Result};
use crate::handler::{HandlerError, Verdict};
use crate::held::{HeldDelivery, due_after};
use crate::received::Received;
use crate::span::{ProcessSpan, SettleSpan};

/// How long a message waits for its next attempt when its dead letter could not be published.
const DEAD_LETTER_BACK_OFF: Duration = Duration::from_secs(1);

/// A delivery: a message that was handed out and is settled once, by value.
///
/// [`process`](Self::process) is the usual way: it makes the process span current for a handler and settles by its result. A
/// delivery that is dropped unsettled is logged and handed out again at once, on this consumer or another.
#[must_use = "a delivery that is dropped unsettled comes back"]
pub struct Delivery {
    message: Received,
    /// `None` once settled, and from the start where nothing is to be settled.
    handle: Option<Box<dyn DeliveryHandle>>,
    consumer: Arc<Consumer>,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Settlement {
    /// Handled.
    Acknowledged,
    /// To be handed out again.
    Retried,
    /// Given up; copied to the dead-letter topic where the subscription names one.
    Rejected,
    /// There was nothing to settle: the subscription is [at most once](crate::Subscription::at_most_once).
    None,
}

impl Settlement {
    /// The name used as span attribute.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledged => "ack",
            Self::Retried => "retry",
            Self::Rejected => "reject",
            Self::None => "none",
        }
    }
}

/// What became of a processed delivery.
#[derive(Debug)]
#[non_exhaustive]
pub struct Processed {
    /// How it was settled.
    pub settlement: Settlement,
    /// Why, when the handler failed or panicked.
    pub error: Option<HandlerError>,
}

impl Delivery {
    pub(crate) fn new(message: Received, handle: Option<Box<dyn DeliveryHandle>>, consumer: Arc<Consumer>) -> Self {
        Self { message, handle, consumer }
    }

    /// The message.
    pub fn message(&self) -> &Received {
        &self.message
    }

    /// The creation context that the message carries, on an empty context: what the sender injected, or nothing. Of a subscription with a
    /// [trust boundary](crate::Subscription::trust_boundary), what the boundary admits.
    pub fn creation_context(&self) -> Context {
        self.message.origin().context.clone()
    }

    /// Runs `handler` inside a process span and settles by its result: `Ok` acknowledges, an error retries or rejects as
    /// its [`Verdict`] says, a panic retries.
    ///
    /// The span is current for the handler and after every `await` in it, and ends after settling. If the returned future is
    /// dropped, the span ends marked as cancelled and the message is handed out again.
    ///
    /// # Errors
    /// When settling failed: [`ErrorKind::SettlementLost`] if the connection it came from is gone, so that the
    /// broker hands the message out again; [`ErrorKind::Unsupported`] for a retry or reject of an at-most-once subscription; what the
    /// dead-letter topic reported, after which the message is retried. What the handler failed with is in [`Processed::error`].
    pub async fn process<H, F, T>(self, handler: H) -> Result<Processed>
    where
        H: FnOnce(Received) -> F,
        F: Future<Output = Result<T, HandlerError>>,
    {
        let attempt = self.attempt(handler, None).await;
        let verdict = attempt.error.as_ref().map(HandlerError::verdict);
        self.conclude(attempt, verdict).await
    }

    /// Runs `handler` inside a process span, for no longer than `limit`; what is left to do is to [conclude](Self::conclude).
    pub(crate) async fn attempt<H, F, T>(&self, handler: H, limit: Option<Duration>) -> Attempt
    where
        H: FnOnce(Received) -> F,
        F: Future<Output = Result<T, HandlerError>>,
    {
        let mut span = self.start_span();
        let message = self.message.clone();
        let result = contained(&mut span, limit, async move { handler(message).await.map(drop) }).await;
        Attempt { span, error: result.err() }
    }

    /// Settles by the verdict on an attempt, `None` for one that succeeded, and ends its span.
    pub(crate) async fn conclude(self, attempt: Attempt, verdict: Option<Verdict>) -> Result<Processed> {
        let settled = self.settle_by(verdict, attempt.error.as_ref(), attempt.span.context()).await;
        attempt.end(settled)
    }

    /// As [`conclude`](Self::conclude), but a delivery that is to be tried again stays in hand, unsettled, so that no other message
    /// gets ahead of it.
    pub(crate) async fn conclude_in_order(mut self, attempt: Attempt, verdict: Option<Verdict>) -> Result<Concluded> {
        let delay = match verdict {
            Some(Verdict::Retry(delay)) if self.handle.is_some() => delay,
            Some(Verdict::Reject) if self.handle.is_some() => match self.bury(&attempt).await {
                Ok(disposition) => {
                    let settled = self.settle(disposition, Some(attempt.span.context())).await;
                    return attempt.end(settled.map(|()| Settlement::Rejected)).map(Concluded::Settled);
                }
                Err(error) => {
                    tracing::warn!(topic = %self.message.topic(), %error, "a message is kept: its dead letter could not be published");
                    DEAD_LETTER_BACK_OFF
                }
            },
            _ => return self.conclude(attempt, verdict).await.map(Concluded::Settled),
        };
        attempt.span.finish(Settlement::Retried.as_str());
        self.message.attempt = self.message.attempt.saturating_add(1);
        Ok(Concluded::Again(self, delay))
    }

    /// Hands back a delivery that nobody has begun to work on.
    pub(crate) fn give_back(mut self) {
        self.hand_back();
    }

    /// Acknowledges the message: it was handled.
    ///
    /// # Errors
    /// [`ErrorKind::SettlementLost`] when it can no longer be settled and is handed out again.
    pub async fn ack(mut self) -> Result<()> {
        self.settle(Disposition::Ack, None).await
    }

    /// Has the message handed out again after `delay`, with the attempt one higher.
    ///
    /// # Errors
    /// As [`ack`](Self::ack), and [`ErrorKind::Unsupported`] on an at-most-once subscription.
    pub async fn retry(mut self, delay: Duration) -> Result<()> {
        self.settle_retry(delay, None).await
    }

    /// Gives the message up: copies it to the subscription's dead-letter topic if it names one, then settles it.
    ///
    /// The copy keeps key, payload, headers and so the creation context, and says why in
    /// [headers of its own](crate::dead_letter). If it cannot be published, the message is retried.
    ///
    /// # Errors
    /// As [`retry`](Self::retry), and what the dead-letter topic reported.
    pub async fn reject(mut self, reason: &str) -> Result<()> {
        self.settle_reject(Grounds { reason, error_type: None }, &ambient::current()).await
    }

    /// Starts the span of a batch of one subscription's deliveries; `None` for a batch of nothing.
    pub(crate) fn start_batch_span(batch: &[Self]) -> Option<ProcessSpan> {
        let consumer = &batch.first()?.consumer;
        let messages: Vec<&Received> = batch.iter().map(Self::message).collect();
        Some(ProcessSpan::start_batch(consumer, &ambient::current(), &messages))
    }

    fn start_span(&self) -> ProcessSpan {
        let span = ProcessSpan::start(&self.consumer, &ambient::current(), &self.message);
        if span.is_recording() {
            span.describe(&self.message, |visit| {
                if let Some(handle) = &self.handle {
                    handle.attributes(visit);
                }
            });
        }
        span
    }

    /// Settles by the verdict on `error`, `None` where there is none; within `context`, which dead letters are published in.
    pub(crate) async fn settle_by(
        mut self,
        verdict: Option<Verdict>,
        error: Option<&HandlerError>,
        context: &Context,
    ) -> Result<Settlement> {
        let settlement = match verdict {
            None if self.handle.is_none() => Settlement::None,
            None => {
                self.settle(Disposition::Ack, Some(context)).await?;
                Settlement::Acknowledged
            }
            Some(Verdict::Retry(delay)) => {
                self.settle_retry(delay, Some(context)).await?;
                Settlement::Retried
            }
            Some(Verdict::Reject) => {
                let reason = self.reason(error);
                self.settle_reject(Grounds::of(error, &reason), context).await?;
                Settlement::Rejected
            }
        };
        Ok(settlement)
    }

    /// Tells the broker, within the context of the work, or the current one where there was none.
    async fn settle(&mut self, disposition: Disposition, within: Option<&Context>) -> Result<()> {
        match self.handle.take() {
            Some(handle) => {
                let mut span = SettleSpan::start(&self.consumer, disposition, within, self.message.partition());
                if let Some(span) = &mut span {
                    span.describe(self.message.id(), &*handle);
                }
                let settled = handle.settle(disposition).await.map_err(|error| self.consumer.annotate(error, "settle"));
                if let Some(span) = span {
                    span.finish(&settled);
                }
                settled
            }
            None if disposition == Disposition::Ack => Ok(()),
            None => Err(self.unsettleable()),
        }
    }

    async fn settle_retry(&mut self, delay: Duration, within: Option<&Context>) -> Result<()> {
        if self.handle.is_some() && !self.consumer.capabilities.retries_natively(delay) {
            self.hold(delay);
            return Ok(());
        }
        self.settle(Disposition::Retry(delay), within).await
    }

    async fn settle_reject(&mut self, grounds: Grounds<'_>, context: &Context) -> Result<()> {
        if self.handle.is_none() {
            return Err(self.unsettleable());
        }
        match self.copy_to_dead_letters(grounds, context).await {
            Ok(disposition) => self.settle(disposition, Some(context)).await,
            Err(error) => {
                self.settle_retry(DEAD_LETTER_BACK_OFF, Some(context)).await?;
                Err(error.with_context("message", "kept and retried: its dead letter could not be published"))
            }
        }
    }

    /// Why it is given up: what its handler said, and that it was tried often enough, where that is why.
    fn reason(&self, error: Option<&HandlerError>) -> String {
        let Some(error) = error else { return String::new() };
        let attempts = self.message.attempt();
        match error.verdict() {
            Verdict::Retry(_) if attempts > 1 => format!("given up after {attempts} attempts: {error}"),
            _ => error.to_string(),
        }
    }

    async fn bury(&self, attempt: &Attempt) -> Result<Disposition> {
        let error = attempt.error.as_ref();
        let reason = self.reason(error);
        self.copy_to_dead_letters(Grounds::of(error, &reason), attempt.span.context()).await
    }

    /// Publishes the dead letter, if the subscription has a topic for them; what is left is to settle as returned.
    async fn copy_to_dead_letters(&self, grounds: Grounds<'_>, context: &Context) -> Result<Disposition> {
        match &self.consumer.dead_letters {
            Some(dead_letters) => {
                dead_letters.publish(&self.message, grounds, context).await.map(|()| Disposition::Ack)
            }
            None => Ok(Disposition::Discard),
        }
    }

    fn hold(&mut self, delay: Duration) {
        if let Some(handle) = self.handle.take() {
            let (parts, attempt) = (Arc::clone(&self.message.parts), self.message.attempt.saturating_add(1));
            self.consumer.held.hold(HeldDelivery { parts, attempt, handle }, due_after(delay));
        }
    }

    fn hand_back(&mut self) {
        if !self.consumer.capabilities.retries_natively(Duration::ZERO) {
            self.hold(Duration::ZERO);
        } else if let Some(handle) = self.handle.take() {
            // Under way already; nobody is left to hear the answer.
            drop(handle.settle(Disposition::Retry(Duration::ZERO)));
        }
    }

    fn unsettleable(&self) -> Error {
        let message = "an at-most-once delivery counts as handled already; it cannot be retried or rejected";
        self.consumer.annotate(Error::new(ErrorKind::Unsupported, message), "settle")
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.handle.is_none() {
            return;
        }
        tracing::warn!(topic = %self.message.topic(), "a delivery was dropped unsettled and is handed out again");
        self.hand_back();
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("message", &self.message)
            .field("settled", &self.handle.is_none())
            .finish_non_exhaustive()
    }
}

/// Runs a handler within its span, for no longer than `limit`: a panic is an error, and an error is told to the span.
pub(crate) async fn contained<T>(
    span: &mut ProcessSpan,
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, HandlerError>>,
) -> Result<T, HandlerError> {
    let work = AssertUnwindSafe(work).catch_unwind().with_context(ambient::entered(span.context().clone()));
    let outcome = match limit {
        None => work.await,
        Some(limit) => timeout(limit, work).await.unwrap_or_else(|_| Ok(Err(HandlerError::retry(TimedOut(limit))))),
    };
    let result = outcome.unwrap_or_else(|panic| Err(HandlerError::retry(Panicked::with(&*panic))));
    if let Err(error) = &result {
        span.fail(error.error_type(), || error.to_string());
    }
    result
}

/// A handler has run; the delivery is not settled yet, and the span not ended.
pub(crate) struct Attempt {
    span: ProcessSpan,
    pub(crate) error: Option<HandlerError>,
}

impl Attempt {
    /// Ends the span with how the delivery was settled.
    fn end(self, settled: Result<Settlement>) -> Result<Processed> {
        let Self { mut span, error } = self;
        match settled {
            Ok(settlement) => {
                span.finish(settlement.as_str());
                Ok(Processed { settlement, error })
            }
            Err(failure) => {
                span.fail(failure.kind().as_str(), || failure.to_string());
                span.finish(Settlement::None.as_str());
                Err(failure)
            }
        }
    }
}

/// What became of a delivery whose key keeps its order.
pub(crate) enum Concluded {
    Settled(Processed),
    /// To be tried again after that time, still unsettled.
    Again(Delivery, Duration),
}

/// What a handler that panicked said.
#[derive(Debug)]
pub(crate) struct Panicked(String);

impl Panicked {
    pub(crate) fn with(panic: &(dyn std::any::Any + Send)) -> Self {
        Self(describe_panic(panic))
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handler panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

/// A handler that took longer than it was given.
#[derive(Debug)]
pub(crate) struct TimedOut(Duration);

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handler did not finish within {:?} and was cancelled", self.0)
    }
}

impl std::error::Error for TimedOut {}

pub(crate) fn describe_panic(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
