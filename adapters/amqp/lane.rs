//! The channel on which messages are published, one after the other.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation as Confirm, ErrorKind as ClientErrorKind, ExchangeKind};
use parking_lot::Mutex;

use super::config::{Settings, Unroutable};
use super::connection::Live;
use super::error::{During, client_error};
use super::pending::Pending;
use super::places::Place;
use super::returned::Returned;
use super::topology::name;
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
    /// Where returned messages are noted, if the broker is to return what it cannot route.
    returned: Option<Arc<Returned>>,
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
    pub(super) async fn open(live: &Live, settings: &Settings) -> Result<Self> {
        let channel = live.channel(During::Publish).await?;
        let returned = (settings.unroutable == Unroutable::Reject).then(|| Arc::clone(&live.returned));
        if let Some(returned) = &returned {
            returned.watch(channel.id());
        }
        live.request(During::Publish, channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self {
            frame_max: live.connection.configuration().frame_max() as usize,
            channel,
            returned,
            declared: Mutex::new((settings.topology == Topology::Create).then(HashSet::new)),
        })
    }

    pub(super) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    /// A number for a message that the broker may return.
    pub(super) fn number(&self) -> Option<i64> {
        self.returned.as_ref().map(|returned| returned.number())
    }

    /// Puts the message in line before it returns. A topic that is new to this channel is declared first, in the same line.
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
        let (lane, topic) = (Arc::clone(self), topic.clone());
        let mut answer = async move {
            let Publication { routing_key, properties, payload, number, place } = publication;
            let size = payload.len();
            let options = BasicPublishOptions { mandatory: number.is_some(), ..BasicPublishOptions::default() };
            let sent = lane.channel.basic_publish(exchange, routing_key, options, &payload, properties).await;
            drop(payload);
            let confirm = match sent {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            // Free before the answer is known, so that whoever waits for it finds the place free.
            drop(place);
            match confirm {
                Ok(confirm) => lane.judge(&confirm, number),
                Err(error) => {
                    refused(&error);
                    Err(lost(error, &topic, size))
                }
            }
        }
        .boxed();
        Ok(match answer.poll_unpin(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Confirmation::ready(answer),
            Poll::Pending => Confirmation::running(Pending::new(answer)),
        })
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
        number.zip(self.returned.as_ref()).is_some_and(|(number, returned)| returned.take(number))
    }
}

/// The error of a publish whose channel ended.
fn lost(error: lapin::Error, topic: &Topic, size: usize) -> Error {
    // Only a channel that was seen to be closed beforehand takes nothing; this is what the client says then.
    if matches!(error.kind(), ClientErrorKind::InvalidChannelState(_, "basic.publish")) {
        return client_error(error, During::Publish);
    }
    let error = if is_about_another(&error, topic, size) {
        Error::new(ErrorKind::Unavailable, "the broker ended the channel over another message").with_source(error)
    } else {
        client_error(error, During::Publish)
    };
    error.with_unknown_outcome()
}

/// A message that the broker refuses ends the channel for all; its words say by exchange or size which one it was.
fn is_about_another(error: &lapin::Error, topic: &Topic, size: usize) -> bool {
    let ClientErrorKind::ProtocolError(refusal) = error.kind() else { return false };
    let words = refusal.get_message().as_str();
    error.is_amqp_soft_error()
        && !words.contains(&format!("exchange '{topic}'"))
        && !words.contains(&format!("message size {size} "))
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("channel", &self.channel.id()).field("frame_max", &self.frame_max).finish()
    }
}
