//! The brokers' own clients, in the hands of an operator who deletes things in use and looks what
//! is left.

use std::time::Duration;

use async_nats::jetstream;
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use redis::AsyncCommands as _;
use redis::streams::StreamInfoGroupsReply;

use crate::scenario::Broker;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) type Done<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// An operator of the server at this address.
pub(crate) struct Operator {
    pub(crate) broker: Broker,
    pub(crate) url: String,
}

impl Operator {
    /// Deletes what a topic is at the broker.
    pub(crate) async fn delete_topic(&self, topic: &str) -> Done<()> {
        match self.broker {
            Broker::Memory => return Err("the embedded broker has no operator".into()),
            Broker::Kafka => {
                let admin: AdminClient<DefaultClientContext> = self.kafka().create()?;
                admin.delete_topics(&[topic], &AdminOptions::new()).await?;
            }
            Broker::Amqp => {
                let connection = self.amqp().await?;
                let channel = connection.create_channel().await?;
                channel.exchange_delete(topic.into(), ExchangeDeleteOptions::default()).await?;
                connection.close(200, "done".into()).await?;
            }
            Broker::Nats => {
                self.nats().await?.delete_stream(object(topic)).await?;
            }
            Broker::Redis => {
                let _: i64 = self.redis().await?.del(topic).await?;
            }
        }
        Ok(())
    }

    /// Deletes a group that is in use.
    pub(crate) async fn delete_group(&self, topic: &str, group: &str) -> Done<()> {
        match self.broker {
            Broker::Memory | Broker::Kafka => return Err("a group in use cannot be deleted".into()),
            Broker::Amqp => {
                let connection = self.amqp().await?;
                let channel = connection.create_channel().await?;
                channel.queue_delete(queue(topic, group).into(), QueueDeleteOptions::default()).await?;
                connection.close(200, "done".into()).await?;
            }
            Broker::Nats => {
                let stream = self.nats().await?.get_stream(object(topic)).await?;
                stream.delete_consumer(&object(group)).await?;
            }
            Broker::Redis => {
                let _: i64 = self.redis().await?.xgroup_destroy(topic, group).await?;
            }
        }
        Ok(())
    }

    /// Returns the number of messages of a group that the broker has not seen settled.
    pub(crate) async fn pending(&self, topic: &str, group: &str) -> Done<u64> {
        match self.broker {
            Broker::Memory => Ok(0),
            Broker::Kafka => {
                let consumer: BaseConsumer = self.kafka().set("group.id", group).create()?;
                let topic = topic.to_owned();
                tokio::task::spawn_blocking(move || lag(&consumer, &topic)).await?
            }
            Broker::Amqp => {
                let connection = self.amqp().await?;
                let channel = connection.create_channel().await?;
                let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                let queue = channel.queue_declare(queue(topic, group).into(), passive, FieldTable::default()).await?;
                let count = queue.message_count();
                connection.close(200, "done".into()).await?;
                Ok(count.into())
            }
            Broker::Nats => {
                let stream = self.nats().await?.get_stream(object(topic)).await?;
                let info = stream.consumer_info(object(group)).await?;
                Ok(info.num_pending + u64::try_from(info.num_ack_pending)?)
            }
            Broker::Redis => {
                let groups: StreamInfoGroupsReply = self.redis().await?.xinfo_groups(topic).await?;
                let found = groups.groups.into_iter().find(|found| found.name == group).ok_or("no such group")?;
                Ok(u64::try_from(found.pending + found.lag.unwrap_or_default())?)
            }
        }
    }

    pub(crate) fn kafka(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.url.trim_start_matches("kafka://"));
        config
    }

    async fn amqp(&self) -> lapin::Result<Connection> {
        Connection::connect(&self.url, ConnectionProperties::default()).await
    }

    pub(crate) async fn nats(&self) -> Done<jetstream::Context> {
        Ok(jetstream::new(async_nats::connect(&self.url).await?))
    }

    async fn redis(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        redis::Client::open(&*self.url)?.get_multiplexed_async_connection().await
    }
}

/// Returns the number of messages beyond the committed positions.
fn lag(consumer: &BaseConsumer, topic: &str) -> Done<u64> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    let mut all = TopicPartitionList::new();
    all.add_partition_range(topic, 0, i32::try_from(partitions)? - 1);
    let mut lag = 0;
    for partition in consumer.committed_offsets(all, PATIENCE)?.elements() {
        let (first, end) = consumer.fetch_watermarks(topic, partition.partition(), PATIENCE)?;
        let position = if let Offset::Offset(position) = partition.offset() { position } else { first };
        lag += u64::try_from(end - position)?;
    }
    Ok(lag)
}

/// Returns the name of a group's queue on RabbitMQ.
pub(crate) fn queue(topic: &str, group: &str) -> String {
    format!("{topic}.{group}")
}

/// Returns the name of a stream or consumer on NATS.
pub(crate) fn object(name: &str) -> String {
    name.replace('.', "~")
}
