//! What the tests have in common: connecting, publishing, receiving.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use traced_broker::adapters::amqp::Amqp;
use traced_broker::driver::{Confirmation, Disposition, Driver, Inbound, Outbound, Source};
use traced_broker::{BrokerUrl, Receipt, Result, Subscription, Topic};

use crate::support::{Kind, shared};

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long is waited for what must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

pub(crate) fn server() -> &'static str {
    shared(Kind::RabbitMq)
}

pub(crate) async fn connect(options: &str) -> Result<Amqp> {
    connect_to(&format!("{}/{options}", server())).await
}

/// Connects; what adapter and client log is shown with `RUST_LOG`.
pub(crate) async fn connect_to(url: &str) -> Result<Amqp> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Every test but the first finds it done.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    Amqp::connect(&BrokerUrl::parse(url)?).await
}

/// A topic that no other test uses, in this run or another.
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

/// Makes a group that nobody reads. Its connection is closed: a subscription that is only dropped ends a moment later, and until then
/// may take a message, which counts as an attempt when it is given back.
pub(crate) async fn make_group(topic: &Topic, name: &str) {
    let amqp = connect("").await.unwrap();
    drop(subscribe(&amqp, group(topic, name)).await);
    amqp.close().await.unwrap();
}

pub(crate) fn group(topic: &Topic, name: &str) -> Subscription {
    Subscription::new(topic.as_str()).group(name)
}

/// The next message.
pub(crate) async fn next(source: &mut Source) -> Inbound {
    let item = timeout(PATIENCE, poll_fn(|cx| source.poll_next(cx))).await.expect("a message in time");
    item.expect("the source goes on").unwrap()
}

/// The next message's payload as text, acknowledged.
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

/// Asserts that nothing comes.
pub(crate) async fn silent(source: &mut Source) {
    if let Ok(item) = timeout(SILENCE, poll_fn(|cx| source.poll_next(cx))).await {
        panic!("unexpected: {item:?}");
    }
}

/// A connection of the client's own, without this library.
pub(crate) async fn raw() -> lapin::Connection {
    let url = format!("{}/%2f", server());
    lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await.unwrap()
}
