//! The best loops over RabbitMQ that we can write with lapin alone: the lower bound for the adapter.
//!
//! Same topology and guarantee as the adapter's: a topic exchange, a quorum queue bound to it, persistent messages with confirms,
//! acknowledgements brought to the broker. Every message has a `traceparent` of its own, encoded by hand.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};

/// The group whose queue takes the messages.
pub const GROUP: &str = "bench";
/// How many messages are fetched ahead; half of them are acknowledged at once.
const PREFETCH: u16 = 256;

/// Publishes `n` messages of `payload_len` bytes, `in_flight` unconfirmed at a time, and returns how long it took until the last
/// was confirmed.
pub async fn publish(url: &str, topic: &str, n: usize, payload_len: usize, in_flight: usize) -> Duration {
    let (connection, channel) = connect(url, topic).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let payload = vec![b'x'; payload_len];
    let begin = Instant::now();
    let mut unconfirmed = FuturesUnordered::new();
    for sequence in 0..n {
        if unconfirmed.len() >= in_flight {
            let confirm: Option<Confirmation> = unconfirmed.next().await;
            assert!(confirm.unwrap().is_ack());
        }
        // Not awaited here: that costs a trip through the client's thread per message.
        let properties = properties(sequence);
        let (channel, payload) = (&channel, &payload);
        unconfirmed.push(async move {
            let options = BasicPublishOptions::default();
            let sent = channel.basic_publish(topic.into(), "".into(), options, payload, properties).await;
            sent.unwrap().await.unwrap()
        });
    }
    while let Some(confirm) = unconfirmed.next().await {
        assert!(confirm.is_ack());
    }
    let took = begin.elapsed();
    drop(unconfirmed);
    connection.close(200, "OK".into()).await.unwrap();
    took
}

/// Consumes `n` messages with their `traceparent`, acknowledged in batches, and returns how long it took until the broker had
/// the last acknowledgement.
pub async fn consume(url: &str, topic: &str, n: usize) -> Duration {
    let (connection, channel) = connect(url, topic).await;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.unwrap();
    let begin = Instant::now();
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(queue(topic).as_str().into(), "".into(), options, arguments).await.unwrap();
    let batch = usize::from(PREFETCH) / 2;
    for received in 1..=n {
        let delivery = consumer.next().await.unwrap().unwrap();
        let headers = delivery.properties.headers().as_ref().unwrap();
        assert!(headers.contains_key("traceparent"));
        if received % batch == 0 || received == n {
            delivery.ack(BasicAckOptions { multiple: true }).await.unwrap();
        }
    }
    // The answer proves that the acknowledgements arrived: closing right after them loses some.
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.unwrap();
    let took = begin.elapsed();
    connection.close(200, "OK".into()).await.unwrap();
    took
}

async fn connect(url: &str, topic: &str) -> (Connection, Channel) {
    let url = format!("{}/%2f", url.trim_end_matches('/'));
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(topic.into(), ExchangeKind::Topic, durable, FieldTable::default()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(i32::MAX));
    let name = queue(topic);
    channel.queue_declare(name.as_str().into(), durable, arguments).await.unwrap();
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(name.as_str().into(), topic.into(), "#".into(), options, arguments).await.unwrap();
    (connection, channel)
}

fn queue(topic: &str) -> String {
    format!("{topic}.{GROUP}")
}

fn properties(sequence: usize) -> BasicProperties {
    let traceparent = format!("00-{:032x}-{:016x}-01", sequence + 1, sequence + 1);
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(traceparent.into()));
    BasicProperties::default().with_delivery_mode(2).with_headers(headers)
}
