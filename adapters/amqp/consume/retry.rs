//! Retries, and other messages that go back to their queue.
//!
//! A retried message is copied, because its queue cannot count attempts: the copy names their
//! number, and the original is acknowledged once the copy is confirmed. If the process ends in
//! between, the message exists twice, but it is never lost.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use lapin::message::Delivery;
use lapin::types::ShortString;
use tokio::time::sleep;

use super::super::connection::engine::Engine;
use super::super::connection::link::closed;
use super::super::connection::pending;
use super::super::headers::copy::Original;
use super::super::headers::incoming::{Decoded, delivery_count};
use super::super::publish::Publisher;
use super::super::topology::waiting::{Target, is_for_delays};
use super::settle::{Settler, settlement_lost};
use crate::driver::{Confirmation, Inbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

/// Maximum time for which a message that is too large to be copied is kept here before a retry.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Number of times that a copy is published again after the broker refused it, and the pause
/// before.
const MAX_REFUSALS: u32 = 10;
const REFUSED: Duration = Duration::from_millis(100);

/// Time to hold a message that could not be copied. If it were returned at once, the broker would
/// redeliver it at once.
const PAUSE: Duration = Duration::from_secs(1);

/// The queue of a subscription, as the place to which its messages go back.
#[derive(Debug)]
pub(crate) struct RetryTarget {
    publisher: Arc<Publisher>,
    engine: Arc<Engine>,
    queue: ShortString,
    target: Target,
    /// The target as messages name it that were copied for this queue.
    label: String,
    /// `true` for the queue of a reader without a group, which ends with its connection.
    is_temporary: bool,
    /// The number of times that the broker returns a message before it drops it.
    delivery_limit: Option<u32>,
    frame_max: usize,
}

/// A message as it arrived.
pub(crate) struct Arrived {
    pub(crate) decoded: Decoded,
    pub(crate) original: Original,
    /// The number of deliveries with this one, if the broker counts them.
    pub(crate) deliveries: Option<u32>,
    /// `true` if a copy is to take the message's place before it is handed out: the broker would
    /// drop it if the connection ended.
    pub(crate) is_worn_out: bool,
    /// `true` if the message may be the one that ends the process of its handler. Of a queue that
    /// does not count deliveries, any message may be that was delivered before.
    pub(crate) is_suspect: bool,
}

impl RetryTarget {
    pub(crate) fn new(
        publisher: Arc<Publisher>,
        engine: Arc<Engine>,
        queue: ShortString,
        is_temporary: bool,
        delivery_limit: Option<u32>,
        frame_max: usize,
    ) -> Self {
        let target = Target::Queue(queue.as_str().to_owned());
        let label = target.to_string();
        Self { publisher, engine, queue, target, label, is_temporary, delivery_limit, frame_max }
    }

    /// Reads a message and its counts.
    pub(crate) fn read(&self, delivery: Delivery) -> Arrived {
        let returned = self.returned(&delivery);
        let Delivery { exchange, properties, data, redelivered, .. } = delivery;
        let is_straight = exchange.as_str().is_empty() && delivery.routing_key == self.queue;
        let is_ours = (is_straight || is_for_delays(exchange.as_str())) && self.publisher.is_by_our_user(&properties);
        let mut decoded = Decoded::read(&properties, &self.label, is_ours);
        let copied_from = if is_straight { decoded.copied_from() } else { None };
        let routing_key = copied_from.unwrap_or(delivery.routing_key);
        let earlier = decoded.delivered_earlier.saturating_add(1);
        let known = returned.unwrap_or(1).saturating_add(earlier);
        let can_be_copied = Original::fits(&properties, self.frame_max);
        let attempt = if can_be_copied { decoded.tried_before.saturating_add(1) } else { known };
        let is_last = self.is_last(returned.unwrap_or(0));
        let payload = Bytes::from(data);
        let properties = Arc::new(properties);
        let original = Original { properties, routing_key, payload, attempt, failed: None, deliveries: known, is_last };
        let deliveries = returned.map(|returned| returned.saturating_add(earlier)).filter(|_| !self.is_temporary);
        let is_worn_out = is_last && can_be_copied && returned.is_some_and(|returned| returned > 0);
        let suspicious = |deliveries| Inbound::is_suspicious(attempt, deliveries);
        let is_suspect = !self.is_temporary && deliveries.map_or(redelivered, suspicious);
        Arrived { decoded, original, deliveries, is_worn_out, is_suspect }
    }

    /// Returns the number of times that the message was returned to the queue, as far as it counts
    /// them. The header is read only if the broker marks the message as redelivered, because any
    /// publisher can write it.
    fn returned(&self, delivery: &Delivery) -> Option<u32> {
        if delivery.redelivered { delivery_count(&delivery.properties) } else { Some(0) }
    }

    fn is_last(&self, returned: u32) -> bool {
        self.delivery_limit.is_some_and(|limit| returned >= limit)
    }

    /// Arranges for the message to be redelivered after the delay, with one more attempt.
    pub(crate) fn retry(
        self: &Arc<Self>,
        settler: Arc<Settler>,
        tag: u64,
        delay: Duration,
        original: Original,
    ) -> Confirmation<()> {
        if !settler.holds(tag) {
            return Confirmation::ready(Err(settlement_lost()));
        }
        if delay.is_zero() && !Original::fits(&original.properties, self.frame_max) {
            // Only the queue can count its attempts.
            return Confirmation::ready(settler.refuse(tag));
        }
        if self.is_temporary && !delay.is_zero() {
            // The queue would be gone before the delay queues hand the message on.
            settler.note_failed(tag, original.attempt, &original);
            self.put_back(&settler, tag, delay, original, Counted::Attempt);
            return Confirmation::ready(Ok(()));
        }
        pending::begin(Arc::clone(self).replace(settler, tag, delay, original))
    }

    /// Returns a message to its queue as it is. One that the broker would drop, or on which
    /// attempts failed in this process, is copied instead.
    pub(crate) fn give_back(self: &Arc<Self>, settler: &Arc<Settler>, tag: u64, original: Original) -> Result<()> {
        if let Some(failed) = settler.take_failed(tag) {
            self.put_back(settler, tag, Duration::ZERO, *failed, Counted::Failed);
            return Ok(());
        }
        if !original.is_last {
            return settler.give_back(tag);
        }
        if !settler.holds(tag) {
            return Err(settlement_lost());
        }
        self.put_back(settler, tag, Duration::ZERO, original, Counted::Nothing);
        Ok(())
    }

    /// Returns a message to its queue that was fetched and not handed out.
    pub(crate) fn give_back_fetched(self: &Arc<Self>, settler: &Arc<Settler>, delivery: Delivery) {
        let tag = delivery.delivery_tag;
        if !self.is_last(self.returned(&delivery).unwrap_or(0)) {
            settler.requeue(tag);
            return;
        }
        settler.deliver(tag, std::time::Instant::now(), true);
        // An error means that the broker has the message already.
        let _ = self.give_back(settler, tag, self.read(delivery).original);
    }

    async fn replace(
        self: Arc<Self>,
        settler: Arc<Settler>,
        tag: u64,
        delay: Duration,
        original: Original,
    ) -> Result<()> {
        // Held until the original is settled, so that closing waits for it.
        let _place = self.publisher.copying()?;
        let mut refusals = 0;
        let error = loop {
            let copied = if delay.is_zero() {
                self.copy_now(&original, Counted::Attempt).await
            } else {
                self.publisher.copy_later(&self.target, delay, &original, original.attempt).await
            };
            match copied {
                Ok(_) => return settler.ack(tag),
                // A queue that was just declared refuses messages until its members have a leader.
                Err(error) if is_refusal(&error) && refusals < MAX_REFUSALS => refusals += 1,
                Err(error) => break error,
            }
            tokio::time::sleep(REFUSED).await;
        };
        if error.kind() == ErrorKind::TooLarge {
            // Kept here until it is due, and returned as it is: the broker's count goes up.
            self.put_back(&settler, tag, delay.min(LONGEST_WAIT), original, Counted::Attempt);
            return Ok(());
        }
        let pause = if error.kind() == ErrorKind::Closed { Duration::ZERO } else { PAUSE };
        self.put_back(&settler, tag, pause, original, Counted::Attempt);
        Err(error.with_context("message", "returned to its queue: it could not be stored for later"))
    }

    /// Copies the message to its queue. If the user may not publish straight to queues, the copy
    /// takes the way of the shortest delay.
    async fn copy_now(&self, original: &Original, counted: Counted) -> Result<Receipt> {
        let attempts = counted.attempts(original);
        let refused = match self.publisher.copy_now(&self.queue, &self.target, original, attempts).await {
            Err(error) if self.publisher.may_not_copy_now() && !self.is_temporary => error,
            copied => return copied,
        };
        let later = self.publisher.copy_later(&self.target, Duration::from_millis(1), original, attempts);
        later.await.map_err(|error| error.with_context("straight to the queue", refused))
    }

    /// Returns the message to its queue after a pause, as a copy if possible. It counts as
    /// unsettled meanwhile, which bounds the number of such messages. If the channel ends first,
    /// the broker redelivers the message.
    pub(crate) fn put_back(
        self: &Arc<Self>,
        settler: &Arc<Settler>,
        tag: u64,
        mut pause: Duration,
        original: Original,
        counted: Counted,
    ) {
        let (target, settler) = (Arc::clone(self), Arc::downgrade(settler));
        // Taken at once if the copy is written at once, so that closing waits for it.
        let mut taken = pause.is_zero().then(|| self.publisher.copying());
        self.engine.spawn(async move {
            loop {
                sleep(pause).await;
                if settler.upgrade().is_none_or(|settler| !settler.holds(tag)) {
                    return;
                }
                let place = taken.take().unwrap_or_else(|| target.publisher.copying());
                let copied = match &place {
                    Ok(_) => target.copy_now(&original, counted).await,
                    Err(_) => Err(closed()),
                };
                match copied {
                    Err(error) if counted.may_wait(&original, &error) => pause = PAUSE,
                    copied => return settle(&settler, tag, copied, counted),
                }
            }
        });
    }
}

/// Returns `true` if the broker refused the copy, or no queue took it.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Busy | ErrorKind::Rejected)
}

/// The count that goes up when a message is put back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counted {
    Attempt,
    /// The attempts that failed in this process.
    Failed,
    Nothing,
}

impl Counted {
    fn attempts(self, original: &Original) -> u32 {
        match self {
            Self::Attempt => original.attempt,
            Self::Failed => original.failed.unwrap_or(original.attempt),
            Self::Nothing => original.attempt.saturating_sub(1),
        }
    }

    /// Returns `true` if the message is to be held until it is copied, because it would be dropped
    /// or its count lost otherwise.
    fn may_wait(self, original: &Original, error: &Error) -> bool {
        let is_needed = original.is_last || matches!(self, Self::Failed);
        is_needed && !matches!(error.kind(), ErrorKind::Closed | ErrorKind::TooLarge)
    }
}

/// Acknowledges a message that was copied, and returns another one to its queue. An error means
/// that the broker has the message already.
fn settle(settler: &Weak<Settler>, tag: u64, copied: Result<Receipt>, counted: Counted) {
    if let Some(settler) = settler.upgrade() {
        let _ = match (copied, counted) {
            (Ok(_), _) => settler.ack(tag),
            (Err(_), Counted::Attempt | Counted::Failed) => settler.refuse(tag),
            (Err(_), Counted::Nothing) => settler.give_back(tag),
        };
    }
}
