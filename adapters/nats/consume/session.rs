//! A subscription on one connection: requests for messages, unsettled deliveries, and settling.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{Client, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::driver::{Confirmation, Disposition};
use crate::error::{Error, ErrorKind};

use super::super::connection::health::Health;
use super::super::connection::link::{Link, send};
use super::super::error;
use super::super::headers::reply_subject::{self, Tokens};
use super::attempts::{Attempts, Past};
use super::consumer::Consumer;
use super::state::{Arrived, Body, Lost, State};
use super::trial::Trial;
use super::unreadable::Quarantined;
use super::window::{Unsettled, Window};

/// Lifetime of a request for messages.
const EXPIRES: Duration = Duration::from_secs(30);
/// Interval at which the server shows that it still has the request.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);
/// Time without a sign of life after which the request counts as lost.
const PATIENCE: Duration = Duration::from_secs(12);
/// Maximum wait for messages that the server is still sending to a subscription that ends.
const LEAVE: Duration = Duration::from_secs(2);
/// Number of messages whose attempts are read at a time.
const AT_A_TIME: usize = 32;
/// Number of the server's notices that may be among these messages.
const NOTICES: u64 = 8;

/// The session. Handles of deliveries hold it, and can settle as long as it is the current one.
pub(crate) struct Session {
    pub(crate) link: Arc<Link>,
    client: Client,
    health: Health,
    epoch: u64,
    inbox: Subject,
    confirm: bool,
    pub(crate) consumer: Consumer,
    pub(crate) since: Instant,
    found: bool,
    state: Arc<Mutex<State>>,
    pub(crate) attempts: Arc<Attempts>,
    /// Held while the session leaves: a second call waits for what the first one gives back.
    leaving: tokio::sync::Mutex<()>,
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
        let Opening { link, client, epoch, subscriber, inbox, consumer, limit, confirm, quarantined, attempts } =
            opening;
        let found = !quarantined.is_empty();
        let mut window = Window::new(limit, found);
        let ready = quarantined.into_iter().map(|message| {
            let reply = reply_subject::acknowledge(&consumer.stream, &consumer.name, message.sequence);
            let (message, tenure, past) = (Arc::new(message), window.tenure(), Some(Past::here(1)));
            let slot = window.open(reply.into(), Some(Arc::clone(&message)));
            Arrived { body: Body::Quarantined(message), slot, tenure, past }
        });
        let ready: VecDeque<Arrived> = ready.collect();
        let replies = window.replies();
        let request = window.take_request(false);
        let state = Arc::new(Mutex::new(State::new(subscriber, ready, window, Arc::clone(&attempts))));
        let (health, since) = (Health::of(client.clone()), Instant::now());
        let session = Arc::new(Self {
            link,
            client,
            health,
            epoch,
            inbox,
            confirm,
            consumer,
            since,
            found,
            state,
            attempts,
            leaving: Default::default(),
        });
        // From now on, the messages that were found must not be redelivered.
        for reply in replies {
            session.extend(&reply);
        }
        session.ask_for(request);
        session
    }

    /// Polls for the next message, or the end of the session.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Arrived, Lost>> {
        let mut state = self.state.lock();
        state.waker = None;
        if !self.health.is_same(self.epoch) {
            state.window.end();
            return Poll::Ready(Err(Lost::Connection));
        }
        let next = state.next(cx);
        match &next {
            Poll::Pending => state.waker = Some(cx.waker().clone()),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => state.window.end(),
        }
        let request = state.take_request();
        let uncounted = std::mem::take(&mut state.uncounted);
        drop(state);
        self.ask_for(request);
        self.count(uncounted);
        next
    }

    /// Returns `true` if the session brought any message.
    pub(crate) fn has_delivered(&self) -> bool {
        self.found || self.state.lock().seen.is_some()
    }

    /// Settles a delivery. If it was tried, the note is withdrawn, also if the delivery is lost.
    pub(crate) fn settle(
        self: &Arc<Self>,
        delivery: HandedOut,
        disposition: Disposition,
        trial: Option<Trial>,
    ) -> Confirmation<()> {
        let HandedOut { slot, tokens, attempt } = delivery;
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
        let out = state.window.close(slot);
        let request = state.take_request();
        drop(state);
        self.ask_for(request);
        let Some(out) = out.filter(|out| !out.is_over(self.consumer.ack_wait)) else {
            return Confirmation::ready(Err(error::settlement_lost()));
        };
        if let Disposition::Retry(delay) = disposition {
            self.comes_again(&tokens, delay);
        } else if disposition == Disposition::GiveBack {
            self.comes_again(&tokens, Duration::ZERO);
        }
        let is_retry = matches!(disposition, Disposition::Retry(_));
        let failed = (is_retry && self.attempts.fail(&tokens, attempt)).then_some(attempt);
        if failed.is_some() || (trial.is_some() && disposition == Disposition::GiveBack) {
            return self.send_back(&tokens, failed, trial, out.reply, payload(disposition));
        }
        let confirmation = self.tell(out.reply, payload(disposition));
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
        if !self.health.is_same(self.epoch) || !state.window.set_aside(slot) {
            return false;
        }
        let request = state.take_request();
        drop(state);
        self.ask_for(request);
        true
    }

    fn tell(&self, reply: Subject, payload: Bytes) -> Confirmation<()> {
        match self.confirm {
            true => self.link.confirm(reply, payload),
            false => Confirmation::ready(self.link.tell(reply, payload)),
        }
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
        payload: Bytes,
    ) -> Confirmation<()> {
        let (confirmer, confirmation) = Confirmation::pending();
        let (session, sequence) = (Arc::clone(self), tokens.stream_sequence);
        self.link.record(async move {
            match (trial, failed) {
                (Some(trial), failed) => trial.end(failed).await,
                (None, Some(failed)) => session.attempts.keep(&session.link, sequence, failed).await,
                (None, None) => {}
            }
            let settled = match session.health.is_same(session.epoch) {
                true => session.tell(reply, payload).await,
                false => Err(error::settlement_lost()),
            };
            confirmer.confirm(settled);
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

    /// Ends reading: messages that were not delivered go back to the group at once. Deliveries can
    /// still be settled.
    pub(crate) async fn leave(&self) {
        let _leaving = self.leaving.lock().await;
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
    /// Messages that were sent back count as not settled until they come again.
    pub(crate) fn end(&self) -> Option<u64> {
        let (out, seen) = {
            let mut state = self.state.lock();
            let mut out = state.take_unseen();
            out.extend(state.window.close_all());
            (out, state.seen)
        };
        let unsettled =
            out.iter().filter_map(|out| Tokens::read(&out.reply)).map(|tokens| tokens.stream_sequence).min();
        self.give_back(out);
        let sent_back = self.attempts.sent_back.lock().first();
        let first = unsettled.into_iter().chain(sent_back).min();
        first.or(seen.map(|seen| seen.saturating_add(1)))
    }

    /// Tells the server to redeliver. This is sent after the end of the subscription on the same
    /// connection, because otherwise the redelivery could go to this session.
    fn give_back(&self, unsettled: Vec<Unsettled>) {
        let again = payload(Disposition::GiveBack);
        // Messages that the client cannot read are not given back; the server redelivers them after
        // `ack_wait`.
        for out in unsettled.into_iter().filter(|out| out.quarantined.is_none()) {
            Tokens::read(&out.reply).inspect(|tokens| self.comes_again(tokens, Duration::ZERO));
            let message =
                OutboundMessage { subject: out.reply.clone(), payload: again.clone(), reply: None, headers: None };
            if send(&self.client, message).is_err() {
                // If this fails too, the server redelivers the message after `ack_wait`.
                let _ = self.link.tell(out.reply, again.clone());
            }
        }
    }

    /// Notes that the server redelivers a message: after this delay, or if the request for it is
    /// lost, after `ack_wait`.
    fn comes_again(&self, tokens: &Tokens, delay: Duration) {
        let within = delay.saturating_add(self.consumer.ack_wait.saturating_mul(2));
        self.attempts.sent_back.lock().add(tokens.stream_sequence, within);
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

    /// Looks at the connection; `false` if it is lost, so that the deliveries are.
    pub(crate) fn look(&self) -> bool {
        let state = &mut *self.state.lock();
        let is_silent = state.window.requested() > 0 && state.heard.elapsed() > PATIENCE;
        if self.health.is_same(self.epoch) && !is_silent {
            return true;
        }
        Self::lose(state, Lost::Connection);
        false
    }

    /// Ends the session, because its consumer was deleted.
    pub(crate) fn lose_consumer(&self) {
        let message = "the consumer of the group was deleted; the subscription is opened again";
        let error = Error::new(ErrorKind::Unavailable, message).with_context("consumer", &self.consumer.name);
        Self::lose(&mut self.state.lock(), Lost::Ended(error));
    }

    fn lose(state: &mut State, lost: Lost) {
        state.window.end();
        state.lost.get_or_insert(lost);
        state.wake();
    }

    /// Asks the server for more time for unsettled deliveries, and reads what has arrived.
    ///
    /// Returns one of the deliveries, if there are any, and the number of those that were not
    /// renewed in time.
    pub(crate) fn renew(&self) -> (Option<Subject>, usize) {
        let mut state = self.state.lock();
        state.read_ahead();
        if state.lost.is_some() {
            state.window.end();
        }
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
    fn extend(&self, reply: &Subject) -> bool {
        self.link.tell(reply.clone(), Bytes::from_static(b"+WPI")).is_ok()
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
