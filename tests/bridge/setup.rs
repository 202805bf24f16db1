//! Two brokers, and names that no other test or run uses.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use tokio::time::timeout;
use traced_broker::{Broker, Deliveries, Delivery, Received, Subscription, TracedBroker, connect};

use crate::support::{Kind, shared};
use crate::traces::Spans;

/// Maximum duration of any expected event.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A broker at one end of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Memory,
    Kafka,
    RabbitMq,
    Nats,
    Redis,
}

impl End {
    async fn url(self, number: &str) -> String {
        let kind = match self {
            Self::Memory => return format!("memory://bridge-{number}"),
            Self::Kafka => Kind::Kafka,
            Self::RabbitMq => Kind::RabbitMq,
            Self::Nats => Kind::Nats,
            Self::Redis => Kind::Redis,
        };
        tokio::task::spawn_blocking(move || shared(kind).to_owned()).await.unwrap()
    }

    /// Returns the `messaging.system`.
    pub(crate) fn system(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Kafka => "kafka",
            Self::RabbitMq => "rabbitmq",
            Self::Nats => "nats",
            Self::Redis => "redis",
        }
    }
}

/// Two brokers with recorded spans, and a topic on each.
pub(crate) struct Setup {
    pub(crate) from: Broker,
    pub(crate) to: Broker,
    pub(crate) near: String,
    pub(crate) far: String,
    pub(crate) spans: Spans,
    number: String,
}

impl Setup {
    /// Creates a setup that misses no message from here on, also on brokers that keep no messages
    /// for groups that do not exist yet.
    pub(crate) async fn new(from: End, to: End) -> Self {
        let number = number();
        let (from, to) = (from.url(&number).await, to.url(&number).await);
        Self::over(&from, &to, number).await
    }

    /// Creates a setup over the brokers at these addresses.
    pub(crate) async fn over(from: &str, to: &str, number: String) -> Self {
        let spans = Spans::default();
        let from = spans.of(connect(from).await.unwrap());
        let to = spans.of(connect(to).await.unwrap());
        let (near, far) = (format!("near-{number}"), format!("far-{number}"));
        let setup = Self { from, to, near, far, spans, number };
        drop(setup.from.subscribe(setup.bridged()).await.unwrap());
        drop(setup.to.subscribe(setup.at_the_far_end()).await.unwrap());
        setup
    }

    /// Returns the subscription that the bridge consumes.
    pub(crate) fn bridged(&self) -> Subscription {
        Subscription::new(&self.near)
            .group(format!("bridge-{}", self.number))
            .dead_letter(format!("{}.dead", self.near))
    }

    pub(crate) fn at_the_far_end(&self) -> Subscription {
        Subscription::new(&self.far).group(format!("end-{}", self.number))
    }

    pub(crate) async fn arrivals(&self) -> Deliveries {
        self.to.subscribe(self.at_the_far_end()).await.unwrap()
    }

    pub(crate) async fn close(&self) {
        self.from.close().await.unwrap();
        self.to.close().await.unwrap();
    }
}

/// Returns a unique part for names.
pub(crate) fn number() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    format!("{time:x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Returns the next delivery, skipping reports of trouble.
pub(crate) async fn next(deliveries: &mut Deliveries) -> Delivery {
    let next = async {
        loop {
            match deliveries.next().await.expect("the subscription goes on") {
                Ok(delivery) => return delivery,
                Err(error) => eprintln!("reported by the subscription: {error}"),
            }
        }
    };
    timeout(SOON, next).await.expect("a delivery")
}

/// Processes the next delivery and returns its message.
pub(crate) async fn receive(deliveries: &mut Deliveries) -> Received {
    let delivery = next(deliveries).await;
    let message = delivery.message().clone();
    delivery.process(|_| async { Ok(()) }).await.unwrap();
    message
}

pub(crate) fn text(message: &Received) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}
