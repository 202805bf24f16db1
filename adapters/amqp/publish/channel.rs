//! The channel on which messages are published in order.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation as Confirm, ErrorKind as ClientErrorKind, ExchangeKind};
use parking_lot::Mutex;

use super::super::config::{Settings, Unroutable};
use super::super::connection::link::disconnected;
use super::super::connection::{Live, pending};
use super::super::error::{During, client_error};
use super::super::topology::delay::Delay;
use super::super::topology::name;
use super::super::topology::waiting::{Seen, Target};
use super::super::wire::returned::Returned;
use super::in_flight::Permit;
use crate::driver::{Confirmation, Confirmer, Topology};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Topic};

/// A publishing channel of one connection, from its opening to its end.
pub(crate) struct PublishChannel {
    pub(crate) channel: Channel,
    /// The maximum frame size that broker and client agreed on.
    pub(crate) frame_max: usize,
    /// The connection, to open further channels on.
    live: Weak<Live>,
    /// The delay queues and targets declared so far.
    pub(crate) waits: Seen,
    /// The record of returned messages.
    returned: Arc<Returned>,
    /// `true` if the broker is to return every message that it cannot route.
    mandatory: bool,
    /// The topics declared on this channel, or `None` if this program declares no topics. Locked
    /// while a message is enqueued, because the client counts confirms and queues frames in two
    /// steps.
    declared: Mutex<Option<HashSet<Topic>>>,
}

/// A message ready to be sent on the channel.
pub(crate) struct Publication {
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) payload: Bytes,
    pub(crate) number: Option<i64>,
    pub(crate) place: Permit,
}

impl PublishChannel {
    pub(crate) async fn open(live: &Arc<Live>, settings: &Settings) -> Result<Self> {
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

    pub(crate) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    /// Returns a number for a message, if the broker is to return messages that no queue takes.
    pub(crate) fn number(&self) -> Option<i64> {
        self.mandatory.then(|| self.returned.number())
    }

    /// Returns a number for a message that the broker is to return in any case.
    pub(crate) fn number_of_mandatory(&self) -> i64 {
        self.returned.number()
    }

    /// Enqueues the message for its topic before it returns. A topic that is new to this channel is
    /// declared first, in the same queue of frames.
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        topic: &Topic,
        publication: Publication,
        refused: impl FnOnce(&lapin::Error) + Send + 'static,
        confirmer: Confirmer<Receipt>,
    ) {
        let exchange = match name(topic) {
            Ok(exchange) => exchange,
            Err(error) => return confirmer.confirm(Err(error)),
        };
        let mut declared = self.declared.lock();
        if let Some(topics) = declared.as_mut().filter(|topics| !topics.contains(topic)) {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let kind = ExchangeKind::Topic;
            // One poll enqueues the frame. A refusal ends the channel, and the publish reports it.
            let _ =
                self.channel.exchange_declare(exchange.clone(), kind, options, FieldTable::default()).now_or_never();
            topics.insert(topic.clone());
        }
        Confirmation::running(Arc::clone(self).send(exchange, publication, refused)).pass_to(confirmer);
    }

    /// Enqueues the message for an existing exchange before it returns.
    pub(crate) fn enqueue_at(
        self: &Arc<Self>,
        exchange: ShortString,
        publication: Publication,
        refused: impl FnOnce(&lapin::Error) + Send + 'static,
    ) -> Confirmation<Receipt> {
        let _alone = self.declared.lock();
        pending::begin(Arc::clone(self).send(exchange, publication, refused))
    }

    /// Declares everything that a message with this delay and target needs, or only checks it.
    pub(crate) async fn declare_waits(
        self: &Arc<Self>,
        topology: Topology,
        delay: Delay,
        target: Target,
    ) -> Result<()> {
        let live = self.live.upgrade().ok_or_else(|| disconnected(ErrorKind::Unavailable))?;
        let lane = Arc::clone(self);
        // Spawned: callers queued behind it would hang if this future were never polled.
        let declared = tokio::spawn(async move { lane.waits.declare(&live, topology, delay, &target).await });
        declared.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Unexpected, "the delay queues could not be declared").with_source(error))
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
        // Freed before the answer is known, so that a caller that gets the answer finds the place
        // free.
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
                Error::new(ErrorKind::Rejected, "no queue receives the message: the topic has no subscription")
            }
            Confirm::Ack(_) => return Ok(Receipt::confirmed()),
            // One queue of several may have taken the message.
            Confirm::Nack(_) => Error::new(ErrorKind::Rejected, "the broker refused the message: a queue may be full")
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

/// Returns the error of a publish whose channel ended.
fn lost(error: lapin::Error, exchange: &str, size: usize) -> Error {
    // The client reports this state only if the channel was closed before; no bytes were sent then.
    if matches!(error.kind(), ClientErrorKind::InvalidChannelState(_, "basic.publish")) {
        return client_error(error, During::Publish);
    }
    let error = if is_about_another(&error, exchange, size) {
        Error::new(ErrorKind::Unavailable, "the broker closed the channel because of another message")
            .with_source(error)
    } else {
        client_error(error, During::Publish)
    };
    error.with_unknown_outcome()
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
        f.debug_struct("Lane").field("channel", &self.channel.id()).field("frame_max", &self.frame_max).finish()
    }
}
