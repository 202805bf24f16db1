//! A delivery: processed by a handler, or settled by hand, exactly once.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::Context;

use super::attempt::Attempt;
use super::burial::{Unburied, bury};
use super::consumer::Consumer;
use super::decision::{Decision, Outcome};
use super::held::{HeldDelivery, due_after};
use super::settlement::{Processed, Settlement};
use super::verdicts::Remembered;
use crate::context::ambient;
use crate::driver::{DeliveryHandle, Disposition};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{HandlerError, Received, Verdict};
use crate::telemetry::span::{ProcessSpan, SettleSpan};

/// Time after which a message comes again whose dead letter the broker refuses for good.
const UNBURIED_BACK_OFF: Duration = Duration::from_secs(5);

/// Delay of the first retry of a message that is processed without a policy. It doubles with each
/// attempt, up to the longest.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// A delivery: a message that was handed out and is settled once, by value.
///
/// [`process`](Self::process) is the usual way: it makes the process span current for a handler and
/// settles the message by the handler's result. Dropping an unsettled delivery logs a warning, and
/// the message is redelivered, to this consumer or another: at once and without counting an
/// attempt, or, if a handler has begun, as after a failure.
#[must_use = "a delivery that is dropped unsettled is redelivered"]
pub struct Delivery {
    message: Received,
    /// `None` once settled, and from the start on an at-most-once subscription.
    handle: Option<Box<dyn DeliveryHandle>>,
    consumer: Arc<Consumer>,
    /// `true` once a handler has begun.
    is_begun: bool,
}

impl Delivery {
    pub(crate) fn new(message: Received, handle: Option<Box<dyn DeliveryHandle>>, consumer: Arc<Consumer>) -> Self {
        Self { message, handle, consumer, is_begun: false }
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
    /// An error means that settling failed: [`ErrorKind::SettlementLost`] if the delivery's
    /// connection is gone, so that the broker redelivers the message; [`ErrorKind::Unsupported`]
    /// for a retry or reject on an at-most-once subscription; or the error of a dead letter that the
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
        let attempt = delivery.attempt(handler, None).await;
        let verdict = attempt.error.as_ref().map(|error| match error.verdict() {
            Verdict::Retry(Duration::ZERO) => Verdict::Retry(back_off(delivery.message.attempt)),
            verdict => verdict,
        });
        delivery.conclude(attempt, verdict, false).await.by_hand()
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
    /// The errors of [`ack`](Self::ack), and [`ErrorKind::Unsupported`] on an at-most-once
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

    /// Settles by the verdict on `error`, `None` for a success; dead letters are published within
    /// `context`.
    pub(crate) async fn settle_by(
        mut self,
        verdict: Option<Verdict>,
        error: Option<&HandlerError>,
        context: &Context,
    ) -> Concluded<Settlement> {
        self.is_begun = true;
        let decision = Decision::of(verdict, error, self.message.attempt);
        let outcome = match self.carry_out(&decision, Some(context)).await {
            Ok(Outcome::Open(delay)) => self.send_back(delay, context).await,
            outcome => outcome,
        };
        match outcome {
            Ok(Outcome::Settled(settlement)) => Concluded::Settled(Ok(settlement)),
            Ok(Outcome::Unburied(error)) => Concluded::Unburied(self, decision, error),
            Ok(Outcome::Open(delay)) => Concluded::Again(self, delay),
            Err(error) => Concluded::Settled(Err(error)),
        }
    }

    /// Settles by hand.
    async fn settle(&mut self, decision: Decision, within: Option<&Context>) -> Result<()> {
        match self.carry_out(&decision, within).await? {
            Outcome::Settled(_) => Ok(()),
            Outcome::Open(delay) => self.send_back_within(delay, within).await.map(drop),
            Outcome::Unburied(error) => Err(self.keep_unburied(decision, error)),
        }
    }

    async fn send_back(&mut self, delay: Duration, within: &Context) -> Result<Outcome> {
        self.send_back_within(delay, Some(within)).await
    }

    /// Makes the broker redeliver the message after the delay; holds it here if the broker cannot.
    async fn send_back_within(&mut self, delay: Duration, within: Option<&Context>) -> Result<Outcome> {
        if self.consumer.capabilities.retries_natively(delay) {
            self.tell(Disposition::Retry(delay), within).await?;
        } else {
            self.hold(delay, self.message.attempt.saturating_add(1));
        }
        Ok(Outcome::Settled(Settlement::Retried))
    }

    /// Carries out a decision as far as it ends the delivery. A retry leaves it open, and so does a
    /// dead letter that the broker refuses for good.
    ///
    /// A verdict that does not reach the broker is remembered for the next delivery of the message
    /// to this process.
    async fn carry_out(&mut self, decision: &Decision, within: Option<&Context>) -> Result<Outcome> {
        if self.handle.is_none() {
            return match decision {
                Decision::Ack => Ok(Outcome::Settled(Settlement::None)),
                Decision::Retry(_) | Decision::Reject { .. } => Err(self.unsettleable()),
            };
        }
        if self.message.is_lost() {
            self.remember(decision.remembered());
            return Err(self.lost());
        }
        match decision {
            Decision::Ack => {
                self.tell(Disposition::Ack, within).await?;
                Ok(Outcome::Settled(Settlement::Acknowledged))
            }
            Decision::Retry(delay) => Ok(Outcome::Open(*delay)),
            Decision::Reject { .. } => match self.bury(decision, within).await {
                Ok(disposition) => {
                    self.tell(disposition, within).await?;
                    Ok(Outcome::Settled(Settlement::Rejected))
                }
                Err(Unburied::Refused(error)) => Ok(Outcome::Unburied(error)),
                Err(Unburied::Lost) => {
                    self.remember(decision.remembered());
                    Err(self.lost())
                }
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
        if settled.is_err() && matches!(disposition, Disposition::Ack | Disposition::Discard) {
            self.remember(Some(Remembered::Done));
        }
        settled
    }

    /// Publishes the dead letter, if the subscription has a topic for it, and returns the
    /// disposition to send to the broker.
    async fn bury(&self, decision: &Decision, within: Option<&Context>) -> Result<Disposition, Unburied> {
        let Some(dead_letters) = &self.consumer.dead_letters else { return Ok(Disposition::Discard) };
        let context = within.cloned().unwrap_or_else(ambient::current);
        bury(dead_letters, &self.message, decision.reason(), &context).await.map(|()| Disposition::Ack)
    }

    fn remember(&self, verdict: Option<Remembered>) {
        verdict.into_iter().for_each(|verdict| self.consumer.verdicts.remember(&self.message.parts, verdict));
    }

    /// Keeps a message whose dead letter the broker refuses for good. When it comes again, only its
    /// burial is tried again.
    fn keep_unburied(&mut self, decision: Decision, error: Error) -> Error {
        self.remember(decision.remembered());
        if self.consumer.capabilities.retries_natively(UNBURIED_BACK_OFF) {
            self.handle
                .take()
                .into_iter()
                .for_each(|handle| drop(handle.settle(Disposition::Retry(UNBURIED_BACK_OFF))));
        } else {
            self.hold(UNBURIED_BACK_OFF, self.message.attempt);
        }
        error.with_context("message", "kept, because its dead letter is refused; the burial is tried again")
    }

    /// Gives back a message whose dead letter the broker refuses for good, because its consumer
    /// stops.
    pub(crate) fn leave_unburied(mut self, decision: Decision) {
        self.remember(decision.remembered());
        self.is_begun = false;
        self.hand_back();
    }

    /// Discards a message whose dead letter the broker refuses for good.
    pub(crate) async fn discard(mut self) -> Result<Settlement> {
        self.tell(Disposition::Discard, None).await.map(|()| Settlement::Rejected)
    }

    fn hold(&mut self, delay: Duration, attempt: u32) {
        if let Some(handle) = self.handle.take() {
            if attempt > self.message.attempt {
                handle.failed(attempt - 1);
            }
            let parts = Arc::clone(&self.message.parts);
            self.consumer.held.hold(HeldDelivery { parts, attempt, handle }, due_after(delay));
        }
    }

    /// Gives the message back: after a failure if a handler has begun, otherwise as if it had never
    /// been handed out. The settlement is under way then; its answer is not needed.
    fn hand_back(&mut self) {
        let attempt = self.message.attempt;
        let (disposition, delay, next) = match self.is_begun {
            true => (Disposition::Retry(back_off(attempt)), back_off(attempt), attempt.saturating_add(1)),
            false => (Disposition::GiveBack, Duration::ZERO, attempt),
        };
        if !self.consumer.capabilities.retries_natively(delay) {
            self.hold(delay, next);
        } else if let Some(handle) = self.handle.take() {
            drop(handle.settle(disposition));
        }
    }

    fn lost(&self) -> Error {
        let message = "the message no longer belongs to this consumer and is redelivered";
        self.consumer.annotate(Error::new(ErrorKind::SettlementLost, message), "settle")
    }

    fn unsettleable(&self) -> Error {
        let message = "an at-most-once delivery counts as handled already; it cannot be retried or rejected";
        self.consumer.annotate(Error::new(ErrorKind::Unsupported, message), "settle")
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

/// Returns the delay before the next attempt of a message that is processed without a policy.
fn back_off(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    (FIRST_BACK_OFF * (1 << doublings)).min(LONGEST_BACK_OFF)
}
