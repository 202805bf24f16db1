//! The best loops over RabbitMQ with lapin alone: the lower bound for the adapter.
//!
//! The guarantee is that of the adapter, on the exchange and quorum queue that it created:
//! persistent messages with confirms, and acknowledgements that reach the broker.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

/// Number of messages that are prefetched; half of them are acknowledged together.
const PREFETCH: u16 = 256;

/// Publishes `n` messages of `payload_len` bytes, `in_flight` unconfirmed at a time, and returns
/// the time until the last was confirmed.
pub(crate) async fn publish(
    url: &str,
    topic: &str,
    n: usize,
    payload_len: usize,
    in_flight: usize,
    headers: bool,
) -> Duration {
    let (connection, channel) = connect(url).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let payload = vec![b'x'; payload_len];
    let begin = Instant::now();
    let mut unconfirmed = FuturesUnordered::new();
    for sequence in 0..n {
        if unconfirmed.len() >= in_flight {
            let confirm: Option<Confirmation> = unconfirmed.next().await;
            assert!(confirm.unwrap().is_ack());
        }
        // Not awaited here, which would cost a trip through the client's thread for each message.
        let properties = properties(headers.then_some(sequence));
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

/// Consumes `n` messages with their `traceparent`, acknowledges them in batches, and returns the
/// time until the broker had the last acknowledgement.
pub(crate) async fn consume(url: &str, topic: &str, group: &str, n: usize) -> Duration {
    let (connection, channel) = connect(url).await;
    let queue = format!("{topic}.{group}");
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.unwrap();
    let begin = Instant::now();
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(queue.as_str().into(), "".into(), options, arguments).await.unwrap();
    let batch = usize::from(PREFETCH) / 2;
    for received in 1..=n {
        let delivery = consumer.next().await.unwrap().unwrap();
        let headers = delivery.properties.headers().as_ref();
        std::hint::black_box(headers.is_some_and(|headers| headers.contains_key("traceparent")));
        if received % batch == 0 || received == n {
            delivery.ack(BasicAckOptions { multiple: true }).await.unwrap();
        }
    }
    // The answer proves that the acknowledgements arrived; closing right after them loses some.
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.unwrap();
    let took = begin.elapsed();
    connection.close(200, "OK".into()).await.unwrap();
    took
}

async fn connect(url: &str) -> (Connection, Channel) {
    let url = format!("{}/%2f", url.trim_end_matches('/'));
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

fn properties(sequence: Option<usize>) -> BasicProperties {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let Some(number) = sequence.map(|sequence| sequence + 1) else { return properties };
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(format!("00-{number:032x}-{number:016x}-01").into()));
    properties.with_headers(headers)
}
