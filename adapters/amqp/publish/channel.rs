//! The channel on which messages are published in order.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation as Confirm, ErrorKind as ClientErrorKind, ExchangeKind};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::super::config::Settings;
use super::super::connection::link::disconnected;
use super::super::connection::{Live, pending};
use super::super::error::{During, client_error};
use super::super::topology::delay::Delay;
use super::super::topology::name;
use super::super::topology::waiting::{Seen, Target};
use super::super::wire::returned::Returned;
use super::in_flight::Permit;
use super::routes::{Route, Routes};
use super::sequence::{Part, Sequence};
use super::stranded::Strand;
use crate::driver::{Confirmation, Topology};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Topic};

/// Maximum number of publishes of one channel that are beyond their time and have no place. Beyond
/// it, they keep their places.
const MAX_TOMBSTONES: usize = 65_536;

/// A publishing channel of one connection, from its opening to its end.
pub(crate) struct PublishChannel {
    pub(crate) channel: Channel,
    /// The maximum frame size that broker and client agreed on.
    pub(crate) frame_max: usize,
    /// The connection, to open further channels on.
    live: Weak<Live>,
    /// Notified when the broker has refused a message.
    pub(crate) refused: Notify,
    /// `true` if the reason for which the broker ended the channel is noted.
    is_noted: AtomicBool,
    /// The messages for topics that were not taken because the channel ended.
    pub(crate) strand: Strand,
    /// The delay queues and targets declared so far.
    pub(crate) waits: Arc<Seen>,
    /// The record of returned messages.
    returned: Arc<Returned>,
    /// Maximum time to wait for a confirm.
    patience: Duration,
    /// The publishes beyond that time that are written, and whose tags the client still knows.
    tombstones: Arc<Semaphore>,
    routes: Arc<Routes>,
    /// `true` if this program declares its topics.
    declares: bool,
    /// The topics used on this channel, which are declared. Locked while a message is enqueued,
    /// because the client counts confirms and queues frames in two steps.
    topics: Mutex<HashMap<Topic, Arc<Route>>>,
    /// Not part of the above, because a message may be answered while it is enqueued.
    sequence: Mutex<Sequence>,
}

/// A message ready to be sent on the channel.
pub(crate) struct Publication {
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) payload: Bytes,
    /// The number by which the broker returns the message if no queue takes it.
    pub(crate) number: i64,
    /// `true` if it is an error that no queue takes the message, whatever its topic.
    pub(crate) is_mandatory: bool,
    pub(crate) place: Permit,
}

/// The end of a publish without an error of its own.
#[derive(Debug)]
pub(crate) enum Fate {
    Taken(Receipt),
    /// It was not taken, because of a message before it. It has this number.
    Stranded(u64, Error),
}

/// The judgement of a message that the broker returned.
struct Judge {
    number: i64,
    /// The topic and its route, unless the return is an error in any case.
    route: Option<(Topic, Arc<Route>)>,
}

impl PublishChannel {
    pub(crate) async fn open(live: &Arc<Live>, settings: &Settings, routes: &Arc<Routes>) -> Result<Self> {
        let channel = live.channel(During::Publish).await?;
        live.request(During::Publish, channel.confirm_select(ConfirmSelectOptions::default())).await?;
        live.returned.watch(channel.id());
        Ok(Self {
            frame_max: live.connection.configuration().frame_max() as usize,
            channel,
            live: Arc::downgrade(live),
            refused: Notify::new(),
            is_noted: AtomicBool::new(false),
            strand: Strand::new(),
            waits: Arc::default(),
            returned: Arc::clone(&live.returned),
            patience: settings.delivery_timeout,
            tombstones: Arc::new(Semaphore::new(MAX_TOMBSTONES)),
            routes: Arc::clone(routes),
            declares: settings.topology == Topology::Create,
            topics: Mutex::default(),
            sequence: Mutex::new(Sequence::new()),
        })
    }

    /// Takes over what was declared on another channel of the same connection.
    pub(crate) fn knowing(mut self, other: &Self) -> Self {
        self.topics = Mutex::new(other.topics.lock().clone());
        self.waits = Arc::clone(&other.waits);
        self
    }

    /// Returns the connection of the channel.
    pub(crate) fn live(&self) -> Result<Arc<Live>> {
        self.live.upgrade().ok_or_else(|| disconnected(ErrorKind::Unavailable))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    /// Returns a number for a message, which the broker is to return if no queue takes it.
    pub(crate) fn number(&self) -> i64 {
        self.returned.number()
    }

    /// Enqueues the message for its topic before it returns. A topic that is new to this channel is
    /// declared first, in the same queue of frames.
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        topic: &Topic,
        publication: Publication,
        refused: impl FnOnce(&lapin::Error) + Send + 'static,
    ) -> Confirmation<Fate> {
        let exchange = match name(topic) {
            Ok(exchange) => exchange,
            Err(error) => return Confirmation::ready(Err(error)),
        };
        let mut topics = self.topics.lock();
        let route = match topics.get(topic) {
            Some(route) => Arc::clone(route),
            None => {
                self.declare(exchange.clone());
                let route = self.routes.of(topic);
                topics.insert(topic.clone(), Arc::clone(&route));
                route
            }
        };
        self.begin(exchange, Some((topic.clone(), route)), publication, refused)
    }

    fn declare(&self, exchange: ShortString) {
        if self.declares {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let declared = self.channel.exchange_declare(exchange, ExchangeKind::Topic, options, FieldTable::default());
            // One poll enqueues the frame. A refusal ends the channel, and the publish reports it.
            let _ = declared.now_or_never();
        }
    }

    /// Enqueues the message for an existing exchange before it returns.
    pub(crate) fn enqueue_at(
        self: &Arc<Self>,
        exchange: ShortString,
        publication: Publication,
        refused: impl FnOnce(&lapin::Error) + Send + 'static,
    ) -> Confirmation<Fate> {
        let _alone = self.topics.lock();
        self.begin(exchange, None, publication, refused)
    }

    /// Declares everything that a message with this delay and target needs, or only checks it.
    pub(crate) async fn declare_waits(
        self: &Arc<Self>,
        topology: Topology,
        delay: Delay,
        target: Target,
    ) -> Result<()> {
        let live = self.live()?;
        let channel = Arc::clone(self);
        // Spawned: callers queued behind it would hang if this future were never polled.
        let declared = tokio::spawn(async move { channel.waits.declare(&live, topology, delay, &target).await });
        declared.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Unexpected, "the delay queues could not be declared").with_source(error))
        })
    }

    fn begin(
        self: &Arc<Self>,
        exchange: ShortString,
        route: Option<(Topic, Arc<Route>)>,
        publication: Publication,
        refused: impl FnOnce(&lapin::Error) + Send + 'static,
    ) -> Confirmation<Fate> {
        let Publication { routing_key, properties, payload, number, is_mandatory, place } = publication;
        let judge = Judge { number, route: route.filter(|_| !is_mandatory) };
        let sent = self.sequence.lock().next(&exchange, payload.len());
        let message = (routing_key, properties, payload, judge);
        let answer = Arc::clone(self).send(exchange, sent, message, refused).boxed();
        pending::begin(Arc::clone(self).within_patience(answer, place))
    }

    /// Awaits the confirm. When the time is up, the place is free: only the client's entry for the
    /// tag remains. While the broker blocks the connection, the client has the whole message, so
    /// the place stays taken, or the messages in its memory would have no bound.
    async fn within_patience(
        self: Arc<Self>,
        mut answer: BoxFuture<'static, Result<Fate>>,
        place: Permit,
    ) -> Result<Fate> {
        let answered = loop {
            if Handle::try_current().is_err() {
                break answer.await;
            }
            if let Ok(answered) = timeout(self.patience, &mut answer).await {
                break answered;
            }
            let tombstone = Arc::clone(&self.tombstones).try_acquire_owned().ok();
            if let Some(tombstone) = tombstone.filter(|_| !self.is_blocked()) {
                tokio::spawn(async move {
                    let _ = answer.await;
                    drop(tombstone);
                });
                break Err(Error::new(ErrorKind::Timeout, "the broker did not confirm in time").with_unknown_outcome());
            }
        };
        // Freed before the answer is known, so that a caller that gets the answer finds the place
        // free.
        drop(place);
        answered
    }

    fn is_blocked(&self) -> bool {
        self.live.upgrade().is_some_and(|live| live.connection.status().blocked())
    }

    async fn send(
        self: Arc<Self>,
        exchange: ShortString,
        sent: u64,
        message: (ShortString, BasicProperties, Bytes, Judge),
        refused: impl FnOnce(&lapin::Error) + Send + 'static,
    ) -> Result<Fate> {
        let (routing_key, properties, payload, judge) = message;
        let size = payload.len();
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let enqueued = self.channel.basic_publish(exchange.clone(), routing_key, options, &payload, properties).await;
        drop(payload);
        let confirm = match enqueued {
            Ok(confirm) => confirm.await,
            Err(error) => Err(error),
        };
        let was_returned = self.returned.take(judge.number);
        match confirm {
            Ok(Confirm::Ack(_)) if was_returned => judge.returned().map(Fate::Taken),
            Ok(confirm) => self.answer(&confirm).map(Fate::Taken),
            Err(error) => {
                if !self.is_noted.swap(true, Ordering::Relaxed) {
                    refused(&error);
                }
                self.ended(sent, error, exchange.as_str(), size)
            }
        }
    }

    /// Returns the end of a message whose channel ended.
    fn ended(&self, sent: u64, error: lapin::Error, exchange: &str, size: usize) -> Result<Fate> {
        // The client reports this state only if the channel was closed before; no bytes were sent
        // then.
        if matches!(error.kind(), ClientErrorKind::InvalidChannelState(_, "basic.publish")) {
            return Ok(Fate::Stranded(sent, client_error(error, During::Publish)));
        }
        let part = self.sequence.lock().part(sent, &error);
        match part {
            Part::Refused => Err(client_error(error, During::Publish)),
            Part::Behind => Ok(Fate::Stranded(sent, another(error))),
            Part::Unknown => Err(lost(error, exchange, size)),
        }
    }

    fn answer(&self, confirm: &Confirm) -> Result<Receipt> {
        Err(match confirm {
            Confirm::Ack(_) => return Ok(Receipt::confirmed()),
            // One queue of several may have taken the message. A queue that is full or has no
            // leader will take messages again.
            Confirm::Nack(_) => {
                self.refused.notify_one();
                Error::new(ErrorKind::Busy, "the broker refused the message: a queue may be full, or have no leader")
                    .with_unknown_outcome()
            }
            Confirm::NotRequested => {
                Error::new(ErrorKind::Unexpected, "the channel does not confirm").with_unknown_outcome()
            }
        })
    }
}

impl Fate {
    /// Returns the answer to a message that is not sent again.
    pub(crate) fn or_error(self) -> Result<Receipt> {
        match self {
            Self::Taken(receipt) => Ok(receipt),
            Self::Stranded(_, error) => Err(error),
        }
    }
}

impl Judge {
    fn returned(self) -> Result<Receipt> {
        match self.route {
            Some((topic, route)) => route.returned(&topic),
            None => {
                Err(Error::new(ErrorKind::Rejected, "no queue receives the message: the topic has no subscription"))
            }
        }
    }
}

impl Drop for PublishChannel {
    fn drop(&mut self) {
        self.returned.unwatch(self.channel.id());
    }
}

/// Returns the error of a publish whose channel ended, and which the broker may have taken.
fn lost(error: lapin::Error, exchange: &str, size: usize) -> Error {
    let is_other = is_about_another(&error, exchange, size);
    let error = if is_other { another(error) } else { client_error(error, During::Publish) };
    error.with_unknown_outcome()
}

fn another(error: lapin::Error) -> Error {
    let message = "the broker closed the channel because of another message";
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}

/// Returns `true` if the error is about another message. A message that the broker refuses ends the
/// channel for all messages; the text of the error names its exchange or size.
fn is_about_another(error: &lapin::Error, exchange: &str, size: usize) -> bool {
    let ClientErrorKind::ProtocolError(refusal) = error.kind() else { return false };
    let words = refusal.get_message().as_str();
    error.is_amqp_soft_error()
        && !words.contains(&format!("exchange '{exchange}'"))
        && !words.contains(&format!("message size {size} "))
}

impl fmt::Debug for PublishChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishChannel")
            .field("channel", &self.channel.id())
            .field("frame_max", &self.frame_max)
            .finish()
    }
}
