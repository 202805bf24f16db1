//! The headers on the wire, seen by a plain client without this library.

use std::time::Duration;

use async_nats::Subscriber;
use futures_util::StreamExt;
use lapin::options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use redis::Value;
use tokio::time::timeout;

use crate::program::Header;
use crate::setup::SOON;
use crate::support::Kind;

/// Reads the headers of a topic's only message. It must be there before the message if the broker
/// stores none.
pub(crate) enum Tap {
    Kafka { servers: String, topic: String },
    RabbitMq { _connection: Box<Connection>, channel: Channel, queue: String },
    Nats(Box<Subscriber>),
    Redis { url: String, stream: String },
}

impl Tap {
    pub(crate) async fn new(kind: Kind, address: &str, topic: &str) -> Self {
        match kind {
            Kind::Kafka => Self::Kafka { servers: address.to_owned(), topic: topic.to_owned() },
            Kind::RabbitMq => Self::on_exchange(address, topic).await,
            Kind::Nats => {
                let client = async_nats::connect(address).await.unwrap();
                let subscriber = client.subscribe(topic.to_owned()).await.unwrap();
                round_trip(&client).await;
                Self::Nats(Box::new(subscriber))
            }
            Kind::Redis => Self::Redis { url: address.to_owned(), stream: topic.to_owned() },
            other => panic!("{other:?} is no broker"),
        }
    }

    /// Binds a separate queue to the exchange.
    async fn on_exchange(address: &str, exchange: &str) -> Self {
        let connection = Connection::connect(address, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let queue = format!("{exchange}.tap");
        let own = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.as_str().into(), own, FieldTable::default()).await.unwrap();
        let bind = QueueBindOptions::default();
        let (name, exchange) = (queue.as_str().into(), exchange.into());
        channel.queue_bind(name, exchange, "#".into(), bind, FieldTable::default()).await.unwrap();
        Self::RabbitMq { _connection: Box::new(connection), channel, queue }
    }

    /// Returns the trace headers, whatever the case of their names.
    pub(crate) async fn trace_headers(self) -> Vec<Header> {
        let mut headers = self.headers().await;
        headers.retain(|header| is_of_a_trace(&header.name));
        headers.sort_by(|a, b| a.name.cmp(&b.name));
        headers
    }

    async fn headers(self) -> Vec<Header> {
        match self {
            Self::Kafka { servers, topic } => {
                tokio::task::spawn_blocking(move || of_record(&servers, &topic)).await.unwrap()
            }
            Self::RabbitMq { _connection, channel, queue } => of_delivery(&channel, &queue).await,
            Self::Nats(mut subscriber) => {
                let message = timeout(SOON, subscriber.next()).await.expect("a message").unwrap();
                let headers = message.headers.unwrap_or_default();
                let values = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
                    let name: &str = name.as_ref();
                    values.iter().map(|value| header(name, "text", value.as_str())).collect::<Vec<_>>()
                };
                headers.iter().flat_map(values).collect()
            }
            Self::Redis { url, stream } => of_entry(&url, &stream).await,
        }
    }
}

/// Waits until the server has registered the earlier subscriptions. It does not confirm
/// subscriptions, but handles the commands of a connection in order: an answer to a later command
/// proves that they exist.
async fn round_trip(client: &async_nats::Client) {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    timeout(SOON, answers.next()).await.expect("an answer").unwrap();
}

/// Returns `true` if this is a trace header, in any case.
pub(crate) fn is_of_a_trace(name: &str) -> bool {
    ["traceparent", "tracestate", "baggage"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn header(name: &str, form: &str, value: &str) -> Header {
    Header { name: name.to_owned(), form: form.to_owned(), value: value.to_owned() }
}

fn of_record(servers: &str, topic: &str) -> Vec<Header> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", "tap").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut from_the_start = TopicPartitionList::new();
    let metadata = consumer.fetch_metadata(Some(topic), SOON).unwrap();
    for partition in metadata.topics()[0].partitions() {
        from_the_start.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&from_the_start).unwrap();
    let message = consumer.poll(SOON).expect("a message").unwrap();
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let read = headers.map(|each| match each.value {
        Some(value) => header(each.key, "bytes", &String::from_utf8_lossy(value)),
        None => header(each.key, "null", ""),
    });
    read.collect()
}

async fn of_delivery(channel: &Channel, queue: &str) -> Vec<Header> {
    let get = || channel.basic_get(queue.into(), BasicGetOptions { no_ack: true });
    let message = timeout(SOON, async {
        loop {
            if let Some(message) = get().await.unwrap() {
                break message;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let message = message.await.expect("a message");
    let table = message.properties.headers().clone().unwrap_or_default();
    let entries = table.inner().iter().map(|(name, value)| match value {
        AMQPValue::LongString(text) => header(name.as_str(), "long string", &text.to_string()),
        AMQPValue::ByteArray(bytes) => header(name.as_str(), "byte array", &String::from_utf8_lossy(bytes.as_slice())),
        other => header(name.as_str(), &format!("{:?}", other.get_type()), ""),
    });
    entries.collect()
}

async fn of_entry(url: &str, stream: &str) -> Vec<Header> {
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut range = redis::cmd("XRANGE");
    range.arg(stream).arg("-").arg("+").arg("COUNT").arg(1);
    let entries: Vec<(String, Vec<(String, Value)>)> = range.query_async(&mut connection).await.unwrap();
    let fields = &entries.first().expect("an entry").1;
    let read = fields.iter().map(|(name, value)| match value {
        Value::BulkString(bytes) => header(name, "field", &String::from_utf8_lossy(bytes)),
        other => panic!("the field {name} is {other:?}"),
    });
    read.collect()
}
