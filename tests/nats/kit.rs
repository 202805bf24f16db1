//! Shared code of these tests.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use traced_broker::adapters::nats::Nats;
use traced_broker::driver::{Disposition, Driver, DriverExt, Inbound, Outbound, Source};
use traced_broker::{BrokerUrl, Receipt, Result, Subscription, Topic};

use crate::support::{Kind, shared};

/// Maximum duration of any expected event.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// Time without an event after which a test concludes that it does not happen.
pub(crate) const WHILE: Duration = Duration::from_millis(300);

pub(crate) async fn connect() -> Nats {
    connect_with("").await
}

pub(crate) async fn connect_with(options: &str) -> Nats {
    connect_to(&format!("{}{options}", shared(Kind::Nats))).await.unwrap()
}

pub(crate) async fn connect_to(url: &str) -> Result<Nats> {
    Nats::connect(&BrokerUrl::parse(url).unwrap()).await
}

/// Connects a separate client, which inspects the server.
pub(crate) async fn raw() -> async_nats::Client {
    async_nats::connect(shared(Kind::Nats)).await.unwrap()
}

/// Returns a topic that no other test uses, in this run or another against the same server.
pub(crate) fn topic(name: &str) -> Topic {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    Topic::new(&format!("{name}.{time:x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))).unwrap()
}

pub(crate) fn message(payload: impl Into<Bytes>) -> Outbound {
    Outbound::new(payload)
}

pub(crate) fn with_headers<'a>(payload: &str, headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Outbound {
    Outbound { headers: headers.into_iter().collect(), ..message(payload.to_owned()) }
}

/// Publishes and waits for the confirmation.
pub(crate) async fn publish(nats: &Nats, topic: &Topic, message: Outbound) -> Result<Receipt> {
    timeout(SOON, nats.enqueue(topic, message)).await.expect("an answer")
}

/// Publishes numbers as text, all in flight at once.
pub(crate) async fn publish_numbers(nats: &Nats, topic: &Topic, numbers: std::ops::Range<u32>) {
    nats.declare(topic).await.unwrap();
    let confirmations: Vec<_> = numbers.map(|number| nats.enqueue(topic, message(number.to_string()))).collect();
    for confirmation in confirmations {
        assert!(timeout(SOON, confirmation).await.expect("an answer").unwrap().confirmed);
    }
}

pub(crate) async fn subscribe(nats: &Nats, topic: &Topic, group: &str) -> Source {
    nats.subscribe(&Subscription::new(&**topic).group(group)).await.unwrap()
}

/// Returns the next item, or `None` if none arrives within this time.
pub(crate) async fn next_within(source: &mut Source, wait: Duration) -> Option<Result<Inbound>> {
    timeout(wait, poll_fn(|cx| source.poll_next(cx))).await.ok().map(|item| item.expect("the source has ended"))
}

pub(crate) async fn next(source: &mut Source) -> Inbound {
    next_within(source, SOON).await.expect("a message").unwrap()
}

/// Returns the next message, skipping reports of trouble.
pub(crate) async fn next_message(source: &mut Source) -> Inbound {
    loop {
        if let Ok(inbound) = next_within(source, SOON * 3).await.expect("a message") {
            return inbound;
        }
    }
}

pub(crate) async fn assert_quiet(source: &mut Source) {
    let item = next_within(source, WHILE).await;
    assert!(item.is_none(), "nothing should come, but this did: {item:?}");
}

pub(crate) fn text(inbound: &Inbound) -> &str {
    std::str::from_utf8(inbound.payload.as_ref().unwrap()).unwrap()
}

pub(crate) async fn settle(inbound: Inbound, disposition: Disposition) -> Result<()> {
    timeout(SOON, inbound.handle.settle(disposition)).await.expect("an answer")
}

pub(crate) async fn ack(inbound: Inbound) {
    settle(inbound, Disposition::Ack).await.unwrap();
}
