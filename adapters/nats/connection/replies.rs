//! Awaited answers to publishes, settlements and requests, all on one subscription.
//!
//! The client's own requests stay in memory if they are never answered, and a lost connection does
//! not end them. Here, each ends by an answer, a time-out or the loss of the connection, whichever
//! is first.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::driver::Confirmer;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

use super::super::error::{self, Refusal};
use super::dial::Notices;
use super::elections::{Elections, Publish, no_leader};
use super::health::Health;

/// Precision of time-outs, and of noticing a lost connection.
const TICK: Duration = Duration::from_millis(100);

/// The beginning of a refusal, before the subject.
const REFUSED: &str = "Permissions Violation for Publish to \"";

/// The receiver of an answer.
#[derive(Debug)]
pub(crate) enum Awaiting {
    Publish(Box<Publish>),
    /// A settlement, and the means to repeat it if the connection is lost.
    Settle(Confirmer<()>, Option<Again>),
    Request(oneshot::Sender<Result<Message>>),
}

/// A settlement that certainly is of a delivery of this member for a while.
#[derive(Debug, Clone)]
pub(crate) struct Settlement {
    pub(crate) subject: Subject,
    pub(crate) payload: Bytes,
    /// The end of the time in which it may be repeated. Later, the delivery may be another
    /// member's.
    pub(crate) until: Instant,
}

/// The sender of settlements, which knows if the next connection leads to the same deliveries.
pub(crate) trait Resend: fmt::Debug + Send + Sync {
    /// Sends a settlement again whose connection was lost before it was answered. `line` is the one
    /// over which it was sent.
    fn resend(self: Arc<Self>, line: Option<u64>, settlement: Settlement, confirmer: Confirmer<()>);
}

/// A settlement with its sender, and the number of the line over which it was sent.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) sender: Arc<dyn Resend>,
    pub(crate) line: Option<u64>,
    pub(crate) settlement: Settlement,
}

/// All receivers that wait. Their number is bounded by publishes in flight, unsettled deliveries
/// and a few requests.
#[derive(Debug)]
pub(crate) struct Replies {
    /// The prefix of all subjects of answers.
    prefix: String,
    next: AtomicU64,
    ticks: AtomicU64,
    patience: u64,
    pub(crate) elections: Elections,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    awaiting: Awaiting,
    /// The subject on which it was sent, to recognize a refusal.
    subject: Subject,
    epoch: u64,
    since: u64,
}

impl Replies {
    /// Creates a table without receivers. Answers come to subjects one token below `inbox`, within
    /// `timeout`. Publishes wait up to `election_wait` for the leader of their stream.
    pub(crate) fn new(inbox: &str, timeout: Duration, election_wait: Duration) -> Self {
        let patience = timeout.as_millis().div_ceil(TICK.as_millis());
        Self {
            prefix: format!("{inbox}."),
            next: AtomicU64::new(1),
            ticks: AtomicU64::new(0),
            // One more, because the first tick comes at any time after the request.
            patience: u64::try_from(patience).unwrap_or(u64::MAX).saturating_add(1),
            elections: Elections::new(election_wait),
            waiting: Mutex::default(),
        }
    }

    /// Enters a receiver, and returns its token and the subject to which its answer is to be sent.
    pub(crate) fn enter(&self, awaiting: Awaiting, subject: Subject, epoch: u64) -> (u64, Subject) {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting { awaiting, subject, epoch, since: self.ticks.load(Ordering::Relaxed) };
        self.waiting.lock().insert(token, waiting);
        let mut subject = String::with_capacity(self.prefix.len() + 16);
        subject.push_str(&self.prefix);
        push_hex(&mut subject, token);
        (token, Subject::from(subject))
    }

    /// Returns `true` if the request with this number waits for its answer.
    pub(crate) fn awaits(&self, number: u64) -> bool {
        self.waiting.lock().contains_key(&number)
    }

    /// Ends the wait for a request that could not be sent.
    pub(crate) fn refuse(&self, token: u64, error: Error) {
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
        // After the time-out, an answer has no receiver any more.
        if let Some((token, waiting)) = token.and_then(|token| self.remove(token).map(|waiting| (token, waiting))) {
            waiting.awaiting.answer(token, message, &self.elections);
        }
    }

    /// Ends the waits whose connection is gone, whose time is up, or which the server has refused.
    fn sweep(&self, health: &Health, notices: &Notices) {
        for refusal in notices.take_fresh() {
            self.refuse_subject(&refusal);
        }
        let now = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        let lost = |waiting: &Waiting| !health.is_same(waiting.epoch);
        let late = |waiting: &Waiting| now.saturating_sub(waiting.since) > self.patience;
        let ended: Vec<Waiting> = {
            let mut waiting = self.waiting.lock();
            waiting.extract_if(|_, waiting| lost(waiting) || late(waiting)).map(|(_, waiting)| waiting).collect()
        };
        for waiting in ended {
            match (lost(&waiting), waiting.awaiting) {
                (true, Awaiting::Settle(confirmer, Some(Again { sender, line, settlement }))) => {
                    sender.resend(line, settlement, confirmer);
                }
                (true, awaiting) => awaiting.fail(connection_lost()),
                (false, awaiting) => awaiting.fail(no_answer()),
            }
        }
    }

    /// Ends all that a refusal names by its subject. The server does not answer it.
    fn refuse_subject(&self, refusal: &str) {
        let subject = refusal.strip_prefix(REFUSED).and_then(|rest| rest.split('"').next());
        let is_refused = |waiting: &Waiting| subject.is_some_and(|subject| *waiting.subject == *subject);
        let refused: Vec<Waiting> =
            self.waiting.lock().extract_if(|_, waiting| is_refused(waiting)).map(|(_, waiting)| waiting).collect();
        for waiting in refused {
            let message = "the server refused: this user may not publish to the subject";
            let error = Error::new(ErrorKind::PermissionDenied, message).with_context("refusal", refusal);
            // Another message to the subject may have been sent before it was forbidden.
            waiting.awaiting.fail(error.with_unknown_outcome());
        }
    }

    fn end(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for waiting in waiting.into_values() {
            waiting.awaiting.fail(connection_lost());
        }
    }
}

/// Passes the answers on until the client ends.
pub(crate) async fn read(
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
                    // Answers come in bursts; the rest of a burst is read without another
                    // `select!`.
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
    fn answer(self, token: u64, message: Message, elections: &Elections) {
        match self {
            Self::Publish(publish) => elections.answer(token, publish, receipt(&message)),
            Self::Settle(confirmer, _) => confirmer.confirm(match message.status {
                Some(StatusCode::NO_RESPONDERS) => Err(error::settlement_lost()),
                _ => Ok(()),
            }),
            // An error means that the receiver is gone.
            Self::Request(sender) => drop(sender.send(Ok(message))),
        }
    }

    pub(crate) fn fail(self, error: Error) {
        match self {
            Self::Publish(publish) => publish.confirmer.confirm(Err(error)),
            Self::Settle(confirmer, _) => confirmer.confirm(Err(error)),
            Self::Request(sender) => drop(sender.send(Err(error))),
        }
    }
}

fn connection_lost() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection was lost before the server answered").with_unknown_outcome()
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Timeout, "the server did not answer in time").with_unknown_outcome()
}

fn push_hex(text: &mut String, number: u64) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (number >> (4 * place)) as u32 & 0xf;
        text.push(char::from_digit(digit, 16).unwrap_or('0'));
    }
}

#[derive(Debug, Deserialize)]
struct Acknowledgement {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<Refusal>,
}

/// Reads the server's answer to a publish.
fn receipt(answer: &Message) -> Result<Receipt> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(no_leader());
    }
    let acknowledgement: Acknowledgement =
        serde_json::from_slice(&answer.payload).map_err(|error| error::unreadable(error).with_unknown_outcome())?;
    match acknowledgement.error {
        Some(refusal) => Err(refusal.into()),
        None => {
            let receipt = Receipt::confirmed().with_offset(i64::try_from(acknowledgement.seq).unwrap_or(i64::MAX));
            Ok(if acknowledgement.duplicate { receipt.as_duplicate() } else { receipt })
        }
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
