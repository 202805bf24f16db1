//! One attempt at one message, from the handler to the settlement.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::settings::Settings;
use crate::broker::{Concluded, Delivery, Settlement};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{HandlerError, Received, Topic};

/// The settings that the attempts of one consumer share.
pub struct Work<H> {
    pub(super) handler: H,
    pub(super) settings: Settings,
    pub(super) wanted: Option<Arc<Wanted>>,
}

impl<H> fmt::Debug for Work<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A filter that decides if a message is handled.
pub(super) type Wanted = dyn Fn(&Received) -> bool + Send + Sync;

/// The end of an attempt.
#[derive(Debug)]
pub enum End {
    /// Settled, or not if settling failed.
    Settled(Result<Settlement>),
    /// Acknowledged without being handled.
    Skipped,
    /// To be tried again, ahead of the other messages of its key.
    Again(Box<Delivery>, Duration),
    /// Its task was ended from outside.
    Cancelled,
}

/// Runs the handler on the delivery and settles it.
pub(super) async fn work<H, F, T>(job: Arc<Work<H>>, delivery: Delivery) -> End
where
    H: Fn(Received) -> F,
    F: Future<Output = Result<T, HandlerError>>,
{
    if job.wanted.as_ref().is_some_and(|wanted| !wanted(delivery.message())) {
        return skip(delivery).await;
    }
    let number = delivery.message().attempt();
    let attempt = delivery.attempt(&job.handler, job.settings.time_limit).await;
    let verdict = attempt.error.as_ref().map(|error| job.settings.retry.verdict(error, number));
    let topic = delivery.message().topic().clone();
    let concluded = if job.settings.ordered {
        delivery.conclude_in_order(attempt, verdict).await
    } else {
        delivery.conclude(attempt, verdict).await.map(Concluded::Settled)
    };
    match concluded {
        Ok(Concluded::Again(delivery, delay)) => End::Again(Box::new(delivery), delay),
        Ok(Concluded::Settled(processed)) => End::Settled(Ok(processed.settlement)),
        Err(error) => unsettled(&topic, error),
    }
}

async fn skip(delivery: Delivery) -> End {
    let topic = delivery.message().topic().clone();
    match delivery.ack().await {
        Ok(()) => End::Skipped,
        Err(error) => unsettled(&topic, error),
    }
}

fn unsettled(topic: &Topic, error: Error) -> End {
    if error.kind() == ErrorKind::Unsupported {
        tracing::warn!(%topic, %error, "a handler failed on an at-most-once subscription");
    } else {
        tracing::warn!(%topic, %error, "a message was not settled; the broker redelivers it");
    }
    End::Settled(Err(error))
}
