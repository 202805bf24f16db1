//! A subscription's life on one connection: asking for messages, what is out, and settling it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::driver::{Confirmation, Disposition};
use crate::error::{Error, ErrorKind};

use super::error;
use super::link::{Health, Link, send};
use super::quarantine::Quarantined;
use super::tokens::{self, Tokens};
use super::window::Window;

/// How long a request for messages stays open.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server shows that it still has the request.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// After how long without a sign the request counts as lost.
const PATIENCE: Duration = Duration::from_secs(12);

/// Where messages are asked for and acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Consumer {
    pub(super) stream: String,
    pub(super) name: String,
    pub(super) next: Subject,
    pub(super) ack_wait: Duration,
    /// The most that may be asked for at a time, and for how long, where the consumer is so configured.
    pub(super) max_batch: Option<usize>,
    pub(super) max_expires: Option<Duration>,
}

/// The session. Handles of deliveries hold it, and can settle as long as it is the present one.
pub(super) struct Session {
    link: Arc<Link>,
    client: Client,
    health: Health,
    epoch: u64,
    inbox: Subject,
    confirm: bool,
    pub(super) consumer: Consumer,
    pub(super) since: Instant,
    found: bool,
    state: Mutex<State>,
}

struct State {
    /// `None` when nothing is to be read any more.
    subscriber: Option<Subscriber>,
    /// What was read and not handed out yet; it is in the window already.
    ready: VecDeque<Arrived>,
    window: Window,
    /// Who waits for the next message.
    waker: Option<Waker>,
    heard: Instant,
    lost: Option<Lost>,
    /// The last place in the stream from which a message came.
    seen: Option<u64>,
}

/// A message with its place in the window.
#[derive(Debug)]
pub(super) enum Arrived {
    Delivered(Message, Tokens, usize),
    Quarantined(Arc<Quarantined>, usize),
}

/// The session is over.
#[derive(Debug)]
pub(super) enum Lost {
    /// Its connection is gone, or silent, and is being restored.
    Connection,
    /// Its client is gone for good.
    Client,
    /// The server ended it, and said why.
    Ended(Error),
}

/// What a session is opened with.
pub(super) struct Opening {
    pub(super) link: Arc<Link>,
    pub(super) client: Client,
    pub(super) epoch: u64,
    pub(super) subscriber: Subscriber,
    pub(super) inbox: Subject,
    pub(super) consumer: Consumer,
    pub(super) limit: usize,
    pub(super) confirm: bool,
    pub(super) quarantined: Vec<Quarantined>,
}

impl Session {
    /// Starts to ask for messages.
    pub(super) fn open(opening: Opening) -> Arc<Self> {
        let Opening { link, client, epoch, subscriber, inbox, consumer, limit, confirm, quarantined } = opening;
        let found = !quarantined.is_empty();
        let mut window = Window::new(limit, found);
        let ready = quarantined.into_iter().map(|message| {
            let reply = tokens::acknowledge(&consumer.stream, &consumer.name, message.sequence);
            let message = Arc::new(message);
            let slot = window.open(reply.into(), Some(Arc::clone(&message)));
            Arrived::Quarantined(message, slot)
        });
        let ready: VecDeque<Arrived> = ready.collect();
        let replies = window.replies();
        let request = window.take_request(false);
        let now = Instant::now();
        let state =
            State { subscriber: Some(subscriber), ready, window, waker: None, heard: now, lost: None, seen: None };
        let health = Health::of(client.clone());
        let state = Mutex::new(state);
        let session =
            Arc::new(Self { link, client, health, epoch, inbox, confirm, consumer, since: now, found, state });
        // The messages that were found are not to be delivered again from now on.
        session.extend(replies);
        session.ask_for(request);
        tokio::spawn(keep(Arc::downgrade(&session), session.period()));
        session
    }

    /// The next message, or the end of the session.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Arrived, Lost>> {
        let mut state = self.state.lock();
        state.waker = None;
        if !self.health.is_same(self.epoch) {
            return Poll::Ready(Err(Lost::Connection));
        }
        let next = state.next(cx);
        if next.is_pending() {
            state.waker = Some(cx.waker().clone());
        }
        let request = state.take_request();
        drop(state);
        self.ask_for(request);
        next
    }

    /// Whether its connection is gone, or the server should have shown a sign of life by now.
    pub(super) fn is_lost(&self) -> bool {
        let silent = |state: &State| state.window.is_waiting() && state.heard.elapsed() > PATIENCE;
        !self.health.is_same(self.epoch) || silent(&self.state.lock())
    }

    /// Whether it brought any message.
    pub(super) fn has_delivered(&self) -> bool {
        self.found || self.state.lock().seen.is_some()
    }

    /// Settles the delivery in that place of the window.
    pub(super) fn settle(self: &Arc<Self>, slot: usize, disposition: Disposition) -> Confirmation<()> {
        let mut state = self.state.lock();
        if !self.health.is_same(self.epoch) {
            return Confirmation::ready(Err(error::settlement_lost()));
        }
        let quarantined = state.window.get(slot).and_then(|out| out.quarantined.clone());
        if let (Disposition::Retry(delay), Some(message)) = (disposition, quarantined) {
            drop(state);
            self.hold(slot, &message, delay);
            return Confirmation::ready(Ok(()));
        }
        let Some(out) = state.window.close(slot) else {
            return Confirmation::ready(Err(error::settlement_lost()));
        };
        let request = state.take_request();
        drop(state);
        let confirmation = if self.confirm {
            self.link.confirm(out.reply, payload(disposition))
        } else {
            Confirmation::ready(self.link.tell(out.reply, payload(disposition)))
        };
        self.ask_for(request);
        confirmation
    }

    /// Hands a message that the server must not hand out again out again, later.
    fn hold(self: &Arc<Self>, slot: usize, message: &Quarantined, delay: Duration) {
        let again = Arc::new(Quarantined { attempt: message.attempt.saturating_add(1), ..message.clone() });
        let session = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            if let Some(session) = session.upgrade() {
                session.put_back(slot, again);
            }
        });
    }

    fn put_back(&self, slot: usize, message: Arc<Quarantined>) {
        let mut state = self.state.lock();
        // Closed in the meantime: the server will deliver it again, to whoever reads next.
        if state.subscriber.is_some() && state.window.get(slot).is_some() {
            state.ready.push_back(Arrived::Quarantined(message, slot));
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }

    /// Ends reading: what nobody has seen yet goes back to the group at once. What is out can still be settled.
    pub(super) fn stop_reading(&self) {
        let mut state = self.state.lock();
        state.read_ahead();
        state.subscriber = None;
        let ready = std::mem::take(&mut state.ready);
        let unseen: Vec<_> = ready.into_iter().filter_map(|arrived| state.window.close(arrived.slot())).collect();
        let waker = state.waker.take();
        drop(state);
        self.give_back(unseen);
        waker.inspect(Waker::wake_by_ref);
    }

    /// Ends the session: everything unsettled goes back to the group at once, and its handles are of no more use.
    ///
    /// Returns the first place in the stream that is not settled, if the session came to know of any.
    pub(super) fn end(&self) -> Option<u64> {
        let (out, seen) = {
            let mut state = self.state.lock();
            state.read_ahead();
            state.subscriber = None;
            state.ready.clear();
            (state.window.close_all(), state.seen)
        };
        let unsettled =
            out.iter().filter_map(|out| Tokens::read(&out.reply)).map(|tokens| tokens.stream_sequence).min();
        self.give_back(out);
        unsettled.or(seen.map(|seen| seen.saturating_add(1)))
    }

    fn give_back(&self, unsettled: Vec<super::window::Unsettled>) {
        // What the client cannot read is not asked for again; it comes back when its time at the server is up.
        for out in unsettled.into_iter().filter(|out| out.quarantined.is_none()) {
            // Where this fails, the same holds.
            let _ = self.link.tell(out.reply, payload(Disposition::Retry(Duration::ZERO)));
        }
    }

    fn ask_for(&self, messages: Option<usize>) {
        let mut rest = messages.unwrap_or(0);
        let expires = self.consumer.max_expires.map_or(EXPIRES, |longest| longest.min(EXPIRES));
        let heartbeat = HEARTBEAT.min(expires.mul_f64(0.4));
        while rest > 0 {
            let batch = self.consumer.max_batch.map_or(rest, |most| most.min(rest));
            let (expires, heartbeat) = (expires.as_nanos(), heartbeat.as_nanos());
            let request = format!(r#"{{"batch":{batch},"expires":{expires},"idle_heartbeat":{heartbeat}}}"#);
            let (subject, reply) = (self.consumer.next.clone(), Some(self.inbox.clone()));
            let message = OutboundMessage { subject, reply, payload: request.into(), headers: None };
            // A request that does not get out is noticed by the silence that follows.
            let _ = send(&self.client, message);
            rest -= batch;
        }
    }

    /// Asks the server for more time for what is out, and looks at what has come while nobody is polling.
    fn renew(&self) {
        let due = {
            let mut state = self.state.lock();
            if state.waker.is_none() {
                state.read_ahead();
            }
            state.window.next_round()
        };
        self.extend(due);
    }

    fn extend(&self, replies: Vec<Subject>) {
        for reply in replies {
            // Where this fails, the connection is lost, and with it the session.
            let _ = self.link.tell(reply, Bytes::from_static(b"+WPI"));
        }
    }

    /// A third of the time the server waits: an extension may come late, or be lost once.
    fn period(&self) -> Duration {
        (self.consumer.ack_wait / 3).clamp(Duration::from_millis(20), HEARTBEAT)
    }
}

/// Keeps what is out from being delivered elsewhere, for as long as anybody holds it.
async fn keep(session: Weak<Session>, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        match session.upgrade() {
            Some(session) => session.renew(),
            None => return,
        }
    }
}

impl State {
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arrived, Lost>> {
        loop {
            if let Some(arrived) = self.ready.pop_front() {
                return Poll::Ready(Ok(arrived));
            }
            if let Some(lost) = self.lost.take() {
                return Poll::Ready(Err(lost));
            }
            let Some(subscriber) = &mut self.subscriber else {
                // Closed: there is nothing more to come.
                return Poll::Pending;
            };
            match subscriber.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => self.take_in(message),
                Poll::Ready(None) => self.lost = Some(Lost::Client),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn take_in(&mut self, mut message: Message) {
        self.heard = Instant::now();
        // By the subject to acknowledge on, not by the status: anyone can write a status into a message.
        match message.reply.as_deref().and_then(Tokens::read).zip(message.reply.take()) {
            Some((tokens, reply)) => {
                self.seen = self.seen.max(Some(tokens.stream_sequence));
                self.window.arrived();
                let slot = self.window.open(reply, None);
                self.ready.push_back(Arrived::Delivered(message, tokens, slot));
            }
            None => self.take_notice(&message),
        }
    }

    /// The server says something about a request.
    fn take_notice(&mut self, message: &Message) {
        let pending = message.headers.as_ref().and_then(|headers| headers.get("Nats-Pending-Messages"));
        let pending = pending.and_then(|value| value.as_str().parse().ok());
        match (message.status, pending) {
            (Some(StatusCode::IDLE_HEARTBEAT), _) | (None, _) => {}
            (Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND), pending) => {
                self.window.expired(pending.unwrap_or(usize::MAX));
            }
            (Some(status), _) => {
                let description = message.description.as_deref().unwrap_or("no description");
                let error = Error::new(ErrorKind::Unavailable, "the server ended the subscription; it is opened again")
                    .with_context("status", status)
                    .with_context("description", description);
                self.lost = Some(Lost::Ended(error));
            }
        }
    }

    /// Reads everything that has come, so that the window knows it. Only for when nobody is being waited for by the subscriber.
    fn read_ahead(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        while let Some(Poll::Ready(Some(message))) =
            self.subscriber.as_mut().map(|subscriber| subscriber.poll_next_unpin(&mut nobody))
        {
            self.take_in(message);
        }
    }

    fn take_request(&mut self) -> Option<usize> {
        if self.subscriber.is_none() {
            return None;
        }
        self.window.take_request(self.waker.is_some())
    }
}

impl Arrived {
    fn slot(&self) -> usize {
        match self {
            Self::Delivered(_, _, slot) | Self::Quarantined(_, slot) => *slot,
        }
    }
}

fn payload(disposition: Disposition) -> Bytes {
    match disposition {
        Disposition::Ack => Bytes::new(),
        Disposition::Discard => Bytes::from_static(b"+TERM"),
        Disposition::Retry(Duration::ZERO) => Bytes::from_static(b"-NAK"),
        Disposition::Retry(delay) => format!(r#"-NAK {{"delay":{}}}"#, delay.as_nanos()).into(),
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("consumer", &self.consumer).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
