//! A broker, and a topic that no other test or run uses.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use tokio::time::timeout;
use traced_broker::driver::{Driver, DriverExt as _, Outbound};
use traced_broker::{Broker, Deliveries, Headers, Message, Received, Subscription, Topic, TracedBroker as _, connect};

use crate::support::{Kind, shared};

/// Maximum duration of every step.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A valid `traceparent`.
pub(crate) const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Runs each test on each of the four network brokers.
macro_rules! on_each_broker {
    ($($test:ident),* $(,)?) => {
        on_each_broker! { @ kafka: Kafka, $($test)* }
        on_each_broker! { @ rabbitmq: RabbitMq, $($test)* }
        on_each_broker! { @ nats: Nats, $($test)* }
        on_each_broker! { @ redis: Redis, $($test)* }
    };
    (@ $module:ident: $kind:ident, $($test:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(crate::setup::Setup::new(crate::support::Kind::$kind).await).await;
                }
            )*
        }
    };
}
pub(crate) use on_each_broker;

/// A broker and a topic on it.
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    pub(crate) topic: String,
    pub(crate) broker: Broker,
}

impl Setup {
    pub(crate) async fn new(kind: Kind) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let topic = format!("orders-{time:x}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let url = tokio::task::spawn_blocking(move || shared(kind).to_owned()).await.unwrap();
        let broker = connect(own_url(kind, &url)).await.unwrap();
        Self { kind, url, topic, broker }
    }

    /// Returns `true` if messages are stored for later subscribers.
    pub(crate) fn keeps(&self) -> bool {
        self.kind != Kind::RabbitMq
    }

    /// Returns the time after which a topic counts as empty; joining a group takes some time on
    /// Kafka.
    pub(crate) fn idle(&self) -> &'static str {
        if self.kind == Kind::Kafka { "10s" } else { "3s" }
    }

    fn group(&self, name: &str) -> Subscription {
        Subscription::new(&self.topic).group(name)
    }

    /// Creates a group that gets every message published from now on, on every broker.
    pub(crate) async fn make_group(&self, name: &str) {
        // On a separate connection; once it is closed, the group has no member that could receive a
        // message.
        let maker = connect(own_url(self.kind, &self.url)).await.unwrap();
        drop(maker.subscribe(self.group(name)).await.unwrap());
        maker.close().await.unwrap();
    }

    /// Returns the same broker with another topic.
    pub(crate) fn with_topic(&self, topic: &str) -> Self {
        Self { kind: self.kind, url: self.url.clone(), topic: topic.to_owned(), broker: self.broker.clone() }
    }

    /// Receives and acknowledges the next messages of a group.
    pub(crate) async fn receive(&self, group: &str, count: usize) -> Vec<Received> {
        let mut deliveries = self.broker.subscribe(self.group(group)).await.unwrap();
        let mut received = Vec::new();
        for _ in 0..count {
            received.push(next(&mut deliveries).await);
        }
        received
    }

    /// Fails if the group gets another message.
    pub(crate) async fn assert_no_more(&self, group: &str) {
        let mut deliveries = self.broker.subscribe(self.group(group)).await.unwrap();
        // On Kafka a member gets no messages before it has joined its group.
        let wait = Duration::from_secs(if self.kind == Kind::Kafka { 6 } else { 1 });
        let more = timeout(wait, deliveries.next()).await;
        assert!(more.is_err(), "{more:?}");
    }

    pub(crate) async fn publish(&self, payload: &str) {
        self.broker.publish(&self.topic, Message::new(payload.to_owned())).await.unwrap();
    }

    /// Publishes with exactly these headers, like a producer that does not use this library.
    pub(crate) async fn publish_raw(&self, payload: &str, headers: &[(&str, &str)]) {
        let topic = Topic::new(&self.topic).unwrap();
        self.broker.get_ref().declare(&topic).await.unwrap();
        let headers: Headers = headers.iter().copied().collect();
        let message = Outbound { headers, ..Outbound::new(payload.to_owned()) };
        timeout(SOON, self.broker.get_ref().enqueue(&topic, message)).await.unwrap().unwrap();
    }

    /// Returns the name of another topic.
    pub(crate) fn beside(&self, name: &str) -> String {
        format!("{}.{name}", self.topic)
    }
}

/// Returns a URL whose topics have one partition, so that messages are ordered.
fn own_url(kind: Kind, url: &str) -> String {
    if kind == Kind::Kafka { format!("{url}?partitions=1") } else { url.to_owned() }
}

/// Receives and acknowledges the next message, skipping errors.
pub(crate) async fn next(deliveries: &mut Deliveries) -> Received {
    loop {
        let next = timeout(SOON, deliveries.next()).await.expect("a message");
        // The subscription recovers from an error by itself.
        let Ok(delivery) = next.expect("the subscription goes on") else { continue };
        let message = delivery.message().clone();
        delivery.ack().await.unwrap();
        return message;
    }
}

pub(crate) fn text(message: &Received) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}

/// Returns the trace id in the message's `traceparent`.
pub(crate) fn trace_id(message: &Received) -> String {
    let parent = message.headers().get_str("traceparent").expect("a traceparent");
    parent.split('-').nth(1).expect("a trace id").to_owned()
}
