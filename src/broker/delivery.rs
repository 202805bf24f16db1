//! A delivery: processed by a handler, or settled by hand, exactly once.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::Context;

use super::attempt::Attempt;
use super::consumer::Consumer;
use super::decision::{Decision, Outcome};
use super::held::back_off;
use super::settlement::{Processed, Settlement};
use super::verdicts::Remembered;
use super::waiting::Seat;
use crate::context::ambient;
use crate::driver::DeliveryHandle;
use crate::error::{Error, Result};
use crate::message::{HandlerError, Received, Verdict};
use crate::telemetry::span::ProcessSpan;

/// A delivery: a message that was handed out and is settled once, by value.
///
/// [`process`](Self::process) is the usual way: it makes the process span current for a handler and
/// settles the message by the handler's result. Dropping an unsettled delivery logs a warning, and
/// the message is redelivered, to this consumer or another: at once and without counting an
/// attempt, or, if a handler has begun, as after a failure.
#[must_use = "a delivery that is dropped unsettled is redelivered"]
pub struct Delivery {
    pub(super) message: Received,
    /// `None` once settled, and from the start on an at-most-once subscription.
    pub(super) handle: Option<Box<dyn DeliveryHandle>>,
    pub(super) consumer: Arc<Consumer>,
    /// `true` once a handler has begun.
    pub(super) is_begun: bool,
    /// Its part in the account of what waits in this process, if it has waited.
    pub(super) seat: Option<Seat>,
}

impl Delivery {
    pub(crate) fn new(message: Received, handle: Option<Box<dyn DeliveryHandle>>, consumer: Arc<Consumer>) -> Self {
        Self { message, handle, consumer, is_begun: false, seat: None }
    }

    /// Counts the delivery among those that wait in this process.
    pub(crate) fn wait_here(&mut self) {
        if self.seat.is_none()
            && let Some(handle) = &self.handle
        {
            self.seat = Some(self.consumer.waiting.seat(&self.message, &**handle));
        }
    }

    /// Returns `true` if so many messages wait in this process that others are held up.
    pub(crate) fn is_crowded(&self) -> bool {
        self.consumer.waiting.is_full()
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
    /// acknowledges, an error retries or rejects as its [`Verdict`] says, a panic retries. A retry
    /// without a delay of its own comes after 100 ms, and twice as late with each attempt, up to
    /// 30 s; there is no last attempt. [`consume`](crate::TracedBrokerExt::consume) has a policy.
    ///
    /// A verdict of this process on the same message that did not reach the broker is applied
    /// first, without running the handler again.
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
    /// An error means that settling failed: `ErrorKind::SettlementLost` if the delivery's
    /// connection is gone, so that the broker redelivers the message; `ErrorKind::Unsupported` for
    /// a retry or reject on an at-most-once subscription; or the error of a dead letter that the
    /// broker refuses for good, after which the message is kept, and its burial is tried again when
    /// it comes again. The handler's own error is in [`Processed::error`].
    pub async fn process<H, F, T>(self, handler: H) -> Result<Processed>
    where
        H: FnOnce(Received) -> F,
        F: Future<Output = Result<T, HandlerError>>,
    {
        let mut delivery = self;
        if let Some(remembered) = delivery.recall() {
            let settlement = delivery.apply(remembered).await.by_hand()?;
            return Ok(Processed { settlement, error: None });
        }
        delivery.begin_trial().await;
        let attempt = delivery.attempt(handler, None).await;
        let verdict = attempt.error.as_ref().map(|error| match error.verdict() {
            Verdict::Retry(Duration::ZERO) => Verdict::Retry(back_off(delivery.message.attempt)),
            verdict => verdict,
        });
        delivery.conclude(attempt, verdict, false).await.by_hand()
    }

    /// Returns `true` if a handler may begin on the message. It may not if the message is another
    /// consumer's, or is about to be.
    pub(crate) fn may_begin(&self) -> bool {
        self.message.parts.tenure.may_begin()
    }

    /// Lets go of a delivery that may not begin: it is redelivered elsewhere.
    pub(crate) fn let_go(mut self) {
        drop(self.handle.take());
    }

    /// Takes the verdict on this message that an earlier delivery to this process did not bring to
    /// the broker.
    pub(crate) fn recall(&mut self) -> Option<Remembered> {
        let parts = &self.message.parts;
        let is_replay = self.consumer.replayed.covers(parts.timestamp.map(|stored| stored.time));
        self.consumer.verdicts.recall(parts).filter(|_| !is_replay)
    }

    /// Carries out a remembered verdict.
    pub(crate) async fn apply(mut self, remembered: Remembered) -> Concluded<Settlement> {
        let decision = Decision::from(remembered);
        match self.carry_out(&decision, None).await {
            Ok(Outcome::Settled(settlement)) => Concluded::Settled(Ok(settlement)),
            Ok(Outcome::Unburied(error)) => Concluded::Unburied(self, decision, error),
            Ok(Outcome::Open(delay)) => Concluded::Again(self, delay),
            Err(error) => Concluded::Settled(Err(error)),
        }
    }

    /// Runs `handler` inside a process span, for at most `limit`; the attempt must then be
    /// [concluded](Self::conclude).
    pub(crate) async fn attempt<H, F, T>(&mut self, handler: H, limit: Option<Duration>) -> Attempt
    where
        H: FnOnce(Received) -> F,
        F: Future<Output = Result<T, HandlerError>>,
    {
        self.is_begun = true;
        Attempt::run(self.start_span(), self.message.clone(), handler, limit).await
    }

    /// Settles by the verdict on an attempt and ends its span; `None` is the verdict on a success.
    ///
    /// A delivery to be tried again that is `in_order` stays in hand, unsettled, so that no other
    /// message gets ahead of it.
    pub(crate) async fn conclude(
        mut self,
        attempt: Attempt,
        verdict: Option<Verdict>,
        in_order: bool,
    ) -> Concluded<Processed> {
        let decision = Decision::of(verdict, attempt.error.as_ref(), self.message.attempt);
        let outcome = match self.carry_out(&decision, Some(attempt.span.context())).await {
            Ok(Outcome::Open(delay)) if !in_order => self.send_back(delay, attempt.span.context()).await,
            outcome => outcome,
        };
        match outcome {
            Ok(Outcome::Settled(settlement)) => Concluded::Settled(attempt.end(Ok(settlement))),
            Err(error) => Concluded::Settled(attempt.end(Err(error))),
            Ok(Outcome::Open(delay)) => {
                attempt.span.finish(Settlement::Retried.as_str());
                self.message.attempt = self.message.attempt.saturating_add(1);
                self.message.queued = None;
                self.message.handed_out = Instant::now();
                if let Some(handle) = &self.handle {
                    handle.failed(self.message.attempt - 1);
                }
                Concluded::Again(self, delay)
            }
            Ok(Outcome::Unburied(error)) => {
                // The span tells; the message is still in hand.
                let told = Err(Error::new(error.kind(), error.to_string()));
                drop(attempt.end(told));
                Concluded::Unburied(self, decision, error)
            }
        }
    }

    /// Gives back a delivery that no handler has begun on, without counting an attempt.
    pub(crate) fn give_back(mut self) {
        if self.consumer.capabilities.retries_natively(Duration::ZERO) {
            self.hand_back();
        } else {
            // Not kept for another attempt here: the consumer stops.
            drop(self.handle.take());
        }
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
    /// `ErrorKind::SettlementLost` if the message can no longer be settled and is redelivered.
    pub async fn ack(mut self) -> Result<()> {
        self.settle(Decision::Ack, None).await
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
    /// The errors of [`ack`](Self::ack), and `ErrorKind::Unsupported` on an at-most-once
    /// subscription.
    pub async fn retry(mut self, delay: Duration) -> Result<()> {
        self.settle(Decision::Retry(delay), None).await
    }

    /// Rejects the message: copies it to the subscription's dead-letter topic, if it names one, and
    /// then settles it.
    ///
    /// The copy keeps key, payload and headers, and so the creation context; [additional
    /// headers](crate::names::header::DEAD_LETTER) hold the reason. While the copy cannot be
    /// published, its publish is repeated, with pauses of up to 30 s.
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
    /// The errors of [`retry`](Self::retry), and the error of a dead letter that the broker refuses
    /// for good. The message is then kept, and its burial is tried again when it comes again.
    pub async fn reject(mut self, reason: &str) -> Result<()> {
        let decision = Decision::Reject { text: reason.to_owned(), error_type: None };
        self.settle(decision, Some(&ambient::current())).await
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
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.handle.is_none() || self.message.is_lost() {
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

/// The end of a delivery's conclusion.
pub(crate) enum Concluded<T> {
    /// Settled, or lost.
    Settled(Result<T>),
    /// Still unsettled, and due again after this delay.
    Again(Delivery, Duration),
    /// Still unsettled: the broker refuses its dead letter for good.
    Unburied(Delivery, Decision, Error),
}

impl<T> Concluded<T> {
    /// Returns the result for a caller that settles by hand: a delivery that is still open is kept
    /// and comes again.
    fn by_hand(self) -> Result<T> {
        match self {
            Self::Settled(result) => result,
            Self::Unburied(mut delivery, decision, error) => Err(delivery.keep_unburied(decision, error)),
            Self::Again(delivery, _) => Err(delivery.lost()),
        }
    }
}
