//! The connection that publishes, acknowledges and asks. Messages are read on connections of their own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::client::traits::Publisher;
use async_nats::connection::State;
use async_nats::message::OutboundMessage;
use async_nats::{Client, Message, Statistics, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tokio_util::task::AbortOnDropHandle;

use crate::driver::Confirmation;
use crate::error::{Error, ErrorKind, Result};

use super::dial::Notices;
use super::error;
use super::replies::{self, Awaiting, Replies};

/// One connection, with everything that awaits an answer on it.
pub(super) struct Link {
    client: Client,
    health: Arc<Health>,
    replies: Arc<Replies>,
    unconfirmed: AtomicU64,
    _reader: AbortOnDropHandle<()>,
}

/// Whether a client is connected, and for the how-manieth time: each connection is an epoch.
pub(super) struct Health {
    client: Client,
    statistics: Arc<Statistics>,
}

impl Link {
    /// Uses a connected client; answers may take as long as `timeout`.
    pub(super) async fn over(client: Client, notices: Arc<Notices>, timeout: Duration) -> Result<Self> {
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(format!("{inbox}.*")).await.map_err(error::subscribe)?;
        let replies = Arc::new(Replies::new(&inbox, timeout));
        let health = Arc::new(Health::of(client.clone()));
        let reading = replies::read(Arc::clone(&replies), subscriber, Arc::clone(&health), notices);
        let _reader = AbortOnDropHandle::new(tokio::spawn(reading));
        Ok(Self { client, health, replies, unconfirmed: AtomicU64::new(0), _reader })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// A name unlike any other: the client's inboxes have that property.
    pub(super) fn unique(&self) -> String {
        self.client.new_inbox().rsplit('.').next().unwrap_or_default().to_owned()
    }

    /// Counts what is sent without an answer to wait for.
    pub(super) fn count_unconfirmed(&self) -> u64 {
        self.unconfirmed.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a message that asks for an answer; whoever waits for it also hears when it could not be sent.
    pub(super) fn ask(&self, mut message: OutboundMessage, awaiting: Awaiting) {
        let (token, subject) = self.replies.enter(awaiting, self.health.epoch());
        message.reply = Some(subject);
        self.post(message, token);
    }

    fn post(&self, message: OutboundMessage, token: u64) {
        let posted = if self.health.is_connected() { send(&self.client, message) } else { Err(error::disconnected()) };
        if let Err(error) = posted {
            self.replies.refuse(token, error);
        }
    }

    /// Asks and waits.
    pub(super) async fn request(&self, subject: Subject, payload: Bytes) -> Result<Message> {
        let (sender, receiver) = oneshot::channel();
        let message = OutboundMessage { subject, payload, reply: None, headers: None };
        self.ask(message, Awaiting::Request(sender));
        receiver.await.unwrap_or_else(|_| Err(error::ended()))
    }

    /// Waits until the server has read everything that was sent before: a message to ourselves has come back.
    pub(super) async fn round_trip(&self) -> Result<()> {
        let (sender, receiver) = oneshot::channel();
        let (token, subject) = self.replies.enter(Awaiting::Request(sender), self.health.epoch());
        self.post(OutboundMessage { subject, payload: Bytes::new(), reply: None, headers: None }, token);
        receiver.await.unwrap_or_else(|_| Err(error::ended())).map(drop)
    }

    /// Sends a settlement and waits for nothing but its way into the client's queue.
    pub(super) fn tell(&self, subject: Subject, payload: Bytes) -> Result<()> {
        if !self.health.is_connected() {
            return Err(error::settlement_lost());
        }
        send(&self.client, OutboundMessage { subject, payload, reply: None, headers: None })
    }

    /// Sends a settlement that the server answers.
    pub(super) fn confirm(&self, subject: Subject, payload: Bytes) -> Confirmation<()> {
        let (confirmer, confirmation) = Confirmation::pending();
        let message = OutboundMessage { subject, payload, reply: None, headers: None };
        self.ask(message, Awaiting::Settle(confirmer));
        confirmation
    }
}

/// Puts a message into the client's queue, at once: in the order of the calls, and without waiting.
///
/// The client only has a function that waits for room. With room it is ready at its first poll, unless tokio makes it yield
/// for having done enough in this turn, which `unconstrained` forbids.
pub(super) fn send(client: &Client, message: OutboundMessage) -> Result<()> {
    match unconstrained(client.publish_message(message)).now_or_never() {
        Some(sent) => sent.map_err(error::enqueue),
        None => Err(Error::new(ErrorKind::Busy, "the client's queue is full: the server does not keep up")),
    }
}

impl Health {
    pub(super) fn of(client: Client) -> Self {
        let statistics = client.statistics();
        Self { client, statistics }
    }

    /// The number of the present or last connection.
    pub(super) fn epoch(&self) -> u64 {
        self.statistics.connects.load(Ordering::Relaxed)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Whether the connection of that number is still there.
    pub(super) fn is_same(&self, epoch: u64) -> bool {
        self.epoch() == epoch && self.is_connected()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("health", &self.health).finish_non_exhaustive()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (epoch, connected) = (self.epoch(), self.is_connected());
        f.debug_struct("Health").field("epoch", &epoch).field("connected", &connected).finish()
    }
}
