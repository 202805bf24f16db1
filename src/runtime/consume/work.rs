//! One attempt at one message: first the handler, then the settlement.

use std::fmt;
use std::future::{Future, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::settings::{Settings, Unburied};
use crate::broker::{Attempt, Concluded, Decision, Delivery, Processed, Remembered, Settlement};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{HandlerError, Panicked, Received, Topic, Verdict};

/// The settings that the attempts of one consumer share.
pub struct Work<H> {
    pub(super) handler: H,
    pub(super) settings: Settings,
    pub(super) wanted: Option<Arc<Wanted>>,
    /// Ends the handlers that run in tasks of their own.
    pub(super) cancel: CancellationToken,
}

impl<H> fmt::Debug for Work<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A filter that decides if a message is handled.
pub(super) type Wanted = dyn Fn(&Received) -> bool + Send + Sync;

/// A delivery whose handler has run, or did not have to.
pub struct Handled(pub(super) Fate);

impl fmt::Debug for Handled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handled")
    }
}

/// The fate of a delivery before it is settled.
pub(super) enum Fate {
    /// The handler has run; `None` is the verdict on a success.
    Tried(Delivery, Attempt, Option<Verdict>),
    /// The filter does not want the message.
    Skipped(Delivery),
    /// An earlier verdict of this process on the message is still to be carried out.
    Recalled(Delivery, Remembered),
    /// The message was lost before its handler began.
    Lost,
    /// Its task was ended from outside.
    Cancelled,
}

/// The end of an attempt.
#[derive(Debug)]
pub(super) enum End {
    /// Settled, or not if settling failed.
    Settled(Result<Settlement>),
    /// Acknowledged without being handled.
    Skipped,
    /// To be tried again, ahead of the other messages of its key.
    Again(Box<Delivery>, Duration),
    /// The consumer is to stop: a dead letter is refused for good. The message is still unsettled.
    Stop(Box<Delivery>, Decision, Error),
}

/// Runs the handler on the delivery.
pub(super) async fn handle<H, F, T>(job: Arc<Work<H>>, delivery: Delivery) -> Handled
where
    H: Fn(Received) -> F,
    F: Future<Output = Result<T, HandlerError>>,
{
    Handled(try_once(&job, delivery).await)
}

async fn try_once<H, F, T>(job: &Work<H>, mut delivery: Delivery) -> Fate
where
    H: Fn(Received) -> F,
    F: Future<Output = Result<T, HandlerError>>,
{
    if !delivery.may_begin() {
        delivery.let_go();
        return Fate::Lost;
    }
    if let Some(verdict) = delivery.recall().or_else(|| delivery.condemned()) {
        return Fate::Recalled(delivery, verdict);
    }
    if delivery.is_suspect() {
        delivery.begin_trial().await;
        // That may have taken a while.
        if !delivery.may_begin() {
            delivery.let_go();
            return Fate::Lost;
        }
    }
    let attempt = match is_wanted(job.wanted.as_deref(), delivery.message()) {
        Ok(true) => delivery.attempt(&job.handler, job.settings.time_limit).await,
        Ok(false) => return Fate::Skipped(delivery),
        Err(panicked) => delivery.attempt(|_| ready(Err::<(), _>(panicked)), None).await,
    };
    let verdict = attempt.error.as_ref().map(|error| job.settings.verdict(error, &delivery));
    Fate::Tried(delivery, attempt, verdict)
}

/// Asks the filter. A panic in it counts as a failed attempt.
fn is_wanted(wanted: Option<&Wanted>, message: &Received) -> Result<bool, HandlerError> {
    let Some(wanted) = wanted else { return Ok(true) };
    let answer = catch_unwind(AssertUnwindSafe(|| wanted(message)));
    answer.map_err(|panic| HandlerError::retry(Panicked::with(&*panic)))
}

/// Settles the delivery, or buries it. The handler's place is free meanwhile.
pub(super) async fn conclude(fate: Fate, in_order: bool, unburied: Unburied) -> End {
    let (topic, concluded) = match fate {
        Fate::Tried(delivery, attempt, verdict) => {
            let topic = delivery.message().topic().clone();
            (topic, settlement(delivery.conclude(attempt, verdict, in_order).await))
        }
        Fate::Recalled(delivery, remembered) => {
            let topic = delivery.message().topic().clone();
            (topic, delivery.apply(remembered).await)
        }
        Fate::Skipped(delivery) => {
            let topic = delivery.message().topic().clone();
            return match delivery.ack().await {
                Ok(()) => End::Skipped,
                Err(error) => unsettled(&topic, error),
            };
        }
        Fate::Lost | Fate::Cancelled => return End::Settled(Ok(Settlement::None)),
    };
    match concluded {
        Concluded::Settled(Ok(settlement)) => End::Settled(Ok(settlement)),
        Concluded::Settled(Err(error)) => unsettled(&topic, error),
        Concluded::Again(delivery, delay) => End::Again(Box::new(delivery), delay),
        Concluded::Unburied(delivery, decision, error) => match unburied {
            Unburied::Stop => End::Stop(Box::new(delivery), decision, error),
            Unburied::Discard => End::Settled(discard(delivery, &decision, &error).await),
        },
    }
}

fn settlement(concluded: Concluded<Processed>) -> Concluded<Settlement> {
    match concluded {
        Concluded::Settled(result) => Concluded::Settled(result.map(|processed| processed.settlement)),
        Concluded::Again(delivery, delay) => Concluded::Again(delivery, delay),
        Concluded::Unburied(delivery, decision, error) => Concluded::Unburied(delivery, decision, error),
    }
}

/// Discards a message whose dead letter is refused for good, as the consumer is told to.
pub(super) async fn discard(delivery: Delivery, decision: &Decision, error: &Error) -> Result<Settlement> {
    let message = delivery.message();
    tracing::error!(
        topic = %message.topic(), id = message.id(), attempts = message.attempt(), %error,
        "a message is discarded: its dead letter is refused for good"
    );
    delivery.discard(decision).await
}

fn unsettled(topic: &Topic, error: Error) -> End {
    if error.kind() == ErrorKind::Unsupported {
        tracing::warn!(%topic, %error, "a handler failed on an at-most-once subscription");
    } else {
        tracing::warn!(%topic, %error, "a message was not settled; it may come again");
    }
    End::Settled(Err(error))
}
