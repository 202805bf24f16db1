//! The ends of a session, of its intake, and of one of its lines.

use std::task::Waker;
use std::time::Duration;

use async_nats::message::OutboundMessage;
use async_nats::{Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{sleep, timeout};

use crate::driver::Disposition;

use super::super::connection::health::Health;
use super::super::connection::link::send;
use super::super::headers::reply_subject::Tokens;
use super::line::Line;
use super::session::{Session, payload};
use super::state::Lost;
use super::unreadable::Quarantined;
use super::window::Unsettled;
use crate::adapters::nats::connection::api;

/// Maximum wait for messages that the server is still sending to a subscription that ends.
const LEAVE: Duration = Duration::from_secs(2);
/// Maximum wait for the server's answer when a line is given up.
const HANG_UP: Duration = Duration::from_millis(500);
/// Interval of the checks for a connection that is lost again.
const LOOK: Duration = Duration::from_millis(20);
/// The server refuses this as a request for messages, in their place among them.
const NO_REQUEST: Bytes = Bytes::from_static(b"{");
/// Number of the server's notices that may be among these messages.
const NOTICES: u64 = 8;

impl Session {
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

    /// Waits until the server has read everything that was sent on the reading connection.
    ///
    /// The client's own flush may return while there is still something to write, if the client has
    /// done enough for one turn of its task. Data that is not written when its last handle is
    /// dropped is lost.
    pub(crate) async fn arrive(&self) {
        let (client, _) = self.state.lock().line.ends();
        // If this times out, the connection is lost, and the messages given back on it are
        // redelivered after `ack_wait`.
        let _ = timeout(LEAVE, client.request(api::info(), Bytes::new())).await;
    }

    /// Ends reading over a line that is lost: what has arrived is in hand, and what is on its way
    /// does not come. Returns `false` if the connection was lost again meanwhile: until the server
    /// knows, it may hand out more.
    pub(crate) async fn hang_up(&self) -> bool {
        let (client, has_hung_up) = {
            let mut state = self.state.lock();
            state.read_ahead();
            drop(state.subscriber.take());
            (state.line.ends().0, state.has_hung_up)
        };
        if has_hung_up {
            return true;
        }
        // The client subscribes again by itself. From here on the server knows better.
        let health = Health::of(client);
        let epoch = health.epoch();
        let lost = async {
            while health.is_same(epoch) {
                sleep(LOOK).await;
            }
        };
        // A busy server may answer late, but reads what was sent on a connection that lives.
        let has_hung_up = tokio::select! {
            _ = timeout(HANG_UP, self.arrive()) => health.is_same(epoch),
            () = lost => false,
        };
        self.state.lock().has_hung_up = has_hung_up;
        has_hung_up
    }

    /// Goes on over another line.
    pub(crate) fn resume(&self, line: Line, subscriber: Subscriber, deliveries: u64, found: Vec<Quarantined>) {
        let replies: Vec<Subject> = {
            let mut state = self.state.lock();
            state.resume(line, subscriber, deliveries);
            state.quarantine(&self.consumer, found);
            state.window.out().map(|out| out.reply.clone()).collect()
        };
        self.repeat_unanswered();
        // The server has waited, and must not redeliver what is in hand.
        for reply in replies {
            self.extend(&reply);
        }
        self.request();
        self.lines.send_modify(|lines| *lines = lines.map(|lines| lines + 1));
        self.state.lock().wake();
    }

    /// Reads all messages that the server sends until it knows of the end of the subscription.
    ///
    /// The client drops messages that arrive after it has asked for the end. So the end is set, at
    /// the server too, to a point after all requested messages, and refusals of requests that are
    /// none fill the gap until that point is reached. Every consumer may ask for them.
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
        let (client, inbox) = self.state.lock().line.ends();
        for _ in 0..rest {
            let refused = client.publish_with_reply(self.consumer.next.clone(), inbox.clone(), NO_REQUEST).await;
            ended |= refused.is_err();
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
        self.lines.send_replace(None);
        let mut state = self.state.lock();
        state.leaving = false;
        state.lost = Some(Lost::Moved);
        state.wake();
    }

    /// Returns the first sequence in the stream that is not settled, if the session learned any.
    /// Messages that were sent back count as not settled until they come again.
    pub(crate) fn first_unsettled(&self) -> Option<u64> {
        let sent_back = self.attempts.sent_back.lock().first();
        self.state.lock().first_unsettled(sent_back)
    }

    /// Ends the session: everything unsettled goes back to the group at once, and its handles are
    /// stale.
    pub(crate) fn end(&self) {
        self.lines.send_replace(None);
        let unsettled = self.state.lock().take_all();
        self.give_back(unsettled);
    }

    /// Ends the session whose consumer is gone: nothing can go back.
    pub(crate) fn forget(&self) {
        self.lines.send_replace(None);
        drop(self.state.lock().take_all());
    }

    /// Tells the server to redeliver. This is sent after the end of the subscription on the same
    /// connection, because otherwise the redelivery could go to this session.
    fn give_back(&self, unsettled: Vec<Unsettled>) {
        let again = payload(Disposition::GiveBack);
        let (client, _) = self.state.lock().line.ends();
        // Messages that the client cannot read are not given back; the server redelivers them after
        // `ack_wait`.
        for out in unsettled.into_iter().filter(|out| out.quarantined.is_none()) {
            Tokens::read(&out.reply).inspect(|tokens| self.comes_again(tokens, Duration::ZERO));
            let message =
                OutboundMessage { subject: out.reply.clone(), payload: again.clone(), reply: None, headers: None };
            if send(&client, message).is_err() {
                // If this fails too, the server redelivers the message after `ack_wait`.
                let _ = self.link.tell(out.reply, again.clone());
            }
        }
    }
}
