//! Shared code of this adapter's tests.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::timeout;
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Disposition, Driver, Inbound, Outbound, Source};
use traced_broker::{BrokerUrl, Receipt, Result, Subscription, Topic};

use crate::support::{Kind, shared};

/// Longer than any successful operation takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// Time without a delivery after which a test concludes that none will arrive.
pub(crate) const SHORT: Duration = Duration::from_millis(700);

/// Connects to the server that the tests share.
pub(crate) async fn kafka() -> Kafka {
    connect(shared(Kind::Kafka)).await.unwrap()
}

pub(crate) async fn connect(url: &str) -> Result<Kafka> {
    Kafka::connect(&BrokerUrl::parse(url).unwrap()).await
}

/// Returns the shared server's address with options.
pub(crate) fn url_with(options: &str) -> String {
    let url = shared(Kind::Kafka);
    format!("{url}{}{options}", if url.contains('?') { '&' } else { '?' })
}

/// Returns the `bootstrap.servers` of the shared server.
pub(crate) fn servers() -> String {
    let hosts = BrokerUrl::parse(shared(Kind::Kafka)).unwrap().hosts(9092);
    hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(",")
}

/// Returns a name that no other test, and no other run, uses.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let run = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros();
    format!("{name}-{run}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Returns a declared topic.
pub(crate) async fn topic(kafka: &Kafka, name: &str) -> Topic {
    let topic = Topic::new(&unique(name)).unwrap();
    kafka.declare(&topic).await.unwrap();
    topic
}

pub(crate) fn outbound(payload: impl Into<Bytes>) -> Outbound {
    Outbound::new(payload)
}

pub(crate) fn keyed(key: &str, payload: impl Into<Bytes>) -> Outbound {
    Outbound { key: Some(Bytes::copy_from_slice(key.as_bytes())), ..outbound(payload) }
}

/// Publishes numbers as text, in order, all before the first is awaited.
pub(crate) async fn publish_numbers(kafka: &Kafka, topic: &Topic, numbers: std::ops::Range<u32>) -> Vec<Receipt> {
    let sent: Vec<_> = numbers.map(|number| kafka.publish(topic, outbound(number.to_string()))).collect();
    let mut receipts = Vec::with_capacity(sent.len());
    for confirmation in sent {
        receipts.push(confirmation.await.unwrap());
    }
    receipts
}

pub(crate) async fn subscribe(kafka: &Kafka, topic: &Topic, group: &str) -> Source {
    kafka.subscribe(&Subscription::new(&**topic).group(group)).await.unwrap()
}

/// Returns the next item, or `None` at the end of the stream.
pub(crate) async fn next_item(source: &mut Source) -> Option<Result<Inbound>> {
    timeout(LONG, poll_fn(|cx| source.poll_next(cx))).await.expect("nothing comes")
}

pub(crate) async fn next(source: &mut Source) -> Inbound {
    next_item(source).await.expect("the stream ended").unwrap()
}

/// Returns `true` if no item arrives for a while.
pub(crate) async fn is_quiet(source: &mut Source) -> bool {
    timeout(SHORT, poll_fn(|cx| source.poll_next(cx))).await.is_err()
}

pub(crate) async fn ack(inbound: Inbound) {
    inbound.handle.settle(Disposition::Ack).await.unwrap();
}

/// Returns the number that [`publish_numbers`] published.
pub(crate) fn number(inbound: &Inbound) -> u32 {
    std::str::from_utf8(inbound.payload.as_deref().unwrap()).unwrap().parse().unwrap()
}

/// Receives and acknowledges `count` messages.
pub(crate) async fn drain(source: &mut Source, count: usize) -> Vec<u32> {
    let mut numbers = Vec::with_capacity(count);
    while numbers.len() < count {
        let inbound = next(source).await;
        numbers.push(number(&inbound));
        ack(inbound).await;
    }
    numbers
}

pub(crate) fn as_set(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    numbers.into_iter().collect()
}

/// Returns the position that the group has committed in each partition, as seen by a separate
/// client.
pub(crate) fn committed(group: &str, topic: &str, partitions: i32) -> Vec<Option<i64>> {
    let committed = committed_at(&servers(), group, topic, partitions);
    let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
    committed.elements().iter().map(|partition| offset(partition.offset())).collect()
}

/// Returns the positions of a group on these servers, with their metadata.
pub(crate) fn committed_at(servers: &str, group: &str, topic: &str, partitions: i32) -> TopicPartitionList {
    let mut config = ClientConfig::new();
    let consumer: BaseConsumer = config.set("bootstrap.servers", servers).set("group.id", group).create().unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_range(topic, 0, partitions - 1);
    consumer.committed_offsets(all, LONG).unwrap()
}
