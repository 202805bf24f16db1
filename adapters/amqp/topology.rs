//! The exchanges and queues behind topics and groups.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use super::connection::Live;
use super::error::During;
use crate::broker_url::Topology;
use crate::error::{Error, ErrorKind, Result};

/// The group that keeps the rejected messages of a dead-letter topic, so that they do not depend on a subscriber being there.
pub(super) const PARKED: &str = "parked";

/// Matches any routing key.
const ANY: &str = "#";

/// Makes sure that the topic's exchange is there. A refusal ends the channel.
pub(super) async fn declare_topic(live: &Live, channel: &Channel, topic: &str, topology: Topology) -> Result<()> {
    let options = ExchangeDeclareOptions {
        passive: topology == Topology::Check,
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let declared = channel.exchange_declare(name(topic)?, ExchangeKind::Topic, options, FieldTable::default());
    live.request(During::Declare, declared).await.map_err(|error| error.with_context("exchange", topic))
}

/// Makes sure that the group's queue is there and gets the topic's messages. Returns its name.
pub(super) async fn declare_group(
    live: &Live,
    channel: &Channel,
    topic: &str,
    group: &str,
    topology: Topology,
) -> Result<ShortString> {
    let queue = name(&format!("{topic}.{group}"))?;
    let options =
        QueueDeclareOptions { passive: topology == Topology::Check, durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.clone(), options, quorum());
    live.request(During::Declare, declared).await.map_err(|error| error.with_context("queue", &queue))?;
    if topology == Topology::Create {
        bind(live, channel, topic, &queue).await?;
    }
    Ok(queue)
}

/// Makes a queue for this connection alone, gone with it, that gets the topic's messages from now on. Returns its name.
pub(super) async fn declare_reader(live: &Live, channel: &Channel, topic: &str) -> Result<ShortString> {
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(ShortString::default(), options, FieldTable::default());
    let queue = live.request(During::Declare, declared).await?.name().clone();
    bind(live, channel, topic, &queue).await?;
    Ok(queue)
}

async fn bind(live: &Live, channel: &Channel, topic: &str, queue: &ShortString) -> Result<()> {
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(queue.clone(), name(topic)?, name(ANY)?, options, FieldTable::default());
    live.request(During::Declare, bound).await.map_err(|error| error.with_context("queue", queue))
}

/// A replicated queue that counts deliveries and never gives a message up by itself: attempts are limited above, where the message
/// is kept. RabbitMQ 4 would otherwise drop it after 20 deliveries.
fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(i32::MAX));
    arguments
}

/// A topic has at most 249 characters and so has a group, but a queue's name, made of both, no more than 255.
pub(super) fn name(text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|error| {
        Error::new(ErrorKind::InvalidConfig, "topic and group together are longer than RabbitMQ's 255 bytes")
            .with_context("queue", text)
            .with_source(error)
    })
}
