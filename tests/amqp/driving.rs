//! Shared test code: connecting, publishing, receiving.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use traced_broker::adapters::amqp::Amqp;
use traced_broker::driver::{Confirmation, Disposition, Driver, Inbound, Outbound, Source};
use traced_broker::{BrokerUrl, Receipt, Result, Subscription, Topic};

use crate::support::{Kind, shared};

/// Maximum duration of any operation before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Time without a delivery after which a test concludes that none will arrive.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

pub(crate) fn server() -> &'static str {
    shared(Kind::RabbitMq.of_generation())
}

pub(crate) async fn connect(options: &str) -> Result<Amqp> {
    connect_to(&format!("{}/{options}", server())).await
}

/// Connects; logs of the adapter and the client are shown with `RUST_LOG`.
pub(crate) async fn connect_to(url: &str) -> Result<Amqp> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Only the first test installs it.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    Amqp::connect(&BrokerUrl::parse(url)?).await
}

/// Returns a topic that no other test uses, in this run or another.
pub(crate) fn unique(name: &str) -> Topic {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Topic::new(&format!("{name}-{}-{count}", std::process::id())).unwrap()
}

pub(crate) fn outbound(payload: impl Into<bytes::Bytes>) -> Outbound {
    Outbound::new(payload)
}

pub(crate) async fn confirmed(confirmation: Confirmation<Receipt>) -> Result<Receipt> {
    timeout(PATIENCE, confirmation).await.expect("an answer to a publish in time")
}

pub(crate) async fn subscribe(amqp: &Amqp, subscription: Subscription) -> Source {
    amqp.subscribe(&subscription).await.unwrap()
}

/// Creates a group without members. Its connection is closed: a subscription that is only dropped
/// ends a moment later, and until then may take a message, which is one more delivery when it is
/// given back.
pub(crate) async fn make_group(topic: &Topic, name: &str) {
    let amqp = connect("").await.unwrap();
    drop(subscribe(&amqp, group(topic, name)).await);
    amqp.close().await.unwrap();
}

pub(crate) fn group(topic: &Topic, name: &str) -> Subscription {
    Subscription::new(topic.as_str()).group(name)
}

/// Receives the next message.
pub(crate) async fn next(source: &mut Source) -> Inbound {
    let item = timeout(PATIENCE, poll_fn(|cx| source.poll_next(cx))).await.expect("a message in time");
    item.expect("the source goes on").unwrap()
}

/// Receives the next message, acknowledges it, and returns its payload as text.
pub(crate) async fn next_text(source: &mut Source) -> String {
    let inbound = next(source).await;
    let text = text(&inbound);
    settle(inbound, Disposition::Ack).await.unwrap();
    text
}

pub(crate) fn text(inbound: &Inbound) -> String {
    String::from_utf8(inbound.payload.as_deref().unwrap().to_vec()).unwrap()
}

pub(crate) async fn settle(inbound: Inbound, disposition: Disposition) -> Result<()> {
    inbound.handle.settle(disposition).await
}

/// Asserts that no message arrives.
pub(crate) async fn silent(source: &mut Source) {
    if let Ok(item) = timeout(SILENCE, poll_fn(|cx| source.poll_next(cx))).await {
        panic!("unexpected: {item:?}");
    }
}

/// Opens a connection of the client library, without this library.
pub(crate) async fn raw() -> lapin::Connection {
    let url = format!("{}/%2f", server());
    lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await.unwrap()
}
