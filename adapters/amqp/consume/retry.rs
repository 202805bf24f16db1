//! Delayed retries: the message waits at the broker, independent of this program's connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::super::connection::pending;
use super::super::headers::copy::Original;
use super::super::publish::Publisher;
use super::super::topology::waiting::Target;
use super::settle::{Settler, settlement_lost};
use crate::driver::{Confirmation, Disposition};
use crate::error::{ErrorKind, Result};

/// Time to hold a message that could not be stored for later. If it were returned at once, the
/// broker would redeliver it at once.
const PAUSE: Duration = Duration::from_secs(1);

/// The place where messages of a subscription wait for their next attempt.
#[derive(Debug)]
pub(crate) enum RetryTarget {
    /// At the broker, for the group's queue.
    AtBroker(Arc<Publisher>, Target),
    /// In this process, unsettled. The queue of a reader without a group ends with its connection
    /// anyway.
    Here,
}

impl RetryTarget {
    /// Returns the target that is named in messages of this subscription that waited at the broker.
    pub(crate) fn target(&self) -> Option<&Target> {
        match self {
            Self::AtBroker(_, target) => Some(target),
            Self::Here => None,
        }
    }

    /// Arranges for the message to be redelivered after the delay.
    pub(crate) fn retry(
        &self,
        settler: Arc<Settler>,
        tag: u64,
        delay: Duration,
        original: Original,
    ) -> Confirmation<()> {
        if settler.is_over() {
            return Confirmation::ready(Err(settlement_lost()));
        }
        match self {
            Self::AtBroker(publisher, target) => {
                let (publisher, target) = (Arc::clone(publisher), target.clone());
                pending::begin(replace(publisher, target, settler, tag, delay, original))
            }
            Self::Here => {
                give_back_after(delay, &settler, tag);
                Confirmation::ready(Ok(()))
            }
        }
    }
}

/// Publishes a copy to the delay queues, and acknowledges the original once the copy is confirmed.
/// If the process ends in between, the message exists twice, but it is never lost.
async fn replace(
    publisher: Arc<Publisher>,
    target: Target,
    settler: Arc<Settler>,
    tag: u64,
    delay: Duration,
    original: Original,
) -> Result<()> {
    // Held until the original is settled, so that closing waits for it.
    let _place = publisher.copying()?;
    match publisher.keep_copy(&target, delay, &original).await {
        Ok(_) => settler.settle(tag, Disposition::Ack),
        Err(error) => {
            let pause = if error.kind() == ErrorKind::Closed { Duration::ZERO } else { delay.min(PAUSE) };
            give_back_after(pause, &settler, tag);
            Err(error.with_context("message", "returned to its queue: it could not be stored for later"))
        }
    }
}

/// Returns the message to its queue after a pause. It counts as unsettled meanwhile, which bounds
/// the number of such messages. If the channel ends first, the broker redelivers the message.
fn give_back_after(pause: Duration, settler: &Arc<Settler>, tag: u64) {
    let settler = Arc::downgrade(settler);
    tokio::spawn(async move {
        sleep(pause).await;
        if let Some(settler) = settler.upgrade() {
            // An error means that the broker has the message already.
            let _ = settler.settle(tag, Disposition::Retry(Duration::ZERO));
        }
    });
}
