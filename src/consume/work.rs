//! One attempt at one message, from the handler to the settlement.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::retry::Retry;
use crate::address::Topic;
use crate::delivery::{Concluded, Delivery, Settlement};
use crate::error::{Error, ErrorKind, Result};
use crate::handler::HandlerError;
use crate::received::Received;

/// What the attempts of one consumer have in common.
pub(super) struct Job<H> {
    pub(super) handler: H,
    pub(super) ordered: bool,
    pub(super) time_limit: Option<Duration>,
    pub(super) retry: Retry,
    pub(super) wanted: Option<Arc<Wanted>>,
}

/// Whether a message is to be handled.
pub(super) type Wanted = dyn Fn(&Received) -> bool + Send + Sync;

/// How an attempt ended.
pub(super) enum End {
    Handled,
    /// Acknowledged without being handled.
    Skipped,
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

/// Runs the handler on the delivery and settles it.
pub(super) async fn work<H, F, T>(job: Arc<Job<H>>, delivery: Delivery) -> End
where
    H: Fn(Received) -> F,
    F: Future<Output = Result<T, HandlerError>>,
{
    if job.wanted.as_ref().is_some_and(|wanted| !wanted(delivery.message())) {
        return skip(delivery).await;
    }
    let number = delivery.message().attempt();
    let attempt = delivery.attempt(&job.handler, job.time_limit).await;
    let verdict = attempt.error.as_ref().map(|error| job.retry.verdict(error, number));
    let topic = delivery.message().topic().clone();
    let concluded = if job.ordered {
        delivery.conclude_in_order(attempt, verdict).await
    } else {
        delivery.conclude(attempt, verdict).await.map(Concluded::Settled)
    };
    match concluded {
        Ok(Concluded::Again(delivery, delay)) => End::Again(Box::new(delivery), delay),
        Ok(Concluded::Settled(processed)) => match processed.settlement {
            Settlement::Acknowledged | Settlement::None => End::Handled,
            Settlement::Retried => End::Retried,
            Settlement::Rejected => End::Rejected,
        },
        Err(error) => unsettled(&topic, &error),
    }
}

async fn skip(delivery: Delivery) -> End {
    let topic = delivery.message().topic().clone();
    match delivery.ack().await {
        Ok(()) => End::Skipped,
        Err(error) => unsettled(&topic, &error),
    }
}

fn unsettled(topic: &Topic, error: &Error) -> End {
    if error.kind() == ErrorKind::Unsupported {
        tracing::warn!(%topic, %error, "a handler failed on an at-most-once subscription");
        return End::Failed;
    }
    tracing::warn!(%topic, %error, "a message was not settled and comes again");
    End::Unsettled
}
