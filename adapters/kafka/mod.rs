//! Apache Kafka, through rdkafka.

mod assignment;
mod config;
mod consume;
mod delivery;
mod error;
mod headers;
mod log;
mod member;
mod native;
mod poller;
mod publish;
mod topology;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::address::{Subscription, Topic};
use crate::broker_url::BrokerUrl;
use crate::capability::{Attempts, Capabilities, Confirm, HeaderValues, Order, Retry, TimestampSource};
use crate::driver::{Confirmation, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

pub use config::KafkaBuilder;
pub use headers::MESSAGE_ID;

use log::Trouble;
use poller::Control;
use publish::Publisher;

/// The port of a broker unless the URL says otherwise.
pub const DEFAULT_PORT: u16 = 9092;

/// How long closing waits for the broker: once for the publishes, once for the subscriptions.
const CLOSE: Duration = Duration::from_secs(10);

/// A connection to Kafka; see the [module](self).
#[derive(Debug)]
pub struct Kafka {
    shared: Arc<Shared>,
    identity: Identity,
    capabilities: Capabilities,
}

#[derive(Debug)]
struct Shared {
    settings: KafkaBuilder,
    /// What the settings come to, for the user's own clients.
    client: ClientConfig,
    publisher: Publisher,
    subscriptions: Mutex<Vec<Arc<Control>>>,
    closed: AtomicBool,
}

impl Kafka {
    /// Connects to the cluster that the URL names.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an unknown or invalid option or a path, and as [`KafkaBuilder::connect`].
    pub async fn connect(url: &BrokerUrl) -> Result<Self> {
        KafkaBuilder::from_url(url)?.connect().await
    }

    /// Settings to connect with; `bootstrap_servers` is `host:port`, or several of them with commas.
    pub fn builder(bootstrap_servers: impl Into<String>) -> KafkaBuilder {
        KafkaBuilder::new(bootstrap_servers)
    }

    /// Settings that start from a client configuration of rdkafka's, which needs `bootstrap.servers`.
    pub fn from_client(configuration: ClientConfig) -> KafkaBuilder {
        KafkaBuilder::from_client(configuration)
    }

    /// The client configuration this connection was made with, to make further clients of rdkafka's from. It holds the
    /// credentials.
    pub fn as_client(&self) -> &ClientConfig {
        &self.shared.client
    }

    async fn open(settings: KafkaBuilder) -> Result<Self> {
        let trouble = Arc::new(Trouble::default());
        let publisher = Publisher::new(&settings, Arc::clone(&trouble))?;
        let shared = Arc::new(Shared {
            client: settings.shared_client(),
            settings,
            publisher,
            subscriptions: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let asked = Arc::clone(&shared);
        let answer = blocking(move || topology::ping(asked.publisher.client(), asked.settings.connect_timeout)).await;
        answer.map_err(|error| unreachable(error, &shared.settings, &trouble))?;
        Ok(Self { identity: identity(&shared.settings), capabilities: capabilities(&shared.settings), shared })
    }

    fn check_open(&self) -> Result<()> {
        if self.shared.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }
}

#[async_trait]
impl Driver for Kafka {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.check_open()?;
        let (shared, topic) = (Arc::clone(&self.shared), topic.clone());
        blocking(move || topology::ensure(shared.publisher.client(), &shared.settings, &topic)).await?;
        Ok(Destination::new())
    }

    fn publish(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        match self.check_open() {
            Ok(()) => self.shared.publisher.publish(topic, &message),
            Err(error) => Confirmation::ready(Err(error)),
        }
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        self.check_open()?;
        let (shared, subscription) = (Arc::clone(&self.shared), subscription.clone());
        blocking(move || {
            let (source, control) = consume::open(shared.publisher.client(), &shared.settings, &subscription)?;
            let mut subscriptions = shared.subscriptions.lock();
            if shared.closed.load(Ordering::Acquire) {
                return Err(closed());
            }
            subscriptions.retain(|other| !other.is_ending());
            subscriptions.push(control);
            Ok(source)
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        self.check_open()?;
        let shared = Arc::clone(&self.shared);
        blocking(move || topology::ping(shared.publisher.client(), shared.settings.connect_timeout)).await
    }

    async fn close(&self) -> Result<()> {
        let subscriptions = {
            let mut subscriptions = self.shared.subscriptions.lock();
            if self.shared.closed.swap(true, Ordering::AcqRel) {
                return Ok(());
            }
            std::mem::take(&mut *subscriptions)
        };
        subscriptions.iter().for_each(|control| control.end());
        let ends = join_all(subscriptions.iter().filter_map(|control| control.ended()));
        let shared = Arc::clone(&self.shared);
        let (flushed, ended) = tokio::join!(blocking(move || shared.publisher.close(CLOSE)), timeout(CLOSE, ends));
        let Ok(ended) = ended else {
            return Err(Error::new(ErrorKind::Timeout, "acknowledgements may not have reached the broker"));
        };
        // A thread that is gone without an answer panicked in a callback.
        let ended = ended.into_iter().try_for_each(|end| end.unwrap_or_else(|_| Err(vanished())));
        flushed.and(ended)
    }
}

/// Runs what blocks on a thread where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|_| Err(vanished()))
}

fn identity(settings: &KafkaBuilder) -> Identity {
    let identity = Identity::new("kafka")
        .with_max_in_flight(settings.max_in_flight)
        .with_send_attributes(Some(delivery::KEY_ATTRIBUTE), Some(delivery::OFFSET_ATTRIBUTE));
    match BrokerUrl::parse(&format!("kafka://{}", settings.servers())) {
        Ok(url) => url.hosts(DEFAULT_PORT).first().map(|(host, port)| identity.clone().with_server(host, *port)),
        Err(_) => None,
    }
    .unwrap_or(identity)
}

fn capabilities(settings: &KafkaBuilder) -> Capabilities {
    let mut capabilities = Capabilities::new();
    capabilities.confirm = Confirm::Broker;
    capabilities.retry = Retry::Held;
    capabilities.attempts = Attempts::Process;
    capabilities.order = Order::Partition;
    capabilities.timestamp = Some(TimestampSource::Producer);
    capabilities.header_values = HeaderValues::Bytes;
    capabilities.tombstones = true;
    capabilities.max_payload = Some(settings.max_message());
    capabilities
}

/// The error of a connection that could not be made.
fn unreachable(error: Error, settings: &KafkaBuilder, trouble: &Trouble) -> Error {
    let message =
        "no broker answered; check that it runs, that host and port are right, and that it accepts plain connections";
    let last = trouble.last();
    let error = match &last {
        Some((code, _)) if error::from_code(*code).kind() == ErrorKind::Unauthenticated => error::from_code(*code),
        _ if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        }
        _ => error,
    };
    let error = error.with_context("servers", settings.servers());
    match last {
        Some((_, reason)) => error.with_context("reason", reason),
        None => error,
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the connection is closed")
}

fn vanished() -> Error {
    Error::new(ErrorKind::Unexpected, "a thread of the kafka adapter ended without an answer")
}
