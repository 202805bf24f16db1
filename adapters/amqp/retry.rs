//! Retrying a message later: it waits at the broker, and no connection of ours is needed for it to come back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::copy::Original;
use super::pending;
use super::publish::Publisher;
use super::settle::{Settler, settlement_lost};
use super::waiting::Target;
use crate::driver::{Confirmation, Disposition};
use crate::error::{ErrorKind, Result};

/// How long a message that could not be put aside is kept before it is given back: it would come again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Where messages of a subscription wait for their next attempt.
#[derive(Debug)]
pub(super) enum Later {
    /// At the broker, for the group's queue.
    AtBroker(Arc<Publisher>, Target),
    /// Here, unsettled. The queue of a reader without a group does not outlive its connection either.
    Here,
}

impl Later {
    /// What the messages of this subscription that waited at the broker say they waited for.
    pub(super) fn target(&self) -> Option<&Target> {
        match self {
            Self::AtBroker(_, target) => Some(target),
            Self::Here => None,
        }
    }

    /// Has the message delivered again after the delay.
    pub(super) fn retry(
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

/// Puts a copy where it waits, and acknowledges the original once the copy is confirmed: if anything ends in between, there are two,
/// never none.
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
            Err(error.with_context("message", "given back to its queue: it could not be stored for later"))
        }
    }
}

/// The message counts as unsettled meanwhile, which bounds how many there are. If the channel ends first, the broker has it back.
fn give_back_after(pause: Duration, settler: &Arc<Settler>, tag: u64) {
    let settler = Arc::downgrade(settler);
    tokio::spawn(async move {
        sleep(pause).await;
        if let Some(settler) = settler.upgrade() {
            // Lost means that it is back already.
            let _ = settler.settle(tag, Disposition::Retry(Duration::ZERO));
        }
    });
}
