//! A subscription's life on one connection: asking for messages, what is out, and settling it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{Client, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::driver::{Confirmation, Disposition};

use super::error;
use super::link::{Health, Link, send};
use super::quarantine::Quarantined;
use super::state::{Arrived, Lost, State};
use super::tokens::{self, Tokens};
use super::window::{Unsettled, Window};

/// How long a request for messages stays open.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server shows that it still has the request.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// After how long without a sign the request counts as lost.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long to wait, at most, for what the server is sending to a subscription that ends.
const LEAVE: Duration = Duration::from_secs(2);
/// How many notices of the server may be among that.
const NOTICES: u64 = 8;

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
    _keeper: AbortOnDropHandle<()>,
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
        let state = State::new(subscriber, ready, window);
        let health = Health::of(client.clone());
        let state = Mutex::new(state);
        let period = period(consumer.ack_wait);
        let session = Arc::new_cyclic(|this| Self {
            _keeper: AbortOnDropHandle::new(tokio::spawn(keep(Weak::clone(this), period))),
            link,
            client,
            health,
            epoch,
            inbox,
            confirm,
            consumer,
            since: Instant::now(),
            found,
            state,
        });
        // The messages that were found are not to be delivered again from now on.
        session.extend(replies);
        session.ask_for(request);
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
        let silent = |state: &State| state.window.requested() > 0 && state.heard.elapsed() > PATIENCE;
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
            sleep(delay).await;
            if let Some(session) = session.upgrade() {
                session.put_back(slot, again);
            }
        });
    }

    fn put_back(&self, slot: usize, message: Arc<Quarantined>) {
        let mut state = self.state.lock();
        // Closed in the meantime: the server will deliver it again, to whoever reads next.
        if state.subscriber.is_some() && state.window.renew(slot, &message) {
            state.ready.push_back(Arrived::Quarantined(message, slot));
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }

    /// Ends reading: what nobody has seen goes back to the group at once. What is out can still be settled.
    pub(super) async fn leave(&self) {
        let subscriber = {
            let mut state = self.state.lock();
            state.leaving = true;
            state.read_ahead();
            state.subscriber.take()
        };
        if let Some(subscriber) = subscriber {
            // Failing that, what is on its way is delivered again when the server has waited for it.
            let _ = timeout(LEAVE, self.read_rest(subscriber)).await;
        }
        let (unseen, waker) = {
            let mut state = self.state.lock();
            (state.take_unseen(), state.waker.take())
        };
        self.give_back(unseen);
        self.arrive().await;
        waker.inspect(Waker::wake_by_ref);
    }

    /// Waits until the server has read everything that was sent on the reading connection: a message to ourselves has come back.
    ///
    /// The client's own flush returns while it still has something to write, if it has done enough for one turn of its task; and
    /// what it has not written when its last handle is dropped, it throws away.
    pub(super) async fn arrive(&self) {
        let echo = async {
            let inbox = self.client.new_inbox();
            let mut subscriber = self.client.subscribe(inbox.clone()).await.ok()?;
            self.client.publish(inbox, Bytes::new()).await.ok()?;
            subscriber.next().await
        };
        // Failing that, the connection is lost, and what was sent on it is delivered again when the server has waited for it.
        let _ = timeout(LEAVE, echo).await;
    }

    /// Reads what the server sends until it knows of the end of the subscription, to the last message.
    ///
    /// The client throws away what comes after it has asked for the end. So the end is put behind everything that has been asked
    /// for, which the server knows too, and filled up with messages to ourselves until it is reached.
    async fn read_rest(&self, mut subscriber: Subscriber) {
        let (read, asked) = {
            let state = self.state.lock();
            (state.read, state.window.requested() as u64)
        };
        if asked == 0 {
            return;
        }
        let rest = asked + NOTICES;
        let mut ended = subscriber.unsubscribe_after(read + rest).await.is_err();
        for _ in 0..rest {
            ended |= self.client.publish(self.inbox.clone(), Bytes::new()).await.is_err();
        }
        while !ended {
            match subscriber.next().await {
                Some(message) => self.state.lock().take_in(message),
                None => ended = true,
            }
        }
    }

    /// Stops handing out, and takes out everything unsettled, whose handles are of no more use.
    pub(super) fn suspend(&self) -> Vec<Unsettled> {
        let mut state = self.state.lock();
        state.leaving = true;
        state.take_all()
    }

    /// Ends the session after [`suspend`](Self::suspend), so that another is opened; what is given back goes to the group at once.
    pub(super) fn release(&self, unsettled: Vec<Unsettled>) {
        self.give_back(unsettled);
        let waker = {
            let mut state = self.state.lock();
            state.leaving = false;
            state.lost = Some(Lost::Moved);
            state.waker.take()
        };
        waker.inspect(Waker::wake_by_ref);
    }

    /// Ends the session: everything unsettled goes back to the group at once, and its handles are of no more use.
    ///
    /// Returns the first place in the stream that is not settled, if the session came to know of any.
    pub(super) fn end(&self) -> Option<u64> {
        let (out, seen) = {
            let mut state = self.state.lock();
            state.take_unseen();
            (state.window.close_all(), state.seen)
        };
        let unsettled =
            out.iter().filter_map(|out| Tokens::read(&out.reply)).map(|tokens| tokens.stream_sequence).min();
        self.give_back(out);
        unsettled.or(seen.map(|seen| seen.saturating_add(1)))
    }

    /// Tells the server to hand out again, after the end of the subscription on the same connection: else it could be to us.
    fn give_back(&self, unsettled: Vec<Unsettled>) {
        let again = payload(Disposition::Retry(Duration::ZERO));
        // What the client cannot read is not asked for again; it comes back when its time at the server is up.
        for out in unsettled.into_iter().filter(|out| out.quarantined.is_none()) {
            let message =
                OutboundMessage { subject: out.reply.clone(), payload: again.clone(), reply: None, headers: None };
            if send(&self.client, message).is_err() {
                // Where this fails too, the same holds.
                let _ = self.link.tell(out.reply, again.clone());
            }
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
            if !self.health.is_same(self.epoch) {
                return;
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
}

/// A quarter of the time the server waits. The first extension is after one to two periods, so that half the time is left for it to
/// come late.
fn period(ack_wait: Duration) -> Duration {
    (ack_wait / 4).clamp(Duration::from_millis(20), HEARTBEAT)
}

/// Keeps what is out from being delivered elsewhere, for as long as anybody holds it.
async fn keep(session: Weak<Session>, period: Duration) {
    loop {
        sleep(period).await;
        match session.upgrade() {
            Some(session) => session.renew(),
            None => return,
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
