//! The answers that are awaited: of publishes, of settlements and of requests, all on one subscription.
//!
//! The client's own requests stay in its memory when they are never answered, and a lost connection does not end them; here
//! each ends by answer, time-out or loss of the connection, whichever is first.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Message, StatusCode, Subject, Subscriber};
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::driver::Confirmer;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

use super::dial::Notices;
use super::error;
use super::link::Health;
use super::publish;

/// How exact time-outs are, and how soon the loss of a connection is noticed.
const TICK: Duration = Duration::from_millis(100);

/// Who waits for an answer.
#[derive(Debug)]
pub(super) enum Awaiting {
    Publish(Confirmer<Receipt>),
    /// A publish that is delayed: where it is kept is not where it will be.
    Keep(Confirmer<Receipt>),
    Settle(Confirmer<()>),
    Request(oneshot::Sender<Result<Message>>),
}

/// All who wait. Their number is bounded by those who ask: publishes in flight, unsettled deliveries, a few requests.
#[derive(Debug)]
pub(super) struct Replies {
    /// What all subjects of answers begin with.
    prefix: String,
    next: AtomicU64,
    ticks: AtomicU64,
    patience: u64,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    awaiting: Awaiting,
    epoch: u64,
    since: u64,
}

impl Replies {
    /// Answers will come to subjects of one token below `inbox`, within `timeout`.
    pub(super) fn new(inbox: &str, timeout: Duration) -> Self {
        let patience = timeout.as_millis().div_ceil(TICK.as_millis());
        Self {
            prefix: format!("{inbox}."),
            next: AtomicU64::new(1),
            ticks: AtomicU64::new(0),
            // One more, since the first tick comes at any time after the question.
            patience: u64::try_from(patience).unwrap_or(u64::MAX).saturating_add(1),
            waiting: Mutex::default(),
        }
    }

    /// Enters someone who waits; the answer is to be sent to the subject.
    pub(super) fn enter(&self, awaiting: Awaiting, epoch: u64) -> (u64, Subject) {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting { awaiting, epoch, since: self.ticks.load(Ordering::Relaxed) };
        self.waiting.lock().insert(token, waiting);
        let mut subject = String::with_capacity(self.prefix.len() + 16);
        subject.push_str(&self.prefix);
        push_hex(&mut subject, token);
        (token, Subject::from(subject))
    }

    /// Ends the wait for what could not even be asked.
    pub(super) fn refuse(&self, token: u64, error: Error) {
        if let Some(waiting) = self.remove(token) {
            waiting.awaiting.fail(error);
        }
    }

    fn remove(&self, token: u64) -> Option<Waiting> {
        self.waiting.lock().remove(&token)
    }

    fn answer(&self, message: Message) {
        let token = message.subject.strip_prefix(self.prefix.as_str());
        let token = token.and_then(|token| u64::from_str_radix(token, 16).ok());
        // Nobody waits any more for an answer that comes after the time-out.
        if let Some(waiting) = token.and_then(|token| self.remove(token)) {
            waiting.awaiting.answer(message);
        }
    }

    /// Ends the wait of all whose connection is gone, and of those who have waited too long.
    fn sweep(&self, health: &Health, notices: &Notices) {
        let now = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        let lost = |waiting: &Waiting| !health.is_same(waiting.epoch);
        let late = |waiting: &Waiting| now.saturating_sub(waiting.since) > self.patience;
        let ended: Vec<Waiting> = {
            let mut waiting = self.waiting.lock();
            waiting.extract_if(|_, waiting| lost(waiting) || late(waiting)).map(|(_, waiting)| waiting).collect()
        };
        if ended.is_empty() {
            return;
        }
        let refusal = notices.take_refusal();
        for waiting in ended {
            let error = if lost(&waiting) { connection_lost() } else { no_answer(refusal.as_deref()) };
            waiting.awaiting.fail(error);
        }
    }

    fn end(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for waiting in waiting.into_values() {
            waiting.awaiting.fail(connection_lost());
        }
    }
}

/// Hands out the answers until the client ends.
pub(super) async fn read(
    replies: Arc<Replies>,
    mut subscriber: Subscriber,
    health: Arc<Health>,
    notices: Arc<Notices>,
) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            message = subscriber.next() => match message {
                Some(message) => {
                    replies.answer(message);
                    // Answers come in bursts; the rest of a burst does not need to go round.
                    while let Some(Some(message)) = subscriber.next().now_or_never() {
                        replies.answer(message);
                    }
                }
                None => break,
            },
            _ = tick.tick() => replies.sweep(&health, &notices),
        }
    }
    replies.end();
}

impl Awaiting {
    fn answer(self, message: Message) {
        match self {
            Self::Publish(confirmer) => confirmer.confirm(publish::receipt(&message)),
            Self::Keep(confirmer) => confirmer.confirm(publish::receipt(&message).map(|_| Receipt::confirmed())),
            Self::Settle(confirmer) => confirmer.confirm(match message.status {
                Some(StatusCode::NO_RESPONDERS) => Err(error::settlement_lost()),
                _ => Ok(()),
            }),
            // An error means that nobody waits any more.
            Self::Request(sender) => drop(sender.send(Ok(message))),
        }
    }

    pub(super) fn fail(self, error: Error) {
        match self {
            Self::Publish(confirmer) | Self::Keep(confirmer) => confirmer.confirm(Err(error)),
            Self::Settle(confirmer) => confirmer.confirm(Err(error)),
            Self::Request(sender) => drop(sender.send(Err(error))),
        }
    }
}

fn connection_lost() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection was lost before the server answered").with_unknown_outcome()
}

fn no_answer(refusal: Option<&str>) -> Error {
    match refusal {
        Some(refusal) => Error::new(ErrorKind::PermissionDenied, "no answer, and the server reported a refusal")
            .with_context("refusal", refusal)
            .with_unknown_outcome(),
        None => Error::new(ErrorKind::Timeout, "the server did not answer in time"),
    }
}

fn push_hex(text: &mut String, number: u64) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (number >> (4 * place)) as u32 & 0xf;
        text.push(char::from_digit(digit, 16).unwrap_or('0'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_hexadecimal() {
        for number in [0, 1, 15, 16, 0xabc, u64::MAX] {
            let mut text = String::new();
            push_hex(&mut text, number);
            assert_eq!(text, format!("{number:x}"));
        }
    }
}
