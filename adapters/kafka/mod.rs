//! Apache Kafka, through rdkafka.
//!
//! # URLs
//! `kafka://[user[:password]@]host[:9092][,host…][?option=value&…]`; several hosts are ways into one cluster. There is no path.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `topology` | `create` missing topics, or only `check` | `create` |
//! | `partitions` | partitions of a topic that is created; -1 for the broker's own default | 6 |
//! | `replication` | replicas of a topic that is created; -1 for the broker's own default | -1 |
//! | `connect_timeout` | how long connecting, subscribing, creating a topic, a ping and closing may take, in ms | 10000 |
//! | `delivery_timeout` | how long a publish may wait for its confirmation, in ms | 30000 |
//! | `commit_interval` | how often acknowledgements are brought to the broker, in ms | 1000 |
//! | `max_in_flight` | publishes that may be unconfirmed at a time | 1024 |
//! | `linger` | how long a message may wait for others to travel with, in ms | 1 |
//! | `group_protocol` | who assigns partitions: `classic`, a member, or `consumer`, the broker (Kafka 4.0 and later) | `classic` |
//! | `mechanism` | the SASL mechanism for user and password | `PLAIN` |
//! | `client_id` | the name the broker logs this client under | `traced-broker` |
//!
//! User and password are sent over a connection that is not encrypted. Everything else librdkafka can be told is set with
//! [`KafkaBuilder::property`].
//!
//! # Delivery semantics
//! A confirmed message is stored by all in-sync replicas (`acks=all`) and written once, in order, however often the client had
//! to send it again (idempotent producer). It survives the death of a broker process; a power failure only with replicas.
//! A publish that fails says whether bytes may have left. The key is the record's key and chooses the partition as Java
//! clients do (murmur2); order is kept per partition, hence per key. Messages without a key go anywhere.
//!
//! The group is the consumer group of that name. At most as many members work as the topic has partitions. A topic
//! that exists keeps the partitions it has.
//! Acknowledging is local and answered at once; the position up to which everything is settled is committed in intervals, when a
//! partition moves to another member, and on closing, which waits for the broker's answer. After a crash all from the oldest
//! unsettled message of a partition on comes again. Once a partition moved, its deliveries can no longer be settled
//! ([`SettlementLost`](crate::ErrorKind::SettlementLost)) and come again at the other member. Dropping the stream leaves the group; what is
//! in hand then can still be settled for 100 ms, as when the connection is closed.
//! An at-most-once subscription commits before it hands out, and what was not yet handed out when it ends is gone.
//! A subscription without a group reads every partition there is when it begins, commits nothing and joins no group; its requests
//! name the group `traced-broker-reader`.
//!
//! A new group can begin at a time or at an offset, in each partition, and so can a reader: a time is compared with the records' timestamps,
//! to the millisecond, and the first record that is not older is the first to come, whatever follows it. An offset before the first record there
//! is means that record, one beyond the end means the end, as of now. Where a group begins is committed when it subscribes, so partitions
//! that the topic gets later begin at their earliest message. [`reposition`](crate::TracedBroker::reposition) commits a position for every
//! partition; the group must have no members, or it is a [`Conflict`](crate::ErrorKind::Conflict). A member that crashed counts until its
//! session times out, after 20 seconds.
//!
//! Kafka cannot hand one message out again, so a retried message is held by this library, which counts its attempts from 1 in each
//! process. The timestamp is the record's: the producer's clock, or the broker's on topics with `LogAppendTime`.
//!
//! A batch goes out when it holds 32 messages, or half of `max_in_flight` if that is less, or after `linger`. A program that keeps fewer in
//! flight waits for the latter each time: give it a `max_in_flight` that fits, or `linger=0`, which costs more CPU. For one that keeps
//! many small messages in flight, the property `batch.num.messages` allows larger batches.
//!
//! Bounds: twice `max_in_flight` messages wait in the producer; 16 MiB are fetched ahead per subscription (a property of
//! librdkafka's, `queued.max.messages.kbytes`); no more than the prefetch is handed out and unsettled. When it stays
//! used up for a second fetching is paused, and the consumer stays a member of its group. Payloads and keys of up to 4 KiB share buffers
//! of 32 KiB: who keeps one of them keeps its buffer.
//!
//! # Headers
//! Names are text, values any bytes, in order, repeated names included. The message's id travels in the header [`MESSAGE_ID`].
//! A name with a NUL byte is refused when publishing. Of a received message, headers whose names are not UTF-8 or hold a NUL byte
//! are left out and counted; more than 100,000 headers count as one that is unreadable, and none is read. A null value is read as an
//! empty one, and then a NUL byte in the name cuts it short unnoticed. A message without payload is a tombstone, and not the same as an empty one.
//!
//! # Escape hatch
//! [`Kafka::from_client`] starts from a client configuration of rdkafka's own, [`Kafka::as_client`] gives the one in use, to make
//! further clients from. Properties that the semantics above rest on are refused.

mod assignment;
mod commit;
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
mod start;
mod topology;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::address::{Start, Subscription, Topic};
use crate::broker_url::BrokerUrl;
use crate::capability::{Attempts, Capabilities, Confirm, HeaderValues, Order, Retry, TimestampSource};
use crate::driver::{Confirmation, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

pub use config::{GroupProtocol, KafkaBuilder};
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

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        self.check_open()?;
        let (shared, subscription) = (Arc::clone(&self.shared), subscription.clone());
        blocking(move || {
            let running = shared.publisher.running()?;
            consume::reposition(running.client(), &shared.settings, &subscription, start)
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
    let identity = match settings.shared_client().get("client.id") {
        Some(id) => identity.with_client_id(id),
        None => identity,
    };
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
    capabilities.start_at_time = true;
    capabilities.start_at_offset = true;
    capabilities.reposition = true;
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
