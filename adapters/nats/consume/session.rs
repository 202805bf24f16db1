//! The deliveries of one consumer: requests for messages, unsettled deliveries, and settling. It
//! outlives its connections.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{Subject, Subscriber};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::driver::{Confirmation, Disposition};

use super::super::connection::info::ConsumerInfo;
use super::super::connection::link::{Link, send};
use super::super::error;
use super::super::headers::reply_subject::Tokens;
use super::attempts::{Attempts, Past};
use super::consumer::Consumer;
use super::line::Line;
use super::state::{Arrived, Body, Lost, Request, State};
use super::trial::Trial;
use super::unreadable::Quarantined;
use super::window::{Unsettled, Window};

/// Lifetime of a request for messages.
const EXPIRES: Duration = Duration::from_secs(30);
/// The same, with the interval below, while messages wait for earlier ones: the server's first sign
/// of life shows that there are none.
const BRIEF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(200));
/// Interval at which the server shows that it still has the request.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);
/// Time without a sign of life after which the request counts as lost.
const PATIENCE: Duration = Duration::from_secs(12);
/// Number of messages whose attempts are read at a time.
const AT_A_TIME: usize = 32;

/// The session. Handles of deliveries hold it, and can settle until it is over.
pub(crate) struct Session {
    pub(crate) link: Arc<Link>,
    pub(super) confirm: bool,
    pub(crate) consumer: Consumer,
    pub(super) state: Arc<Mutex<State>>,
    /// The number of lines that the session has had; `None` once it is over.
    pub(super) lines: watch::Sender<Option<u64>>,
    pub(crate) attempts: Arc<Attempts>,
    /// Held while the session leaves: a second call waits for what the first one gives back.
    pub(super) leaving: tokio::sync::Mutex<()>,
}

/// The parts of a new session.
pub(crate) struct Opening {
    pub(crate) link: Arc<Link>,
    pub(crate) line: Line,
    pub(crate) subscriber: Subscriber,
    pub(crate) consumer: Consumer,
    /// The number of deliveries of the consumer so far.
    pub(crate) deliveries: u64,
    pub(crate) limit: usize,
    pub(crate) confirm: bool,
    pub(crate) attempts: Arc<Attempts>,
}

/// The data about a delivery that its handle passes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HandedOut {
    pub(crate) slot: usize,
    pub(crate) tokens: Tokens,
    pub(crate) attempt: u32,
}

impl Session {
    /// Opens a session, and requests messages.
    pub(crate) fn open(opening: Opening) -> Arc<Self> {
        let Opening { link, line, subscriber, consumer, deliveries, limit, confirm, attempts } = opening;
        let state =
            State::new(line, subscriber, deliveries, Window::new(limit), consumer.max_bytes, Arc::clone(&attempts));
        let (lines, _) = watch::channel(Some(1));
        let state = Arc::new(Mutex::new(state));
        let session = Arc::new(Self { link, confirm, consumer, state, lines, attempts, leaving: Default::default() });
        session.request();
        session
    }

    /// Requests messages, as many as there is room for.
    pub(super) fn request(&self) {
        let mut state = self.state.lock();
        let request = state.take_request();
        drop(state);
        self.ask_for(request);
    }

    /// Polls for the next message, or the end of the session.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Arrived, Lost>> {
        let mut state = self.state.lock();
        state.waker = None;
        if !state.line.reads() {
            return Poll::Ready(Err(Lost::Connection));
        }
        let next = state.next(cx);
        if next.is_pending() {
            state.waker = Some(cx.waker().clone());
        }
        let request = state.take_request();
        let uncounted = std::mem::take(&mut state.uncounted);
        drop(state);
        self.ask_for(request);
        self.count(uncounted);
        next
    }

    /// Settles a delivery. If it was tried, the note is withdrawn, also if the delivery is lost.
    pub(crate) fn settle(
        self: &Arc<Self>,
        delivery: HandedOut,
        disposition: Disposition,
        trial: Option<Trial>,
    ) -> Confirmation<()> {
        let slot = delivery.slot;
        let mut state = self.state.lock();
        let quarantined = state.window.get(slot).and_then(|out| out.quarantined.clone());
        if let (Disposition::Retry(delay), Some(message)) = (disposition, quarantined) {
            drop(state);
            self.hold(slot, &message, delay);
            return Confirmation::ready(Ok(()));
        }
        let out = state.window.close(slot);
        let (settles, line) = (state.line.settles(&self.link), *self.lines.borrow());
        let request = state.take_request();
        drop(state);
        self.ask_for(request);
        let Some(out) = out.filter(|out| !out.is_over(self.consumer.ack_wait)) else {
            return Confirmation::ready(Err(error::settlement_lost()));
        };
        match settles {
            true => self.send(delivery, disposition, trial, out),
            false => self.send_later(delivery, disposition, trial, out, line),
        }
    }

    /// Settles over the next line, if it comes before the server redelivers the message. A server
    /// that was killed may have forgotten about the delivery, which the next line finds out.
    fn send_later(
        self: &Arc<Self>,
        delivery: HandedOut,
        disposition: Disposition,
        trial: Option<Trial>,
        out: Unsettled,
        line: Option<u64>,
    ) -> Confirmation<()> {
        let (confirmer, confirmation) = Confirmation::pending();
        let session = Arc::clone(self);
        self.link.record(async move {
            let patience = session.consumer.ack_wait.min(session.link.patience());
            let has_next = session.has_next_line(line, patience).await;
            let settled = match has_next && !out.is_over(session.consumer.ack_wait) {
                true => session.send(delivery, disposition, trial, out).await,
                false => Err(error::settlement_lost()),
            };
            confirmer.confirm(settled);
        });
        confirmation
    }

    fn send(
        self: &Arc<Self>,
        delivery: HandedOut,
        disposition: Disposition,
        trial: Option<Trial>,
        out: Unsettled,
    ) -> Confirmation<()> {
        let HandedOut { tokens, attempt, .. } = delivery;
        if let Disposition::Retry(delay) = disposition {
            self.comes_again(&tokens, delay);
        } else if disposition == Disposition::GiveBack {
            self.comes_again(&tokens, Duration::ZERO);
        }
        let is_retry = matches!(disposition, Disposition::Retry(_));
        let failed = (is_retry && self.attempts.fail(&tokens, attempt)).then_some(attempt);
        if failed.is_some() || (trial.is_some() && disposition == Disposition::GiveBack) {
            return self.send_back(&tokens, failed, trial, out.reply, disposition);
        }
        let until = out.certain_until(self.consumer.ack_wait);
        let confirmation = self.tell(out.reply, disposition, Some(until));
        // A message that comes for the first time has no failures to forget.
        if tokens.delivered > 1 && matches!(disposition, Disposition::Ack | Disposition::Discard) {
            self.attempts.settle(&self.link, tokens.stream_sequence);
            trial.into_iter().for_each(Trial::settle);
        }
        confirmation
    }

    /// Requests another message in place of a delivery that waits. Returns `false` if the delivery
    /// is lost.
    pub(crate) fn set_aside(&self, slot: usize) -> bool {
        let mut state = self.state.lock();
        if !state.window.set_aside(slot) {
            return false;
        }
        let request = state.take_request();
        drop(state);
        self.ask_for(request);
        true
    }

    /// Writes down that an attempt has failed and its trial is over, and sends the message back
    /// only then: the member that gets it reads this. If this process ends in between, the message
    /// is redelivered after `ack_wait`, with its failure counted.
    fn send_back(
        self: &Arc<Self>,
        tokens: &Tokens,
        failed: Option<u32>,
        trial: Option<Trial>,
        reply: Subject,
        disposition: Disposition,
    ) -> Confirmation<()> {
        let (confirmer, confirmation) = Confirmation::pending();
        let (session, sequence) = (Arc::clone(self), tokens.stream_sequence);
        self.link.record(async move {
            match (trial, failed) {
                (Some(trial), failed) => trial.end(failed).await,
                (None, Some(failed)) => session.attempts.keep(&session.link, sequence, failed).await,
                (None, None) => {}
            }
            confirmer.confirm(session.tell(reply, disposition, None).await);
        });
        confirmation
    }

    /// Asks the server for the attempts of these messages.
    fn count(&self, uncounted: Vec<(usize, Tokens)>) {
        if uncounted.is_empty() {
            return;
        }
        let (attempts, link, state) = (Arc::clone(&self.attempts), Arc::clone(&self.link), Arc::clone(&self.state));
        self.link.background().detach(async move {
            let (attempts, link) = (&attempts, &link);
            let find = |(slot, tokens)| async move { (slot, attempts.find(link, &tokens).await) };
            let mut found = stream::iter(uncounted).map(find).buffered(AT_A_TIME);
            while let Some((slot, past)) = found.next().await {
                state.lock().count(slot, past);
            }
        });
    }

    /// Delivers again, after a delay, a message that the server must not redeliver.
    fn hold(self: &Arc<Self>, slot: usize, message: &Quarantined, delay: Duration) {
        let again = Arc::new(Quarantined { attempt: message.attempt.saturating_add(1), ..message.clone() });
        let session = Arc::downgrade(self);
        self.link.background().detach(async move {
            sleep(delay).await;
            if let Some(session) = session.upgrade() {
                session.put_back(slot, again);
            }
        });
    }

    fn put_back(&self, slot: usize, message: Arc<Quarantined>) {
        let mut state = self.state.lock();
        // If the session was closed in the meantime, the server redelivers the message to the next
        // reader.
        if state.subscriber.is_some() && state.window.renew(slot, &message) {
            let (tenure, past) = (state.window.tenure(), Some(Past::here(message.attempt)));
            state.ready.push_back(Arrived { body: Body::Quarantined(message), slot, tenure, past });
            state.wake();
        }
    }

    /// Notes that the server redelivers a message: after this delay, or if the request for it is
    /// lost, after `ack_wait`.
    pub(super) fn comes_again(&self, tokens: &Tokens, delay: Duration) {
        let within = delay.saturating_add(self.consumer.ack_wait.saturating_mul(2));
        self.attempts.sent_back.lock().add(tokens.stream_sequence, within);
    }

    fn ask_for(&self, request: Option<Request>) {
        let Some(Request { messages: mut rest, bytes }) = request else { return };
        let bytes = bytes.map(|most| format!(r#","max_bytes":{most}"#)).unwrap_or_default();
        let (most, often) = match self.state.lock().called_back.is_waiting() {
            true => BRIEF,
            false => (EXPIRES, HEARTBEAT),
        };
        let expires = self.consumer.max_expires.map_or(most, |longest| longest.min(most));
        let heartbeat = often.min(expires.mul_f64(0.4));
        while rest > 0 {
            let batch = self.consumer.max_batch.map_or(rest, |most| most.min(rest));
            let (expires, heartbeat) = (expires.as_nanos(), heartbeat.as_nanos());
            let request = format!(r#"{{"batch":{batch},"expires":{expires},"idle_heartbeat":{heartbeat}{bytes}}}"#);
            let (client, inbox) = self.state.lock().line.ends();
            let (subject, reply) = (self.consumer.next.clone(), Some(inbox));
            let message = OutboundMessage { subject, reply, payload: request.into(), headers: None };
            // A request that is not sent is noticed by the silence that follows.
            let _ = send(&client, message);
            rest -= batch;
        }
    }

    /// Looks at the connections; `false` if the session is over.
    pub(crate) fn look(self: &Arc<Self>) -> bool {
        if self.is_over() {
            return false;
        }
        let mut state = self.state.lock();
        let is_silent = state.window.requested() > 0 && state.heard.elapsed() > PATIENCE;
        if !state.line.settles(&self.link) || is_silent {
            state.lose(Lost::Connection);
            if state.leaving {
                // Nobody opens the next line.
                state.window.end();
            }
        }
        state.wait_no_longer_than(self.consumer.ack_wait);
        let number = if state.line.settles(&self.link) { state.unanswered.ask() } else { None };
        drop(state);
        self.ask_for_answers(number);
        true
    }

    /// Returns `true` if the line brought any message, or lasted for so long.
    pub(crate) fn was_good(&self, long: Duration) -> bool {
        let state = self.state.lock();
        state.has_delivered || state.since.elapsed() > long
    }

    /// Notes what the server said about the group before this session began.
    pub(crate) fn begin(&self, info: &ConsumerInfo) {
        self.state.lock().has_company = info.unsettled > 0 || info.waiting > 0;
        self.learn(info);
    }

    /// Notes what the server says about the group.
    pub(crate) fn learn(&self, info: &ConsumerInfo) {
        if info.created == self.consumer.created {
            self.state.lock().floor = info.ack_floor;
        }
    }

    /// Returns `true` if no line follows the last one.
    pub(crate) fn is_over(&self) -> bool {
        self.lines.borrow().is_none()
    }

    /// Ends the session, because its consumer was deleted.
    pub(crate) fn lose_consumer(&self) {
        self.lines.send_replace(None);
        let mut state = self.state.lock();
        state.window.end();
        state.lose(Lost::Deleted);
    }

    /// Asks the server for more time for unsettled deliveries, and reads what has arrived.
    ///
    /// Returns one of the deliveries, if there are any, and the number of those that were not
    /// renewed in time.
    pub(crate) fn renew(&self) -> (Option<Subject>, usize) {
        let mut state = self.state.lock();
        state.read_ahead();
        let mut one = None;
        let late = state.window.next_round(self.consumer.ack_wait, |reply| {
            one = Some(reply.clone());
            self.extend(reply)
        });
        let uncounted = std::mem::take(&mut state.uncounted);
        drop(state);
        self.count(uncounted);
        (one, late)
    }

    /// Asks for more time for a delivery; `false` if the connection is lost.
    pub(super) fn extend(&self, reply: &Subject) -> bool {
        self.link.tell(reply.clone(), Bytes::from_static(b"+WPI")).is_ok()
    }
}

pub(super) fn payload(disposition: Disposition) -> Bytes {
    match disposition {
        Disposition::Ack => Bytes::new(),
        Disposition::Discard => Bytes::from_static(b"+TERM"),
        Disposition::Retry(Duration::ZERO) | Disposition::GiveBack => Bytes::from_static(b"-NAK"),
        Disposition::Retry(delay) => format!(r#"-NAK {{"delay":{}}}"#, delay.as_nanos()).into(),
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}
