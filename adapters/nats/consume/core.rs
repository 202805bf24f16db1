//! Core NATS: the subscribers of the moment get a message once or not at all.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subject};
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::driver::{AttributeValue, Confirmation, DeliveryHandle, Disposition, Inbound, Tenure};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Guarantee, Start, Subscription};

use super::super::config::Config;
use super::super::connection::dial::{Dial, Notices, Queues, pause};
use super::super::connection::link::Link;
use super::super::error;
use super::super::headers::{self, Contents};
use super::unread::{self, MESSAGES, Queue, Unread};

/// The bounds of a listening client, whose messages are read at once.
const QUEUES: Queues = Queues { outgoing: 256, incoming: MESSAGES };

/// Checks that core NATS can serve a subscription.
pub(crate) fn check(subscription: &Subscription) -> Result<()> {
    if subscription.guarantee() != Guarantee::AtMostOnce {
        let message = "core NATS forgets a message once it is handed out: subscribe at_most_once(), or use JetStream";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    // The default start of a group cannot be distinguished from an explicit `Earliest`. Core
    // NATS has no earlier messages, so both mean now.
    let is_now = match subscription.start_position() {
        Start::Earliest => subscription.group_name().is_some(),
        start => start == Start::Latest,
    };
    if !is_now {
        let message = "core NATS keeps no messages to start from: start at the latest, or use JetStream";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(())
}

/// A subscription to a subject, as a member of a queue group or alone.
#[derive(Debug)]
pub(crate) struct Listener {
    config: Arc<Config>,
    dial: Dial,
    subject: Subject,
    group: Option<String>,
    closed: CancellationToken,
    notices: Arc<Notices>,
    unread: Arc<Queue>,
    /// Fills the queue; `None` while there is no client.
    reading: Option<AbortOnDropHandle<()>>,
    attempt: usize,
    /// Does not end: nothing is settled.
    tenure: Tenure,
}

impl Listener {
    /// Opens a listener, which listens from the moment this returns.
    pub(crate) async fn open(
        config: &Arc<Config>,
        dial: &Dial,
        subject: Subject,
        group: Option<String>,
        closed: CancellationToken,
    ) -> Result<Self> {
        let (config, dial) = (Arc::clone(config), dial.clone());
        let notices = Arc::new(Notices::default());
        let (unread, tenure) = (Arc::default(), Tenure::new());
        let mut listener =
            Self { config, dial, subject, group, closed, notices, unread, reading: None, attempt: 0, tenure };
        listener.subscribe().await?;
        Ok(listener)
    }

    async fn subscribe(&mut self) -> Result<()> {
        let client = self.dial.client(QUEUES, &self.notices).await?;
        let subscriber = match &self.group {
            Some(group) => client.queue_subscribe(self.subject.clone(), group.clone()).await,
            None => client.subscribe(self.subject.clone()).await,
        };
        let subscriber = subscriber.map_err(error::subscribe)?;
        // After a round trip the server knows of the subscription too.
        let (notices, background) = (Arc::clone(&self.notices), self.dial.background());
        let patience = (self.config.confirm_timeout, Duration::ZERO);
        let link = Link::over(client.clone(), notices, patience, background, None).await?;
        link.round_trip().await?;
        self.unread = Arc::default();
        let reading = unread::read(subscriber, client, Arc::clone(&self.unread));
        self.reading = Some(self.dial.background().spawn(reading));
        Ok(())
    }

    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Inbound>> {
        let next = |mut listener: Self| async move {
            let item = listener.next().await?;
            Some((item, listener))
        };
        stream::unfold(self, next).fuse()
    }

    async fn next(&mut self) -> Option<Result<Inbound>> {
        let closed = self.closed.clone();
        tokio::select! {
            biased;
            () = closed.cancelled() => None,
            item = self.item() => Some(item),
        }
    }

    async fn item(&mut self) -> Result<Inbound> {
        if self.reading.is_none() {
            // The client restores a lost connection. Only a client that has given up for good ends
            // its subscriptions.
            self.attempt += 1;
            sleep(pause(self.attempt + 1)).await;
            self.subscribe().await?;
            return Err(missed());
        }
        // The client's own queue fills only if its thread does not run.
        let lost = self.notices.take_dropped();
        if lost > 0 {
            return Err(dropped(lost));
        }
        let unread = self.unread.next().await;
        match unread {
            Unread::Message(message) => {
                self.attempt = 0;
                Ok(inbound(message, self.tenure.clone()))
            }
            Unread::Dropped(lost) => Err(dropped(lost)),
            Unread::Gap => Err(missed()),
            Unread::End => {
                self.reading = None;
                Err(Error::new(ErrorKind::Unavailable, "the client gave up reconnecting; another one is made"))
            }
        }
    }
}

fn dropped(lost: u64) -> Error {
    let message = "messages were lost: they were not read in time, and core NATS keeps none";
    Error::new(ErrorKind::Busy, message).with_context("lost", lost)
}

fn missed() -> Error {
    let message = "the connection was lost and is restored: messages may have been missed, and core NATS keeps none";
    Error::new(ErrorKind::Unavailable, message)
}

fn inbound(message: Message, tenure: Tenure) -> Inbound {
    let Contents { headers, key, id, unreadable } = headers::read(message.headers.as_ref());
    Inbound {
        payload: Some(message.payload),
        key,
        id,
        headers,
        unreadable_headers: unreadable,
        attempt: 1,
        deliveries: None,
        lost_trials: None,
        timestamp: None,
        partition: None,
        offset: None,
        native: None,
        tenure,
        handle: Box::new(Heard),
    }
}

/// The handle of a delivery that needs no settlement.
#[derive(Debug)]
struct Heard;

impl DeliveryHandle for Heard {
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        Confirmation::ready(match disposition {
            Disposition::Ack | Disposition::Discard => Ok(()),
            Disposition::Retry(_) | Disposition::GiveBack => {
                Err(Error::new(ErrorKind::Unsupported, "core NATS keeps no messages and cannot redeliver them"))
            }
        })
    }

    fn attributes(&self, _visit: &mut dyn FnMut(&'static str, AttributeValue)) {}
}
