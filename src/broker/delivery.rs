//! A delivery: processed by a handler, or settled by hand, exactly once.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use opentelemetry::Context;
use opentelemetry::context::FutureExt as _;
use tokio::time::timeout;

use super::consumer::Consumer;
use super::dead_letter::Reason;
use super::held::{HeldDelivery, due_after};
use super::settlement::{Processed, Settlement};
use crate::context::ambient;
use crate::driver::{DeliveryHandle, Disposition};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{HandlerError, Panicked, Received, TimedOut, Verdict};
use crate::telemetry::span::{ProcessSpan, SettleSpan};

/// The back-off before the next attempt of a message whose dead letter could not be published.
const DEAD_LETTER_BACK_OFF: Duration = Duration::from_secs(1);

/// A delivery: a message that was handed out and is settled once, by value.
///
/// [`process`](Self::process) is the usual way: it makes the process span current for a handler and
/// settles the message by the handler's result. Dropping an unsettled delivery logs a warning, and
/// the message is redelivered at once, to this consumer or another.
#[must_use = "a delivery that is dropped unsettled is redelivered"]
pub struct Delivery {
    message: Received,
    /// `None` once settled, and from the start on an at-most-once subscription.
    handle: Option<Box<dyn DeliveryHandle>>,
    consumer: Arc<Consumer>,
}

impl Delivery {
    pub(crate) fn new(message: Received, handle: Option<Box<dyn DeliveryHandle>>, consumer: Arc<Consumer>) -> Self {
        Self { message, handle, consumer }
    }

    /// Returns the message.
    pub fn message(&self) -> &Received {
        &self.message
    }

    /// Returns the creation context that the message carries: the context that the sender injected,
    /// or an empty one. On a subscription with a [trust
    /// boundary](crate::Subscription::trust_boundary), it holds only what the boundary admits.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use opentelemetry::trace::TraceContextExt;
    /// use traced_broker::{Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let mut deliveries = broker.subscribe(Subscription::new("orders").group("workers")).await?;
    /// let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// broker.forward("orders", Message::new("shoes").header("traceparent", traceparent)).await?;
    ///
    /// let delivery = deliveries.next().await.expect("the broker is open")?;
    /// let context = delivery.creation_context();
    /// let trace_id = context.span().span_context().trace_id();
    /// assert_eq!(trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    /// delivery.ack().await?;
    /// # Ok(()) }
    /// ```
    pub fn creation_context(&self) -> Context {
        self.message.origin().context.clone()
    }

    /// Runs `handler` inside a process span and settles the message by its result: `Ok`
    /// acknowledges, an error retries or rejects as its [`Verdict`] says, a panic retries.
    ///
    /// The span is current for the handler, after every `await` too, and ends after settling. If
    /// the returned future is dropped, the span ends marked as cancelled and the message is
    /// redelivered.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::{HandlerError, Message, Settlement, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let mut deliveries = broker.subscribe(Subscription::new("orders").group("workers")).await?;
    /// broker.publish("orders", Message::new("one pair of shoes")).await?;
    ///
    /// let delivery = deliveries.next().await.expect("the broker is open")?;
    /// let busy = async |_| Err::<(), _>(HandlerError::retry("busy"));
    /// let processed = delivery.process(busy).await?;
    /// assert_eq!(processed.settlement, Settlement::Retried);
    ///
    /// let delivery = deliveries.next().await.expect("the broker is open")?;
    /// assert_eq!(delivery.message().attempt(), 2);
    /// let processed = delivery.process(async |_| Ok(())).await?;
    /// assert_eq!(processed.settlement, Settlement::Acknowledged);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// An error means that settling failed: [`ErrorKind::SettlementLost`] if the delivery's
    /// connection is gone, so that the broker redelivers the message; [`ErrorKind::Unsupported`]
    /// for a retry or reject on an at-most-once subscription; or the error of publishing the dead
    /// letter, after which the message is retried. The handler's own error is in
    /// [`Processed::error`].
    pub async fn process<H, F, T>(self, handler: H) -> Result<Processed>
    where
        H: FnOnce(Received) -> F,
        F: Future<Output = Result<T, HandlerError>>,
    {
        let attempt = self.attempt(handler, None).await;
        let verdict = attempt.error.as_ref().map(HandlerError::verdict);
        self.conclude(attempt, verdict).await
    }

    /// Runs `handler` inside a process span, for at most `limit`; the attempt must then be
    /// [concluded](Self::conclude).
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

    /// Settles by the verdict on an attempt and ends its span; `None` is the verdict on a success.
    pub(crate) async fn conclude(self, attempt: Attempt, verdict: Option<Verdict>) -> Result<Processed> {
        let settled = self.settle_by(verdict, attempt.error.as_ref(), attempt.span.context()).await;
        attempt.end(settled)
    }

    /// Like [`conclude`](Self::conclude), except that a delivery to be tried again stays in hand,
    /// unsettled, so that no other message gets ahead of it.
    pub(crate) async fn conclude_in_order(mut self, attempt: Attempt, verdict: Option<Verdict>) -> Result<Concluded> {
        let text = self.reason(verdict, attempt.error.as_ref());
        let decision = Decision::of(verdict, attempt.error.as_ref(), &text);
        match self.carry_out(decision, Some(attempt.span.context())).await {
            Ok(Outcome::Settled(settlement)) => attempt.end(Ok(settlement)).map(Concluded::Settled),
            Err(error) => attempt.end(Err(error)).map(Concluded::Settled),
            Ok(Outcome::Open { delay, failure }) => {
                if let Some(error) = failure {
                    tracing::warn!(topic = %self.message.topic(), %error, "a message is kept: its dead letter could not be published");
                }
                attempt.span.finish(Settlement::Retried.as_str());
                self.message.attempt = self.message.attempt.saturating_add(1);
                Ok(Concluded::Again(self, delay))
            }
        }
    }

    /// Gives back a delivery that no handler has started on.
    pub(crate) fn give_back(mut self) {
        self.hand_back();
    }

    /// Acknowledges the message: it was handled.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::{ErrorKind, Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let mut deliveries = broker.subscribe(Subscription::new("orders").group("workers")).await?;
    /// broker.publish_batch("orders", vec![Message::new("shoes"), Message::new("a hat")]).await;
    /// let shoes = deliveries.next().await.expect("the broker is open")?;
    /// let hat = deliveries.next().await.expect("the broker is open")?;
    /// shoes.ack().await?;
    ///
    /// broker.close().await?;
    /// assert_eq!(hat.ack().await.unwrap_err().kind(), ErrorKind::SettlementLost);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::SettlementLost`] if the message can no longer be settled and is redelivered.
    pub async fn ack(mut self) -> Result<()> {
        self.settle(Decision::Ack, None).await.map(drop)
    }

    /// Requests redelivery of the message after `delay`, with the attempt number increased by one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use std::time::Duration;
    /// use futures_util::StreamExt;
    /// use traced_broker::{ErrorKind, Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let mut orders = broker.subscribe(Subscription::new("orders").group("workers")).await?;
    /// broker.publish("orders", Message::new("one pair of shoes")).await?;
    /// let delivery = orders.next().await.expect("the broker is open")?;
    /// delivery.retry(Duration::from_millis(10)).await?;
    /// let delivery = orders.next().await.expect("the broker is open")?;
    /// assert_eq!(delivery.message().attempt(), 2);
    /// delivery.ack().await?;
    ///
    /// let mut readings = broker.subscribe(Subscription::new("readings").at_most_once()).await?;
    /// broker.publish("readings", Message::new("21 °C")).await?;
    /// let reading = readings.next().await.expect("the broker is open")?;
    /// let error = reading.retry(Duration::ZERO).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unsupported);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of [`ack`](Self::ack), and [`ErrorKind::Unsupported`] on an at-most-once
    /// subscription.
    pub async fn retry(mut self, delay: Duration) -> Result<()> {
        self.settle(Decision::Retry(delay), None).await.map(drop)
    }

    /// Rejects the message: copies it to the subscription's dead-letter topic, if it names one, and
    /// then settles it.
    ///
    /// The copy keeps key, payload and headers, and so the creation context; [additional
    /// headers](crate::names::header::DEAD_LETTER) hold the reason. If the copy cannot be
    /// published, the message is retried.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::names::header;
    /// use traced_broker::{Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// let mut orders = broker.subscribe(workers).await?;
    /// broker.publish("orders", Message::new("one left shoe")).await?;
    /// orders.next().await.expect("the broker is open")?.reject("sold in pairs").await?;
    ///
    /// let mut dead = broker.subscribe(Subscription::new("orders.dead").group("support")).await?;
    /// let letter = dead.next().await.expect("the broker is open")?;
    /// let reason = letter.message().headers().get_str(header::DEAD_LETTER_REASON);
    /// assert_eq!(reason, Some("sold in pairs"));
    /// letter.ack().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of [`retry`](Self::retry), and the error of publishing the dead letter.
    pub async fn reject(mut self, reason: &str) -> Result<()> {
        let reason = Reason { text: reason, error_type: None };
        self.settle(Decision::Reject(reason), Some(&ambient::current())).await.map(drop)
    }

    /// Starts the span of a batch of one subscription's deliveries; `None` for an empty batch.
    pub(crate) fn start_batch_span(batch: &[Self]) -> Option<ProcessSpan> {
        let consumer = &batch.first()?.consumer;
        let messages: Vec<&Received> = batch.iter().map(Self::message).collect();
        Some(ProcessSpan::start_batch(&consumer.telemetry, &ambient::current(), &messages))
    }

    fn start_span(&self) -> ProcessSpan {
        let span = ProcessSpan::start(&self.consumer.telemetry, &ambient::current(), &self.message);
        if span.is_recording() {
            span.describe(&self.message, |visit| {
                if let Some(handle) = &self.handle {
                    handle.attributes(visit);
                }
            });
        }
        span
    }

    /// Settles by the verdict on `error`, `None` for a success; dead letters are published within
    /// `context`.
    pub(crate) async fn settle_by(
        mut self,
        verdict: Option<Verdict>,
        error: Option<&HandlerError>,
        context: &Context,
    ) -> Result<Settlement> {
        let text = self.reason(verdict, error);
        self.settle(Decision::of(verdict, error, &text), Some(context)).await
    }

    /// Carries out a decision; a delivery that stays open is redelivered by the broker, or held
    /// here if the broker cannot delay it.
    async fn settle(&mut self, decision: Decision<'_>, within: Option<&Context>) -> Result<Settlement> {
        let (delay, failure) = match self.carry_out(decision, within).await? {
            Outcome::Settled(settlement) => return Ok(settlement),
            Outcome::Open { delay, failure } => (delay, failure),
        };
        if self.consumer.capabilities.retries_natively(delay) {
            self.tell(Disposition::Retry(delay), within).await?;
        } else {
            self.hold(delay);
        }
        match failure {
            None => Ok(Settlement::Retried),
            Some(error) => {
                Err(error.with_context("message", "kept and retried: its dead letter could not be published"))
            }
        }
    }

    /// Carries out a decision as far as it ends the delivery. A retry leaves it open, and so does a
    /// dead letter that could not be published.
    async fn carry_out(&mut self, decision: Decision<'_>, within: Option<&Context>) -> Result<Outcome> {
        if self.handle.is_none() {
            return match decision {
                Decision::Ack => Ok(Outcome::Settled(Settlement::None)),
                Decision::Retry(_) | Decision::Reject(_) => Err(self.unsettleable()),
            };
        }
        match decision {
            Decision::Ack => {
                self.tell(Disposition::Ack, within).await?;
                Ok(Outcome::Settled(Settlement::Acknowledged))
            }
            Decision::Retry(delay) => Ok(Outcome::Open { delay, failure: None }),
            Decision::Reject(reason) => match self.publish_dead_letter(reason, within).await {
                Ok(disposition) => {
                    self.tell(disposition, within).await?;
                    Ok(Outcome::Settled(Settlement::Rejected))
                }
                Err(error) => Ok(Outcome::Open { delay: DEAD_LETTER_BACK_OFF, failure: Some(error) }),
            },
        }
    }

    /// Sends the settlement to the broker, within the context of the work, or the current one if
    /// there was none.
    async fn tell(&mut self, disposition: Disposition, within: Option<&Context>) -> Result<()> {
        let Some(handle) = self.handle.take() else { return Ok(()) };
        let mut span = SettleSpan::start(&self.consumer.telemetry, disposition, within, self.message.partition());
        if let Some(span) = &mut span {
            span.describe(self.message.id(), &*handle);
        }
        let settled = handle.settle(disposition).await.map_err(|error| self.consumer.annotate(error, "settle"));
        if let Some(span) = span {
            span.finish(&settled);
        }
        settled
    }

    /// Publishes the dead letter, if the subscription has a topic for it, and returns the
    /// disposition to send to the broker.
    async fn publish_dead_letter(&self, reason: Reason<'_>, within: Option<&Context>) -> Result<Disposition> {
        match &self.consumer.dead_letters {
            Some(dead_letters) => {
                let context = within.cloned().unwrap_or_else(ambient::current);
                dead_letters.publish(&self.message, reason, &context).await.map(|()| Disposition::Ack)
            }
            None => {
                self.consumer.discarded.tell(&self.consumer.telemetry, &self.message, reason);
                Ok(Disposition::Discard)
            }
        }
    }

    /// Returns the reason for a dead letter: the handler's error, and the number of attempts if the
    /// policy ended them. Empty if the message is not rejected.
    fn reason(&self, verdict: Option<Verdict>, error: Option<&HandlerError>) -> String {
        let (Some(Verdict::Reject), Some(error)) = (verdict, error) else { return String::new() };
        let attempts = self.message.attempt();
        match error.verdict() {
            Verdict::Retry(_) if attempts > 1 => format!("given up after {attempts} attempts: {error}"),
            _ => error.to_string(),
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
            // The settlement is under way already; its answer is not needed.
            drop(handle.settle(Disposition::Retry(Duration::ZERO)));
        }
    }

    fn unsettleable(&self) -> Error {
        let message = "an at-most-once delivery counts as handled already; it cannot be retried or rejected";
        self.consumer.annotate(Error::new(ErrorKind::Unsupported, message), "settle")
    }
}

/// A decision about a delivery.
enum Decision<'a> {
    Ack,
    Retry(Duration),
    Reject(Reason<'a>),
}

impl<'a> Decision<'a> {
    /// Returns the decision that follows from a verdict; `None` is the verdict on a success.
    fn of(verdict: Option<Verdict>, error: Option<&HandlerError>, text: &'a str) -> Self {
        match verdict {
            None => Self::Ack,
            Some(Verdict::Retry(delay)) => Self::Retry(delay),
            Some(Verdict::Reject) => Self::Reject(Reason::of(error, text)),
        }
    }
}

/// The outcome of a decision that was carried out.
enum Outcome {
    Settled(Settlement),
    /// Unsettled, and to be handed out again after the delay; `failure` is the error of publishing
    /// the dead letter.
    Open {
        delay: Duration,
        failure: Option<Error>,
    },
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.handle.is_none() {
            return;
        }
        tracing::warn!(topic = %self.message.topic(), "a delivery was dropped unsettled and will be redelivered");
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

/// Runs a handler within its span, for at most `limit`. A panic becomes an error, and the span
/// records every error.
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

/// An attempt whose handler has run; the delivery is not settled yet, and the span has not ended.
pub(crate) struct Attempt {
    span: ProcessSpan,
    pub(crate) error: Option<HandlerError>,
}

impl Attempt {
    /// Ends the span with the settlement of the delivery.
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

/// The result of an attempt at a delivery whose key keeps its order.
pub(crate) enum Concluded {
    Settled(Processed),
    /// Still unsettled, and due again after this delay.
    Again(Delivery, Duration),
}
