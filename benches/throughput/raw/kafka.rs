//! Kafka with rdkafka alone: the loops to compare with. Each message carries its own `traceparent`,
//! encoded by hand.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

/// Publishes `n` messages of `payload_len` bytes, at most `in_flight` of them unconfirmed, and
/// returns the time until the last was confirmed.
///
/// # Panics
/// If anything fails, because the run is void then.
pub(crate) async fn publish(
    url: &str,
    topic: &str,
    n: usize,
    payload_len: usize,
    in_flight: usize,
    headers: bool,
) -> Duration {
    let mut config = client(url);
    // A batch is half of the messages in flight, so that one is filled while the other is on its
    // way.
    let batch = (in_flight / 2).clamp(1, 10_000).to_string();
    config.set("enable.idempotence", "true").set("acks", "all").set("batch.num.messages", batch);
    let producer: FutureProducer = config.create().expect("a producer");
    producer.client().fetch_metadata(Some(topic), Duration::from_secs(10)).expect("the topic");
    let payload = vec![b'x'; payload_len];
    let mut waiting = VecDeque::with_capacity(in_flight);
    let begun = Instant::now();
    for id in 1..=n {
        if waiting.len() == in_flight
            && let Some(oldest) = waiting.pop_front()
        {
            confirmed(oldest).await;
        }
        let mut record = FutureRecord::<(), _>::to(topic).payload(&payload);
        if headers {
            let traceparent = encode(id as u64);
            let header = Header { key: "traceparent", value: Some(traceparent.as_slice()) };
            record = record.headers(OwnedHeaders::new_with_capacity(1).insert(header));
        }
        waiting.push_back(producer.send_result(record).map_err(|(error, _)| error).expect("room in the queue"));
    }
    for confirmation in waiting {
        confirmed(confirmation).await;
    }
    begun.elapsed()
}

async fn confirmed(confirmation: rdkafka::producer::DeliveryFuture) {
    confirmation.await.expect("a delivery report").map_err(|(error, _)| error).expect("a confirmation");
}

/// Consumes `n` messages from the beginning of the topic as a member of the group, looks for the
/// `traceparent` of each, and returns the time until the positions were committed and the group was
/// left.
///
/// # Panics
/// If anything fails, because the run is void then.
pub(crate) async fn consume(url: &str, topic: &str, group: &str, n: usize) -> Duration {
    let mut config = client(url);
    config
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    consumer.subscribe(&[topic]).expect("a subscription");
    // librdkafka is polled on a thread that may block.
    tokio::task::spawn_blocking(move || {
        let mut begun = None;
        let mut waiting = Instant::now();
        for index in 0..n {
            let message = loop {
                // Events other than messages also end a poll.
                match consumer.poll(Duration::from_secs(10)) {
                    Some(message) => break message.expect("a message"),
                    None => assert!(waiting.elapsed() < Duration::from_secs(60), "nothing comes"),
                }
            };
            waiting = Instant::now();
            // The time to join a group is not measured.
            begun.get_or_insert_with(Instant::now);
            let carried = message.headers().into_iter().flat_map(Headers::iter);
            std::hint::black_box(carried.filter(|header| header.key == "traceparent").count());
            std::hint::black_box(message.payload().map(<[u8]>::to_vec));
            consumer.store_offset_from_message(&message).expect("a position");
            if index + 1 == n {
                break;
            }
        }
        consumer.commit_consumer_state(rdkafka::consumer::CommitMode::Sync).expect("a commit");
        // Leaving the group is part of the measured work, because the other contenders can only be
        // closed.
        drop(consumer);
        begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    })
    .await
    .expect("the loop")
}

fn client(url: &str) -> ClientConfig {
    let servers = url.trim_start_matches("kafka://");
    let servers = servers.split(['/', '?']).next().unwrap_or_default();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    config
}

/// Encodes a `traceparent` of version 00, sampled, with ids made of `id`.
fn encode(id: u64) -> [u8; 55] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    for (index, nibble) in (0..16).map(|index| (index, (id >> (60 - 4 * index)) & 0xf)) {
        text[3 + index] = HEX[nibble as usize];
        text[19 + index] = HEX[nibble as usize];
        text[36 + index] = HEX[nibble as usize];
    }
    text
}
