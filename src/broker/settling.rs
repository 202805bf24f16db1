//! Settling a delivery by a decision: at the broker, by a burial, or by keeping it in this process.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;

use super::burial::{BurialError, bury};
use super::decision::{Decision, Outcome};
use super::delivery::{Concluded, Delivery};
use super::held::{HeldDelivery, back_off, due_after};
use super::settlement::Settlement;
use super::verdicts::Remembered;
use crate::context::ambient;
use crate::driver::Disposition;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{HandlerError, Verdict};
use crate::telemetry::span::SettleSpan;

/// Time after which a message comes again whose dead letter the broker refuses for good.
const UNBURIED_BACK_OFF: Duration = Duration::from_secs(5);

impl Delivery {
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
    pub(super) async fn settle(&mut self, decision: Decision, within: Option<&Context>) -> Result<()> {
        match self.carry_out(&decision, within).await? {
            Outcome::Settled(_) => Ok(()),
            Outcome::Open(delay) => self.send_back_within(delay, within).await.map(drop),
            Outcome::Unburied(error) => Err(self.keep_unburied(decision, error)),
        }
    }

    pub(super) async fn send_back(&mut self, delay: Duration, within: &Context) -> Result<Outcome> {
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
    pub(super) async fn carry_out(&mut self, decision: &Decision, within: Option<&Context>) -> Result<Outcome> {
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
            Decision::Retry(_) if !self.may_begin() => Err(self.lost()),
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
                Err(BurialError::Refused(error)) => Ok(Outcome::Unburied(error)),
                Err(BurialError::Lost) => {
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
    async fn bury(&self, decision: &Decision, within: Option<&Context>) -> Result<Disposition, BurialError> {
        let Some(dead_letters) = &self.consumer.dead_letters else {
            self.consumer.discarded.tell(&self.consumer.telemetry, &self.message, decision.reason());
            return Ok(Disposition::Discard);
        };
        let context = within.cloned().unwrap_or_else(ambient::current);
        bury(dead_letters, &self.message, decision.reason(), &context).await.map(|()| Disposition::Ack)
    }

    fn remember(&self, verdict: Option<Remembered>) {
        verdict.into_iter().for_each(|verdict| self.consumer.verdicts.remember(&self.message.parts, verdict));
    }

    /// Keeps a message whose dead letter the broker refuses for good. When it comes again, only its
    /// burial is tried again.
    pub(super) fn keep_unburied(&mut self, decision: Decision, error: Error) -> Error {
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
    pub(crate) async fn discard(mut self, decision: &Decision) -> Result<Settlement> {
        self.consumer.telemetry.discard(&self.message, decision.reason().error_type);
        self.tell(Disposition::Discard, None).await.map(|()| Settlement::Rejected)
    }

    fn hold(&mut self, delay: Duration, attempt: u32) {
        self.wait_here();
        let seat = self.seat.take();
        if let Some(handle) = self.handle.take() {
            // Let go of, because another consumer gets the message.
            if !self.message.parts.tenure.may_begin() {
                return;
            }
            if attempt > self.message.attempt {
                handle.failed(attempt - 1);
            }
            let parts = Arc::clone(&self.message.parts);
            self.consumer.held.hold(HeldDelivery { parts, attempt, handle, seat }, due_after(delay));
        }
    }

    /// Gives the message back: after a failure if a handler has begun, otherwise as if it had never
    /// been handed out. The settlement is under way then; its answer is not needed.
    pub(super) fn hand_back(&mut self) {
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

    pub(super) fn lost(&self) -> Error {
        let message = "the message no longer belongs to this consumer and is redelivered";
        self.consumer.annotate(Error::new(ErrorKind::SettlementLost, message), "settle")
    }

    fn unsettleable(&self) -> Error {
        let message = "an at-most-once delivery counts as handled already; it cannot be retried or rejected";
        self.consumer.annotate(Error::new(ErrorKind::Unsupported, message), "settle")
    }
}
