//! A subscription on one connection: requests for messages, unsettled deliveries, and settling.

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

use crate::driver::{Confirmation, Disposition, Tenure};

use super::super::connection::health::Health;
use super::super::connection::link::{Link, send};
use super::super::error;
use super::super::headers::reply_subject::{self, Tokens};
use super::state::{Arrived, Lost, State};
use super::unreadable::Quarantined;
use super::window::{Unsettled, Window};

/// Lifetime of a request for messages.
const EXPIRES: Duration = Duration::from_secs(30);
/// Interval at which the server shows that it still has the request.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Time without a sign of life after which the request counts as lost.
const PATIENCE: Duration = Duration::from_secs(12);
/// Maximum wait for messages that the server is still sending to a subscription that ends.
const LEAVE: Duration = Duration::from_secs(2);
/// Number of the server's notices that may be among these messages.
const NOTICES: u64 = 8;

/// The consumer from which messages are requested and to which they are acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    pub(crate) stream: String,
    pub(crate) name: String,
    pub(crate) next: Subject,
    pub(crate) ack_wait: Duration,
    /// Maximum size and, in the next field, maximum lifetime of a request, if the consumer is so
    /// configured.
    pub(crate) max_batch: Option<usize>,
    pub(crate) max_expires: Option<Duration>,
}

/// The session. Handles of deliveries hold it, and can settle as long as it is the current one.
pub(crate) struct Session {
    link: Arc<Link>,
    client: Client,
    health: Health,
    epoch: u64,
    inbox: Subject,
    confirm: bool,
    pub(crate) consumer: Consumer,
    pub(crate) since: Instant,
    found: bool,
    state: Mutex<State>,
    /// Ends with the connection.
    pub(crate) tenure: Tenure,
    _keeper: AbortOnDropHandle<()>,
}

/// The parts of a new session.
pub(crate) struct Opening {
    pub(crate) link: Arc<Link>,
    pub(crate) client: Client,
    pub(crate) epoch: u64,
    pub(crate) subscriber: Subscriber,
    pub(crate) inbox: Subject,
    pub(crate) consumer: Consumer,
    pub(crate) limit: usize,
    pub(crate) confirm: bool,
    pub(crate) quarantined: Vec<Quarantined>,
}

impl Session {
    /// Opens a session, and requests messages.
    pub(crate) fn open(opening: Opening) -> Arc<Self> {
        let Opening { link, client, epoch, subscriber, inbox, consumer, limit, confirm, quarantined } = opening;
        let found = !quarantined.is_empty();
        let mut window = Window::new(limit, found);
        let ready = quarantined.into_iter().map(|message| {
            let reply = reply_subject::acknowledge(&consumer.stream, &consumer.name, message.sequence);
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
            tenure: Tenure::new(),
        });
        // From now on, the messages that were found must not be redelivered.
        session.extend(replies);
        session.ask_for(request);
        session
    }

    /// Polls for the next message, or the end of the session.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Arrived, Lost>> {
        let mut state = self.state.lock();
        state.waker = None;
        if !self.health.is_same(self.epoch) {
            self.tenure.end();
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

    /// Returns `true` if the connection is gone, or the server has been silent for too long.
    pub(crate) fn is_lost(&self) -> bool {
        let silent = |state: &State| state.window.requested() > 0 && state.heard.elapsed() > PATIENCE;
        !self.health.is_same(self.epoch) || silent(&self.state.lock())
    }

    /// Returns `true` if the session brought any message.
    pub(crate) fn has_delivered(&self) -> bool {
        self.found || self.state.lock().seen.is_some()
    }

    /// Settles the delivery in this slot of the window.
    pub(crate) fn settle(self: &Arc<Self>, slot: usize, disposition: Disposition) -> Confirmation<()> {
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

    /// Delivers again, after a delay, a message that the server must not redeliver.
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
        // If the session was closed in the meantime, the server redelivers the message to the next
        // reader.
        if state.subscriber.is_some() && state.window.renew(slot, &message) {
            state.ready.push_back(Arrived::Quarantined(message, slot));
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }

    /// Ends reading: messages that were not delivered go back to the group at once. Deliveries can
    /// still be settled.
    pub(crate) async fn leave(&self) {
        let subscriber = {
            let mut state = self.state.lock();
            state.leaving = true;
            state.read_ahead();
            state.subscriber.take()
        };
        if let Some(subscriber) = subscriber {
            // If this times out, messages on their way are redelivered after `ack_wait`.
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

    /// Waits until the server has read everything that was sent on the reading connection, by
    /// sending a message to this client's own subject.
    ///
    /// The client's own flush may return while there is still something to write, if the client has
    /// done enough for one turn of its task. Data that is not written when its last handle is
    /// dropped is lost.
    pub(crate) async fn arrive(&self) {
        let echo = async {
            let inbox = self.client.new_inbox();
            let mut subscriber = self.client.subscribe(inbox.clone()).await.ok()?;
            self.client.publish(inbox, Bytes::new()).await.ok()?;
            subscriber.next().await
        };
        // If this times out, the connection is lost, and the messages given back on it are
        // redelivered after `ack_wait`.
        let _ = timeout(LEAVE, echo).await;
    }

    /// Reads all messages that the server sends until it knows of the end of the subscription.
    ///
    /// The client drops messages that arrive after it has asked for the end. So the end is set, at
    /// the server too, to a point after all requested messages, and messages to this client's own
    /// subject fill the gap until that point is reached.
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

    /// Stops delivering, and takes out everything unsettled, whose handles are now stale.
    pub(crate) fn suspend(&self) -> Vec<Unsettled> {
        let mut state = self.state.lock();
        state.leaving = true;
        state.take_all()
    }

    /// Ends the session after [`suspend`](Self::suspend), so that another is opened. The deliveries
    /// passed in go back to the group at once.
    pub(crate) fn release(&self, unsettled: Vec<Unsettled>) {
        self.give_back(unsettled);
        let waker = {
            let mut state = self.state.lock();
            state.leaving = false;
            state.lost = Some(Lost::Moved);
            state.waker.take()
        };
        waker.inspect(Waker::wake_by_ref);
    }

    /// Ends the session: everything unsettled goes back to the group at once, and its handles are
    /// stale.
    ///
    /// Returns the first sequence in the stream that is not settled, if the session learned any.
    pub(crate) fn end(&self) -> Option<u64> {
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

    /// Tells the server to redeliver. This is sent after the end of the subscription on the same
    /// connection, because otherwise the redelivery could go to this session.
    fn give_back(&self, unsettled: Vec<Unsettled>) {
        let again = payload(Disposition::GiveBack);
        // Messages that the client cannot read are not given back; the server redelivers them after
        // `ack_wait`.
        for out in unsettled.into_iter().filter(|out| out.quarantined.is_none()) {
            let message =
                OutboundMessage { subject: out.reply.clone(), payload: again.clone(), reply: None, headers: None };
            if send(&self.client, message).is_err() {
                // If this fails too, the server redelivers the message after `ack_wait`.
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
            // A request that is not sent is noticed by the silence that follows.
            let _ = send(&self.client, message);
            rest -= batch;
        }
    }

    /// Asks the server for more time for unsettled deliveries, and reads what has arrived while the
    /// stream is not polled.
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
            // If this fails, the connection is lost, and the session with it.
            let _ = self.link.tell(reply, Bytes::from_static(b"+WPI"));
        }
    }
}

/// Returns a quarter of the time that the server waits. The first extension is sent after one to
/// two periods, which leaves half of the time for it to be late.
fn period(ack_wait: Duration) -> Duration {
    (ack_wait / 4).clamp(Duration::from_millis(20), HEARTBEAT)
}

/// Keeps unsettled deliveries from being redelivered, for as long as the session exists.
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
        Disposition::Retry(Duration::ZERO) | Disposition::GiveBack => Bytes::from_static(b"-NAK"),
        Disposition::Retry(delay) => format!(r#"-NAK {{"delay":{}}}"#, delay.as_nanos()).into(),
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("consumer", &self.consumer).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
