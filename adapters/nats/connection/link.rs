//! The connection that publishes, acknowledges and sends requests. Messages are read on other
//! connections.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::client::traits::Publisher;
use async_nats::message::OutboundMessage;
use async_nats::{Client, Message, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tokio::time::timeout;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::driver::Confirmation;
use crate::error::{Error, ErrorKind, Result};

use super::super::error;
use super::super::headers::reply_subject;
use super::background::Background;
use super::dial::Notices;
use super::elections::Elections;
use super::health::Health;
use super::replies::{self, Again, Awaiting, Replies};

/// A connection, with everything that awaits an answer on it.
pub(crate) struct Link {
    client: Client,
    health: Arc<Health>,
    replies: Arc<Replies>,
    unconfirmed: AtomicU64,
    background: Arc<Background>,
    /// Retries whose failed attempt is being written down, and notes of trials.
    records: TaskTracker,
    patience: Duration,
    /// The subject at which the server answers every user; `None` if there is none.
    info: Option<Subject>,
    notices: Arc<Notices>,
    _reader: AbortOnDropHandle<()>,
}

impl Link {
    /// Uses a connected client; an answer may take up to the first time-out, and the election of a
    /// leader up to the second. The server answers at `info`.
    pub(crate) async fn over(
        client: Client,
        notices: Arc<Notices>,
        (timeout, election_wait): (Duration, Duration),
        background: &Arc<Background>,
        info: Option<Subject>,
    ) -> Result<Self> {
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(format!("{inbox}.*")).await.map_err(error::subscribe)?;
        let replies = Arc::new(Replies::new(&inbox, timeout, election_wait));
        let health = Arc::new(Health::of(client.clone()));
        let reading = replies::read(Arc::clone(&replies), subscriber, Arc::clone(&health), Arc::clone(&notices));
        let _reader = background.spawn(reading);
        let (background, records, unconfirmed) = (Arc::clone(background), TaskTracker::new(), AtomicU64::new(0));
        Ok(Self {
            client,
            health,
            replies,
            unconfirmed,
            background,
            records,
            patience: timeout,
            info,
            notices,
            _reader,
        })
    }

    /// Returns the thread on which this connection runs.
    pub(crate) fn background(&self) -> &Background {
        &self.background
    }

    /// Runs what writes to the records of messages, for which [`recorded`](Self::recorded) waits.
    pub(crate) fn record(&self, writing: impl Future<Output = ()> + Send + 'static) {
        drop(self.records.spawn_on(writing, self.background.runtime()));
    }

    /// Waits until all records are written and all retries have been sent, or the time is over.
    /// Messages whose retry is not sent are redelivered after `ack_wait`.
    pub(crate) async fn recorded(&self, patience: Duration) {
        self.records.close();
        let _ = timeout(patience, self.records.wait()).await;
    }

    /// Returns the error while the connection is down.
    pub(crate) fn disconnected(&self) -> Error {
        self.notices.disconnected()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn elections(&self) -> &Elections {
        &self.replies.elections
    }

    /// Returns `true` if the request with this number waits for its answer.
    pub(crate) fn awaits(&self, number: u64) -> bool {
        self.replies.awaits(number)
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Returns the maximum time for an answer.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Returns a unique name, taken from the client's inboxes.
    pub(crate) fn unique(&self) -> String {
        self.client.new_inbox().rsplit('.').next().unwrap_or_default().to_owned()
    }

    /// Counts a message that is sent without waiting for an answer, and returns the number of those
    /// before it.
    pub(crate) fn count_unconfirmed(&self) -> u64 {
        self.unconfirmed.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a message that is answered; the waiting side also learns if it could not be sent.
    /// Returns the number of the request.
    pub(crate) fn ask(&self, mut message: OutboundMessage, awaiting: Awaiting) -> u64 {
        let (token, subject) = self.replies.enter(awaiting, message.subject.clone(), self.health.epoch());
        message.reply = Some(subject);
        self.post(message, token);
        token
    }

    fn post(&self, message: OutboundMessage, token: u64) {
        let posted = if self.health.is_connected() { send(&self.client, message) } else { Err(self.disconnected()) };
        if let Err(error) = posted {
            self.replies.refuse(token, error);
        }
    }

    /// Sends a request and waits for the answer.
    pub(crate) async fn request(&self, subject: Subject, payload: Bytes) -> Result<Message> {
        self.request_with(OutboundMessage { subject, payload, reply: None, headers: None }).await
    }

    /// Sends a request with headers and waits for the answer.
    pub(crate) async fn request_with(&self, message: OutboundMessage) -> Result<Message> {
        let (sender, receiver) = oneshot::channel();
        self.ask(message, Awaiting::Request(sender));
        receiver.await.unwrap_or_else(|_| Err(error::ended()))
    }

    /// Waits until the server has read everything that was sent before, by a request that every
    /// user may send. Without JetStream there is none, and it is a message to this client's own
    /// subject.
    pub(crate) async fn round_trip(&self) -> Result<()> {
        if let Some(info) = &self.info {
            return self.request(info.clone(), Bytes::new()).await.map(drop);
        }
        let (sender, receiver) = oneshot::channel();
        let (token, subject) =
            self.replies.enter(Awaiting::Request(sender), Subject::from_static(""), self.health.epoch());
        self.post(OutboundMessage { subject, payload: Bytes::new(), reply: None, headers: None }, token);
        receiver.await.unwrap_or_else(|_| Err(error::ended())).map(drop)
    }

    /// Waits until the server has processed everything that was sent without waiting for an answer,
    /// for the consumers of these groups too, which are named by stream and consumer.
    pub(crate) async fn bring_home(&self, groups: Vec<(String, String)>) -> Result<()> {
        self.round_trip().await?;
        for (stream, consumer) in groups {
            self.processed(&stream, &consumer).await?;
        }
        Ok(())
    }

    /// Waits until the server has processed everything that was sent to a consumer before.
    pub(crate) async fn processed(&self, stream: &str, consumer: &str) -> Result<()> {
        // The server processes requests for a consumer in order. Asking for more time for a message
        // that is not delivered is a no-op, but the answer shows that all earlier requests are
        // done.
        let last = reply_subject::acknowledge(stream, consumer, u64::MAX);
        match self.confirm(last.into(), "+WPI".into()).await {
            // The consumer is gone, so there is no settlement to wait for.
            Err(error) if error.kind() == ErrorKind::SettlementLost => Ok(()),
            answered => answered,
        }
    }

    /// Puts a settlement into the client's queue, without waiting for an answer.
    pub(crate) fn tell(&self, subject: Subject, payload: Bytes) -> Result<()> {
        if !self.health.is_connected() {
            return Err(error::settlement_lost());
        }
        send(&self.client, OutboundMessage { subject, payload, reply: None, headers: None })
    }

    /// Sends a settlement that the server answers.
    pub(crate) fn confirm(&self, subject: Subject, payload: Bytes) -> Confirmation<()> {
        self.confirm_again(subject, payload, None)
    }

    /// Sends a settlement that the server answers. If the connection is lost before, it is sent
    /// `again`, unless that is `None`.
    pub(crate) fn confirm_again(&self, subject: Subject, payload: Bytes, again: Option<Again>) -> Confirmation<()> {
        let (confirmer, confirmation) = Confirmation::pending();
        let message = OutboundMessage { subject, payload, reply: None, headers: None };
        self.ask(message, Awaiting::Settle(confirmer, again));
        confirmation
    }
}

/// Puts a message into the client's queue at once: in the order of the calls, and without waiting.
///
/// The client only has a function that waits for room. If there is room, it is ready at its first
/// poll, unless tokio makes it yield because the task has used up its budget. `unconstrained`
/// prevents that.
pub(crate) fn send(client: &Client, message: OutboundMessage) -> Result<()> {
    match unconstrained(client.publish_message(message)).now_or_never() {
        Some(sent) => sent.map_err(error::enqueue),
        None => Err(Error::new(ErrorKind::Busy, "the client's queue is full: the server does not keep up")),
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("health", &self.health).finish_non_exhaustive()
    }
}
