//! The exchanges and queues behind topics and groups.

pub(crate) mod bindings;
pub(crate) mod delay;
pub(crate) mod names;
pub(crate) mod notes;
pub(crate) mod waiting;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use super::connection::Live;
use super::error::During;
use crate::driver::Topology;
use crate::error::{Error, ErrorKind, Result};

/// The group that keeps the rejected messages of a dead-letter topic, even if the topic has no
/// subscriber.
pub(super) const PARKED: &str = "parked";

/// The binding key that matches any routing key.
const ANY: &str = "#";

/// The size of the queue of a reader without a group that is not polled. Beyond it, the broker
/// drops the oldest messages.
const MAX_READER_BYTES: i64 = 256 << 20;

/// Declares the exchange of the topic, or only checks that it exists. A refusal ends the channel.
pub(super) async fn declare_topic(live: &Live, channel: &Channel, topic: &str, topology: Topology) -> Result<()> {
    let options = ExchangeDeclareOptions {
        passive: topology == Topology::Check,
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let declared = channel.exchange_declare(name(topic)?, ExchangeKind::Topic, options, FieldTable::default());
    live.request(During::Declare, declared).await.map_err(|error| error.with_context("exchange", topic))
}

/// Declares the queue of the group and binds it to the topic, or only checks that it exists.
/// Returns its name, and the number of messages in it.
pub(super) async fn declare_group(
    live: &Live,
    channel: &Channel,
    topic: &str,
    group: &str,
    topology: Topology,
) -> Result<(ShortString, u32)> {
    let (queue, messages) = declare_queue(live, channel, topic, group, topology).await?;
    if topology == Topology::Create {
        bind(live, channel, topic, &queue, ANY).await?;
    }
    Ok((queue, messages))
}

/// Declares the queue that keeps the dead letters of a topic that no other queue takes, with an
/// exchange of the same name that leads to it alone. Returns its name, and the number of messages
/// in it.
pub(super) async fn declare_unread(
    live: &Live,
    channel: &Channel,
    dead: &str,
    topology: Topology,
) -> Result<(ShortString, u32)> {
    let (queue, messages) = declare_queue(live, channel, dead, PARKED, topology).await?;
    if topology == Topology::Create {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared = channel.exchange_declare(queue.clone(), ExchangeKind::Fanout, options, FieldTable::default());
        live.request(During::Declare, declared).await.map_err(|error| error.with_context("exchange", &queue))?;
        bind(live, channel, queue.as_str(), &queue, "").await?;
        // Of a program that keeps all letters, an earlier version of this one for example.
        let unbound = channel.queue_unbind(queue.clone(), name(dead)?, name(ANY)?, FieldTable::default());
        live.request(During::Declare, unbound).await.map_err(|error| error.with_context("queue", &queue))?;
    }
    Ok((queue, messages))
}

/// Declares the queue of a group, or only checks that it exists. Returns its name, and the number
/// of messages in it.
async fn declare_queue(
    live: &Live,
    channel: &Channel,
    topic: &str,
    group: &str,
    topology: Topology,
) -> Result<(ShortString, u32)> {
    let queue = name(&format!("{topic}.{group}"))?;
    let options =
        QueueDeclareOptions { passive: topology == Topology::Check, durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.clone(), options, quorum());
    let declared =
        live.request(During::Declare, declared).await.map_err(|error| error.with_context("queue", &queue))?;
    Ok((queue, declared.message_count()))
}

/// Declares a queue for this connection alone, bound to the topic and deleted with the connection.
/// Returns its name.
pub(super) async fn declare_reader(
    live: &Live,
    channel: &Channel,
    topic: &str,
    keys: &[String],
) -> Result<ShortString> {
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let mut bounded = FieldTable::default();
    bounded.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(MAX_READER_BYTES));
    let declared = channel.queue_declare(ShortString::default(), options, bounded);
    let queue = live.request(During::Declare, declared).await?.name().clone();
    for key in keys {
        bind(live, channel, topic, &queue, key).await?;
    }
    Ok(queue)
}

async fn bind(live: &Live, channel: &Channel, topic: &str, queue: &ShortString, key: &str) -> Result<()> {
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(queue.clone(), name(topic)?, name(key)?, options, FieldTable::default());
    live.request(During::Declare, bound).await.map_err(|error| error.with_context("queue", queue))
}

/// Returns the arguments of a replicated queue that counts deliveries and never drops a message by
/// itself. The layer above limits the attempts and keeps the message. Without `x-delivery-limit`,
/// RabbitMQ 4 would drop it after 20 deliveries.
fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(i32::MAX));
    arguments
}

/// Converts a name. A topic and a group have at most 249 characters each, but a queue name made of
/// both has at most 255.
pub(super) fn name(text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|error| {
        Error::new(ErrorKind::InvalidConfig, "topic and group together are longer than RabbitMQ's 255 bytes")
            .with_context("queue", text)
            .with_source(error)
    })
}
