//! Dead letters that no queue takes, where only those are parked.
//!
//! The broker could do this by an alternate exchange. But the arguments of an exchange cannot be
//! changed, and every program that declares it needs the same ones. So the broker returns such a
//! letter, and it is published once more to the exchange that leads to its queue alone.

use std::sync::Arc;

use lapin::types::ShortString;

use super::Publisher;
use super::channel::{Fate, PublishChannel};
use crate::driver::Outbound;
use crate::error::{Error, ErrorKind, PublishOutcome, Result};
use crate::message::Topic;

impl Publisher {
    /// Returns the exchange for messages of this topic that no queue takes, if they are parked.
    pub(super) fn parking(&self, topic: &str) -> Option<ShortString> {
        self.dead_letters.parking(topic)
    }

    /// Returns `true` if a message with this answer is to be parked.
    pub(super) fn is_to_park(&self, topic: &str, answer: &Result<Fate>) -> bool {
        answer.as_ref().is_err_and(is_unrouted) && self.parking(topic).is_some()
    }

    /// Parks a message if no queue has taken it. Returns its answer.
    pub(super) async fn parked(
        &self,
        channel: &Arc<PublishChannel>,
        topic: &Topic,
        message: &Outbound,
        answer: Result<Fate>,
    ) -> Result<Fate> {
        match (answer, self.parking(topic)) {
            (Err(error), Some(exchange)) if is_unrouted(&error) => {
                let publication = self.publication(channel, message, true)?;
                channel.enqueue_at(exchange, publication, self.refused_copy()).await
            }
            (answer, _) => answer,
        }
    }
}

/// Returns `true` if no queue took the message.
fn is_unrouted(error: &Error) -> bool {
    error.kind() == ErrorKind::Rejected && error.publish_outcome() == PublishOutcome::NotSent
}
