//! One attempt at one message, from the handler to the settlement.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::lanes::Lane;
use super::retry::Retry;
use crate::delivery::{Concluded, Delivery, Settlement};
use crate::error::{ErrorKind, Result};
use crate::handler::HandlerError;
use crate::received::Received;

/// What the attempts of one consumer have in common.
pub(super) struct Job<H> {
    pub(super) handler: H,
    pub(super) ordered: bool,
    pub(super) time_limit: Option<Duration>,
    pub(super) retry: Retry,
}

/// An attempt that is over.
pub(super) struct Done {
    pub(super) lane: Lane,
    pub(super) end: End,
}

/// How an attempt ended.
pub(super) enum End {
    Handled,
    Retried,
    Rejected,
    /// Failed where nothing can be settled.
    Failed,
    /// The broker will hand it out again: its settlement is lost, or its dead letter could not be published.
    Unsettled,
    /// To be tried again ahead of the others of its key.
    Again(Box<Delivery>, Duration),
    /// Its task was ended from outside.
    Cancelled,
}

impl Done {
    pub(super) fn cancelled() -> Self {
        Self { lane: Lane::default(), end: End::Cancelled }
    }
}

/// Runs the handler on the delivery and settles it.
pub(super) async fn work<H, F, T>(job: Arc<Job<H>>, delivery: Delivery, lane: Lane) -> Done
where
    H: Fn(Received) -> F,
    F: Future<Output = Result<T, HandlerError>>,
{
    let number = delivery.message().attempt();
    let attempt = delivery.attempt(&job.handler, job.time_limit).await;
    let verdict = attempt.error.as_ref().map(|error| job.retry.verdict(error, number));
    let topic = delivery.message().topic().clone();
    let concluded = if job.ordered {
        delivery.conclude_in_order(attempt, verdict).await
    } else {
        delivery.conclude(attempt, verdict).await.map(Concluded::Settled)
    };
    let end = match concluded {
        Ok(Concluded::Again(delivery, delay)) => End::Again(Box::new(delivery), delay),
        Ok(Concluded::Settled(processed)) => match processed.settlement {
            Settlement::Acknowledged | Settlement::None => End::Handled,
            Settlement::Retried => End::Retried,
            Settlement::Rejected => End::Rejected,
        },
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            tracing::warn!(%topic, %error, "a handler failed on an at-most-once subscription");
            End::Failed
        }
        Err(error) => {
            tracing::warn!(%topic, %error, "a message was not settled and comes again");
            End::Unsettled
        }
    };
    Done { lane, end }
}
