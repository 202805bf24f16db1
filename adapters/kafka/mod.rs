//! Apache Kafka, through rdkafka.
//!
//! # URLs
//! `kafka://[user:password@]host[:9092][,host…]`; the hosts are where to ask for the rest of the cluster. User and password mean
//! SASL over a plain connection.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `topology` | `create` missing topics, or only `check` | `create` |
//! | `partitions` | partitions of a created topic, -1 for the broker's default | 6 |
//! | `replication` | replicas of a created topic, -1 for the broker's default | -1 |
//! | `max_in_flight` | publishes that may be unconfirmed at a time | 1024 |
//! | `connect_timeout` | ms for connecting, subscribing, creating, pinging, closing | 10000 |
//! | `delivery_timeout` | ms a publish may wait for its confirm, across reconnections | 30000 |
//! | `commit_interval` | ms between commits of what was acknowledged | 1000 |
//! | `linger` | ms to wait for a fuller batch | librdkafka's |
//! | `mechanism` | SASL mechanism | `PLAIN` |
//! | `client_id` | name in the broker's logs and quotas | librdkafka's |
//!
//! [`Kafka::builder`] takes the same, and any property of librdkafka that the semantics below do not rest on.
//!
//! # Delivery semantics
//! A message is confirmed once all in-sync replicas have it (`acks=all`, idempotent): it survives the death of a broker process, and of a
//! broker's disk or power only with replicas. A publish that times out after it was sent is unknown.
//!
//! A group is a consumer group. Members share the partitions; messages of one key are in one partition, the same that Java clients
//! choose, and come in order. Deliveries may be settled in any order: a partition's position is committed up to the
//! oldest one that is not settled, so that after a crash everything from there on comes again, later messages that were settled included.
//! Before a partition moves to another member, its position is committed; what was unsettled goes to the new member, and
//! settling it late fails with `SettlementLost`. Without a group, a reader has all partitions to itself and commits nothing.
//!
//! Kafka cannot bring one message back: a retried delivery stays unsettled and is handed out again from memory. Hence attempts are counted
//! while the consumer lives and start at 1 after its end, and a message that is retried for long holds the commits of its
//! partition back. The timestamp is the record's: the producer's time, or the broker's where the topic says `LogAppendTime`.
//!
//! A thread apart polls for each subscription, so that slow handlers do not cost the membership of the group. It hands out at most as
//! many messages as the prefetch allows to be unsettled and pauses the partitions beyond; what librdkafka fetches ahead is bounded by it.
//!
//! # Headers
//! Names and values are carried as they are, repeated names too. A name that holds a NUL byte is refused, since clients on librdkafka would
//! read it cut short. Of a foreign message, a null value reads as empty, and a name that is not UTF-8 is left out and counted. The
//! message id, for which Kafka has no field, is the header `message-id`. The key is the record's key; a message without payload
//! is a tombstone.
//!
//! # Escape hatch
//! [`Kafka::from_client`] starts from a client configuration of rdkafka's, and [`Kafka::as_client`] gives the one a connection was made
//! with, to make admin clients and the like.

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
        let answer =
            blocking(move || topology::ping(asked.publisher.running()?.client(), asked.settings.connect_timeout)).await;
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
        blocking(move || topology::ensure(shared.publisher.running()?.client(), &shared.settings, &topic)).await?;
        Ok(Destination::new())
    }

    fn publish(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        self.shared.publisher.publish(topic, &message)
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        self.check_open()?;
        let (shared, subscription) = (Arc::clone(&self.shared), subscription.clone());
        blocking(move || {
            let running = shared.publisher.running()?;
            let (source, control) = consume::open(running.client(), &shared.settings, &subscription)?;
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
        blocking(move || topology::ping(shared.publisher.running()?.client(), shared.settings.connect_timeout)).await
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
        let (shared, limit) = (Arc::clone(&self.shared), self.shared.settings.connect_timeout);
        let (flushed, ended) = tokio::join!(blocking(move || shared.publisher.close(limit)), timeout(limit, ends));
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
