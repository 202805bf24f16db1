//! Copies of messages that go back to their queue.
//!
//! A queue keeps a message as it is, so that a count of attempts is kept by writing the message
//! anew. A copy carries this connection's user, which the broker checks: counts in the headers of a
//! message by another user are not believed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::ErrorKind as ClientErrorKind;
use lapin::types::ShortString;
use tokio::time::Instant;

use super::super::headers::copy::{Copied, Original, Way};
use super::super::topology::delay::Delay;
use super::super::topology::waiting::Target;
use super::Publisher;
use super::channel::{Fate, Publication, PublishChannel};
use crate::error::Result;
use crate::message::Receipt;

/// The name of the default exchange in the broker's refusals; publishing calls it by the empty
/// name.
const DEFAULT_EXCHANGE: &str = "amq.default";

impl Publisher {
    /// Publishes a copy of a message to be delivered again after the delay, with so many attempts.
    pub(in super::super) async fn copy_later(
        &self,
        target: &Target,
        delay: Duration,
        original: &Original,
        attempts: u32,
    ) -> Result<Receipt> {
        Delay::of(delay)?;
        let user = self.user();
        let encode = |channel: &PublishChannel, delay, number| {
            let copied = Copied { way: Way::Delayed(delay), target, attempts, number, user };
            Ok((original.encode(copied, channel.frame_max)?, original.routing_key.clone()))
        };
        let place = self.copies.take()?;
        self.keep(target, Instant::now() + delay, original.payload.clone(), place, encode).await
    }

    /// Publishes a copy of a message straight to its queue, with so many attempts. The default
    /// exchange leads to every queue, so that nothing has to be declared.
    pub(in super::super) async fn copy_now(
        &self,
        queue: &ShortString,
        target: &Target,
        original: &Original,
        attempts: u32,
    ) -> Result<Receipt> {
        let admission = self.refusals.check(DEFAULT_EXCHANGE)?;
        let channel = self.admitted(self.current.get()?, admission).await?;
        let place = self.copies.take()?;
        let number = channel.number();
        let copied = Copied { way: Way::Straight, target, attempts, number, user: self.user() };
        let properties = original.encode(copied, channel.frame_max)?;
        let payload = original.payload.clone();
        let routing_key = queue.clone();
        let publication = Publication { routing_key, properties, payload, number, is_mandatory: true, place };
        let copied = channel.enqueue_at(ShortString::default(), publication, self.refused_copy()).await;
        self.conclude(&channel, admission, DEFAULT_EXCHANGE);
        copied.and_then(Fate::or_error)
    }

    /// Returns `true` if the broker has just refused to let this user publish straight to queues.
    pub(in super::super) fn may_not_copy_now(&self) -> bool {
        self.refusals.is_refused(DEFAULT_EXCHANGE)
    }

    /// Returns `true` if a message with these properties was published by this program's user. If
    /// the server knows the user by another name, there is nothing to compare with.
    pub(in super::super) fn is_by_our_user(&self, properties: &BasicProperties) -> bool {
        self.user().is_none_or(|user| properties.user_id().as_ref().is_some_and(|by| by.as_str() == user))
    }

    /// Returns the user that copies carry.
    fn user(&self) -> Option<&str> {
        (!self.unsigned.load(Ordering::Relaxed)).then_some(self.settings.username.as_str())
    }

    /// Returns the action at a refused copy or delayed message. It also notes that the server knows
    /// the user by another name, as with some of its authentication backends. Later copies go
    /// without a user.
    pub(super) fn refused_copy(&self) -> impl FnOnce(&lapin::Error) + Send + use<> {
        let (unsigned, refusals) = (Arc::clone(&self.unsigned), Arc::clone(&self.refusals));
        move |error| {
            refusals.note(error, false);
            let ClientErrorKind::ProtocolError(refusal) = error.kind() else { return };
            if refusal.get_message().as_str().contains("user_id property") {
                tracing::warn!("the broker knows this user by another name, copies of retried messages go unsigned");
                unsigned.store(true, Ordering::Relaxed);
            }
        }
    }
}
