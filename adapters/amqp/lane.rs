//! The channel on which messages are published, one after the other.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation as Confirm, ErrorKind as ClientErrorKind, ExchangeKind};
use parking_lot::Mutex;

use super::config::{Settings, Unroutable};
use super::connection::Live;
use super::delay::Delay;
use super::error::{During, client_error};
use super::link::disconnected;
use super::pending;
use super::places::Place;
use super::returned::Returned;
use super::topology::name;
use super::waiting::{Seen, Target};
use crate::address::Topic;
use crate::broker_url::Topology;
use crate::driver::Confirmation;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

/// A publishing channel of one connection, from its opening to its end.
pub(super) struct Lane {
    pub(super) channel: Channel,
    /// The largest frame that broker and client settled on.
    pub(super) frame_max: usize,
    /// The connection, for channels beside this one.
    live: Weak<Live>,
    /// What was seen to be there for messages that are to wait.
    pub(super) waits: Seen,
    /// Where returned messages are noted.
    returned: Arc<Returned>,
    /// The broker is to return every message that it cannot route.
    mandatory: bool,
    /// The topics declared on this channel, or `None` where that is left to others. Locked while a message is enqueued: the client
    /// counts confirms and queues frames in two steps.
    declared: Mutex<Option<HashSet<Topic>>>,
}

/// A message ready for the channel.
pub(super) struct Publication {
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) payload: Bytes,
    pub(super) number: Option<i64>,
    pub(super) place: Place,
}

impl Lane {
    pub(super) async fn open(live: &Arc<Live>, settings: &Settings) -> Result<Self> {
        let channel = live.channel(During::Publish).await?;
        live.returned.watch(channel.id());
        live.request(During::Publish, channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self {
            frame_max: live.connection.configuration().frame_max() as usize,
            channel,
            live: Arc::downgrade(live),
            waits: Seen::default(),
            returned: Arc::clone(&live.returned),
            mandatory: settings.unroutable == Unroutable::Reject,
            declared: Mutex::new((settings.topology == Topology::Create).then(HashSet::new)),
        })
    }

    pub(super) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    /// A number for a message, if the broker is to return it when no queue takes it.
    pub(super) fn number(&self) -> Option<i64> {
        self.mandatory.then(|| self.returned.number())
    }

    /// A number for a message that the broker is to return in any case.
    pub(super) fn number_of_mandatory(&self) -> i64 {
        self.returned.number()
    }

    /// Puts the message in line for its topic before it returns. A topic that is new to this channel is declared first, in the same line.
    ///
    /// # Errors
    /// When the topic's name is not valid; nothing was sent.
    pub(super) fn enqueue(
        self: &Arc<Self>,
        topic: &Topic,
        publication: Publication,
        refused: impl FnOnce(&lapin::Error) + Send + 'static,
    ) -> Result<Confirmation<Receipt>> {
        let exchange = name(topic)?;
        let mut declared = self.declared.lock();
        if let Some(topics) = declared.as_mut().filter(|topics| !topics.contains(topic)) {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let kind = ExchangeKind::Topic;
            // Polled once, it is in line. A refusal ends the channel, of which the publish will tell.
            let _ =
                self.channel.exchange_declare(exchange.clone(), kind, options, FieldTable::default()).now_or_never();
            topics.insert(topic.clone());
        }
        Ok(pending::begin(Arc::clone(self).send(exchange, publication, refused)))
    }

    /// Puts the message in line for an exchange that is there, before it returns.
    pub(super) fn enqueue_at(
        self: &Arc<Self>,
        exchange: ShortString,
        publication: Publication,
        refused: impl FnOnce(&lapin::Error) + Send + 'static,
    ) -> Confirmation<Receipt> {
        let _alone = self.declared.lock();
        pending::begin(Arc::clone(self).send(exchange, publication, refused))
    }

    /// Makes sure that a message for this target can wait that long.
    pub(super) async fn declare_waits(
        self: &Arc<Self>,
        topology: Topology,
        delay: Delay,
        target: Target,
    ) -> Result<()> {
        let live = self.live.upgrade().ok_or_else(|| disconnected(ErrorKind::Unavailable))?;
        let lane = Arc::clone(self);
        // In a task: others are in line behind it, who would wait for ever for one that nobody polls.
        let declared = tokio::spawn(async move { lane.waits.declare(&live, topology, delay, &target).await });
        declared.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Unexpected, "the queues to wait in were not declared").with_source(error))
        })
    }

    async fn send(
        self: Arc<Self>,
        exchange: ShortString,
        publication: Publication,
        refused: impl FnOnce(&lapin::Error) + Send + 'static,
    ) -> Result<Receipt> {
        let Publication { routing_key, properties, payload, number, place } = publication;
        let size = payload.len();
        let options = BasicPublishOptions { mandatory: number.is_some(), ..BasicPublishOptions::default() };
        let sent = self.channel.basic_publish(exchange.clone(), routing_key, options, &payload, properties).await;
        drop(payload);
        let confirm = match sent {
            Ok(confirm) => confirm.await,
            Err(error) => Err(error),
        };
        // Free before the answer is known, so that whoever waits for it finds the place free.
        drop(place);
        match confirm {
            Ok(confirm) => self.judge(&confirm, number),
            Err(error) => {
                refused(&error);
                Err(lost(error, exchange.as_str(), size))
            }
        }
    }

    fn judge(&self, confirm: &Confirm, number: Option<i64>) -> Result<Receipt> {
        Err(match confirm {
            Confirm::Ack(_) if self.was_returned(number) => {
                Error::new(ErrorKind::Rejected, "no queue takes the message: nobody has subscribed to the topic")
            }
            Confirm::Ack(_) => return Ok(Receipt::confirmed()),
            // One queue of several may have taken it.
            Confirm::Nack(_) => Error::new(ErrorKind::Rejected, "the broker refused the message, as a full queue does")
                .with_unknown_outcome(),
            Confirm::NotRequested => {
                Error::new(ErrorKind::Unexpected, "the channel does not confirm").with_unknown_outcome()
            }
        })
    }

    fn was_returned(&self, number: Option<i64>) -> bool {
        number.is_some_and(|number| self.returned.take(number))
    }
}

/// The error of a publish whose channel ended.
fn lost(error: lapin::Error, exchange: &str, size: usize) -> Error {
    // Only a channel that was seen to be closed beforehand takes nothing; this is what the client says then.
    if matches!(error.kind(), ClientErrorKind::InvalidChannelState(_, "basic.publish")) {
        return client_error(error, During::Publish);
    }
    let error = if is_about_another(&error, exchange, size) {
        Error::new(ErrorKind::Unavailable, "the broker ended the channel over another message").with_source(error)
    } else {
        client_error(error, During::Publish)
    };
    error.with_unknown_outcome()
}

/// A message that the broker refuses ends the channel for all; its words say by exchange or size which one it was.
fn is_about_another(error: &lapin::Error, exchange: &str, size: usize) -> bool {
    let ClientErrorKind::ProtocolError(refusal) = error.kind() else { return false };
    let words = refusal.get_message().as_str();
    error.is_amqp_soft_error()
        && !words.contains(&format!("exchange '{exchange}'"))
        && !words.contains(&format!("message size {size} "))
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("channel", &self.channel.id()).field("frame_max", &self.frame_max).finish()
    }
}
