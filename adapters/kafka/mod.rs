//! Apache Kafka, through rdkafka.
//!
//! # URLs
//! `kafka://[user[:password]@]host[:9092][,host…][?option=value&…]`, or `kafkas://…` for TLS. Several
//! hosts are entry points of one cluster. The URL has no path.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `topology` | `create` missing topics, or only `check` that they exist | `create` |
//! | `partitions` | partitions of a topic that is created; -1 for the broker's own default | 6 |
//! | `replication` | replicas of a topic that is created; -1 for the broker's own default | -1 |
//! | `connect_timeout` | maximum duration of connecting, subscribing, creating a topic, a ping and closing, in ms | 10000 |
//! | `delivery_timeout` | maximum time that a publish waits for its confirmation, in ms | 30000 |
//! | `commit_interval` | interval at which acknowledgements are sent to the broker, in ms | 1000 |
//! | `revoke_patience` | maximum time that partitions which move to another member wait for deliveries in hand, in ms | 5000 |
//! | `max_in_flight` | maximum number of unconfirmed publishes | 1024 |
//! | `linger` | maximum time that a message waits for others to share its batch, in ms | 1 |
//! | `group_protocol` | partitions are assigned by a member (`classic`) or by the broker (`consumer`, Kafka 4.0 and later) | `classic` |
//! | `assignor` | assignors that members of groups use, separated by commas (`classic`) | `cooperative-sticky` |
//! | `offset_reset` | where a group goes on whose position is gone: `earliest`, `latest`, or `error` | `earliest` |
//! | `reader_group` | the group that readers without a group name in their requests | `traced-broker-reader` |
//! | `tls_ca` | the file in PEM with the certificates of the authorities to trust, and no others | the system's |
//! | `tls_cert`, `tls_key` | the files in PEM with the certificate to present, its authorities' after it, and its key | none |
//! | `tls_server_name` | refused: librdkafka checks the name of each host that it connects to | |
//! | `mechanism` | the SASL mechanism for user and password: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` | `PLAIN` |
//! | `plaintext` | `yes` sends user and password to other machines without TLS | `no` |
//! | `client_id` | the name under which the broker logs this client | `traced-broker` |
//!
//! TLS and SCRAM are OpenSSL's, and need the cargo feature `kafka-tls`. The files are read whenever
//! a client of librdkafka is made: when connecting, for each subscription, and when a producer or a
//! consumer is made anew. A client keeps what it has read, also when it reconnects: connect anew to
//! have a new certificate presented everywhere. The certificates of the brokers have to be for the
//! names that the brokers advertise.
//!
//! Set all other options of librdkafka with [`KafkaBuilder::property`].
//!
//! # Delivery semantics
//! | here | in Kafka |
//! |---|---|
//! | topic | topic of that name |
//! | group | consumer group of that name |
//! | key | key of the record |
//! | time of publishing | timestamp of the record: the producer's clock, or the broker's on topics with `LogAppendTime` |
//!
//! ## Confirms
//! A confirmed message is stored by all in-sync replicas (`acks=all`). It is written once and in
//! order, however often the client had to send it (idempotent producer). It survives the death of a
//! broker process, but a power failure only with replicas. A publish that fails says whether bytes
//! may have left. One that the broker takes for a repetition has an unknown outcome: its first
//! attempt was stored and the answer lost, or refused by the leader of a new partition.
//!
//! ## Keys and order
//! The key chooses the partition as Java clients do (murmur2). Order is kept per partition, and so
//! per key. Messages without a key go to any partition. A topic that exists keeps its partitions.
//!
//! ## Groups
//! At most as many members receive messages as the topic has partitions. Dropping the stream leaves
//! the group. Deliveries in hand can then still be settled for 100 ms, as after closing the
//! connection. A source that is only stopped stays a member, keeps its partitions, and can settle
//! its deliveries without a limit of time.
//!
//! Members of a group need an assignor in common. The default here, `cooperative-sticky`, lets
//! members that stay keep their partitions; clients of Java and librdkafka begin with `range`. To
//! join a group of theirs, set `assignor=range`; without it, the subscription reports a
//! [`Conflict`](crate::ErrorKind::Conflict) and receives nothing. A group moves to the cooperative
//! assignor as Kafka documents it: all members first get both, `assignor=cooperative-sticky,range`
//! here, and then the cooperative one alone.
//!
//! With `group_protocol=consumer` the broker assigns the partitions (KIP-848, Kafka 4.0 and later;
//! an older one is an [`Unsupported`](crate::ErrorKind::Unsupported) error). Members then go on
//! within seconds after a restart of the broker. With `classic`, one that joins anew may have to
//! wait until its former session times out, 20 seconds, and has messages redelivered. A process
//! that was killed keeps its partitions for as long; with `consumer`, for the broker's
//! `group.consumer.session.timeout.ms`, 45 seconds unless it is set there. The broker also chooses
//! the assignor: the property `group.remote.assignor` asks for `uniform` or `range`.
//!
//! `classic` is the default, because every broker has it and every other client joins it. A group
//! moves to the other protocol, and back, while its members are deployed one after the other, if
//! the broker's `group.consumer.migration.policy` is `bidirectional`, as it is by default.
//!
//! With the property `group.instance.id`, a connection has one subscription of a group. If another
//! member begins with the same id, the subscription ends with a
//! [`Conflict`](crate::ErrorKind::Conflict): the broker takes the other one for this one.
//!
//! ## Partitions that move
//! When partitions move to another member in an orderly way, messages that were fetched and not
//! handed out are dropped at once, and those in hand can be settled for `revoke_patience`. The
//! position is then committed, and the other member continues there. If no handler takes longer
//! than the patience, no message is handled twice when members join, leave or are deployed.
//! Deliveries that are unsettled after it are redelivered to the other member.
//!
//! Meanwhile this member fetches from no partition, and the partitions that move wait. With an
//! eager assignor (the property `partition.assignment.strategy`) all partitions move at each
//! rebalance. If the session is lost, other members may have the partitions already: deliveries in
//! hand can no longer be settled, at once.
//!
//! ## Settlement
//! An acknowledgement is local and answered at once. The position up to which all messages are
//! settled is committed at intervals, when a partition moves to another member, and on closing,
//! which waits for the broker's answer. Once a partition has moved, its deliveries can no longer be
//! settled ([`SettlementLost`](crate::ErrorKind::SettlementLost)) and are redelivered to the other
//! member. A subscription with the guarantee at most once commits messages before it hands them
//! out; messages not yet handed out when it ends are lost.
//!
//! ## Progress beyond the position
//! The metadata of each commit tells which messages beyond the position are settled, as ranges of
//! offsets. The next member skips them, so one message that stays unsettled has only itself
//! redelivered. It begins with `traced-broker:2:`. It holds for the position that it was committed
//! with: a group that is [moved](crate::TracedBroker::reposition) repeats everything. Members that
//! use other clients ignore it, and their commits remove it.
//!
//! The metadata has at most 4,000 bytes, or less if the broker refuses them
//! (`offset.metadata.max.bytes`). That is enough for 1,000 ranges of up to 1,000 messages each, or
//! for fewer and longer ones. If more than 16,384 messages, or four times the prefetch, are settled
//! beyond what fits, that partition waits until older messages are settled. After a crash, messages
//! that were settled since the last commit are redelivered as well.
//!
//! ## Readers without a group
//! A subscription without a group reads every partition, those that are added later from their
//! beginning and after some seconds. It commits no positions and joins no group. Its requests name
//! the group `reader_group`.
//!
//! ## Start positions
//! A new group can begin at a time or at an offset, in each partition, and so can a reader. A time
//! is compared with the records' timestamps, to the millisecond; the first record that is not older
//! is delivered first, whatever follows it. An offset before the first existing record means that
//! record; an offset beyond the end means the end, as of now. The start of a group is committed
//! when it subscribes, so partitions that the topic gets later begin at their earliest message.
//!
//! A position can be gone: retention has deleted its messages, or the last replica that had them
//! was lost. `offset_reset` says where the group goes on, and no message is passed over that is
//! there unless you choose `latest`. With `error` the partition stops, and the subscription reports
//! [`NotFound`](crate::ErrorKind::NotFound) until the group is moved.
//!
//! ## Moving a group
//! [`reposition`](crate::TracedBroker::reposition) commits a position for every partition. The
//! group must have no members, or this is a [`Conflict`](crate::ErrorKind::Conflict). A member that
//! crashed counts until its session times out, after 20 seconds (`classic`).
//!
//! ## Retries
//! Kafka cannot redeliver a single message. A retried message is therefore held by this library,
//! which counts its attempts. The adapter keeps the number of failed attempts that it is told
//! ([`DeliveryHandle::failed`](crate::driver::DeliveryHandle::failed)) in the metadata of the
//! commit, and hands the message out with it after a restart.
//!
//! ## Messages that end their process
//! Kafka counts no deliveries. The metadata of each commit therefore says that the assignment of
//! the partition is open, the first one before a message is handed out; the last one of an
//! assignment that ends in order takes it back. After two in a row that did not end in order,
//! whatever these may have taken is [suspected](crate::driver::Inbound::lost_trials) of ending its
//! process: its handler begins once the commit that notes the trial is answered. A member that
//! loses its partition in a trial withdraws the note only if it gets the partition back. With a
//! broker that keeps no metadata, such a message is handed out for ever.
//!
//! ## Batches
//! A batch is sent when it holds 128 messages, or half of `max_in_flight` if that is less, or after
//! `linger`. A program that keeps fewer messages in flight waits for `linger` each time. Give it a
//! `max_in_flight` that fits, or `linger=0`, which costs more CPU. For a program that keeps many
//! small messages in flight, the property `batch.num.messages` allows larger batches.
//!
//! ## Reconnection
//! librdkafka reconnects by itself, with a back-off from 100 ms to 2 seconds. Publishes wait
//! meanwhile, at most for `delivery_timeout`. Subscriptions continue by themselves; connection
//! errors are logged and not reported by their streams.
//!
//! A client that librdkafka has given up is made anew, a producer at the next publish, a consumer
//! with pauses of 1 to 30 seconds. So is a producer or a consumer that is silent: for two looks in
//! a row, 5 seconds apart, nothing came, and another client reaches a broker or receives messages
//! that this one does not. Messages that wait in such a producer fail; those that were never sent
//! fail as not sent. The stream reports each consumer with an error and their `count`. Deliveries
//! in hand of a group are then redelivered; a reader goes on where it was. Commits that the broker
//! refuses are reported once, until one succeeds.
//!
//! A last commit that is not stored is an error of `close`. So are acknowledgements whose partition
//! was lost before they were committed, unless the position of the group has passed them by then:
//! this member handled the redelivered messages, or another one did.
//!
//! ## Bounds
//! | in memory | bound |
//! |---|---|
//! | messages waiting in the producer | twice `max_in_flight` |
//! | messages fetched ahead, of each assigned partition | 16 MiB divided by the partitions of the topic, but at least 1 MiB (librdkafka's property `queued.max.messages.kbytes`), and one fetch (`fetch.message.max.bytes`, 1 MiB) |
//! | deliveries handed out and unsettled | the prefetch, and [what waits](crate::Subscription::waiting) |
//! | progress beyond the position | 4,000 bytes of metadata for each partition |
//! | shared buffers | payloads and keys of up to 4 KiB share buffers of 32 KiB; keeping one of them keeps its buffer |
//!
//! While the prefetch is used up, the messages that were fetched ahead wait in the client, which
//! fetches no more when its bound is reached, and stays a member of its group. Nothing is fetched
//! twice.
//!
//! No partition holds up the others. Each may take up its equal share of the prefetch. Beyond that,
//! a partition takes what is free, but leaves a quarter of the prefetch to those below theirs, as
//! soon as messages of another partition were settled. With a prefetch of 1, a message that is not
//! settled holds up all.
//!
//! ## Compression
//! Messages in every codec of Kafka are read: gzip, snappy, lz4 and zstd. The property
//! `compression.type` has them written in one of these.
//!
//! # Headers
//! | here | in Kafka |
//! |---|---|
//! | name | text |
//! | value | any bytes |
//! | order and repeated names | kept |
//! | id of the message | header [`MESSAGE_ID`](crate::names::header::MESSAGE_ID) |
//! | message without payload | a tombstone, which differs from an empty payload |
//!
//! ## Unusual names and values
//! A name with a NUL byte is refused when publishing. In a received message, headers whose names
//! are not UTF-8 or contain a NUL byte are left out and counted. More than 100,000 headers count as
//! one unreadable header, and none of them is read. A null value is read as an empty one; a NUL
//! byte in the name of such a header truncates it unnoticed.
//!
//! # Escape hatch
//! [`Kafka::from_client`] starts from a client configuration of rdkafka. [`Kafka::as_client`]
//! returns the one in use, from which further clients can be created. Properties that the semantics
//! above depend on are refused.
//!
//! # Permissions and settings at the server
//! | operation | ACL |
//! |---|---|
//! | connect, ping | none; metadata of `__consumer_offsets` is requested, and any answer is enough |
//! | declare a topic | `Describe` on the topic |
//! | create a missing topic (`topology=create`) | `Create` on the topic or the cluster |
//! | publish | `Write` on the topic; before Kafka 2.8 also `IdempotentWrite` on the cluster |
//! | subscribe as a group, or move a group | `Read` on the topic and on the group |
//! | subscribe without a group | `Read` on the topic, `Describe` on the group `reader_group` |
//!
//! `Read` and `Write` include `Describe`. Topics are never created by a publish, so the broker's
//! `auto.create.topics.enable` is not needed.
//!
//! | setting at the broker | value |
//! |---|---|
//! | `offset.metadata.max.bytes` | 4096, the default; with less, more is redelivered after a crash |
//! | `message.max.bytes` of broker or topic | at least the property `message.max.bytes` here, 1,000,000 unless set |
//! | bounds of the session timeout (`classic`) | have to include 20 seconds, or the value of the property `session.timeout.ms` if it is set |
//! | session timeout and heartbeat interval (`consumer`) | configured at the broker |
//! | replicas | needed to survive a power failure |

mod choices;
mod config;
mod connection;
mod consume;
mod described;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod headers;
mod publish;
mod shared;
mod tls;
mod topology;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::driver::capability::Capabilities;
use crate::driver::{BrokerUrl, Confirmer, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Start, Subscription, Topic};

pub use choices::{GroupProtocol, OffsetReset};
pub use config::KafkaBuilder;

use connection::log::Trouble;
use publish::Publisher;
use shared::Shared;

/// The default port of a broker.
pub const DEFAULT_PORT: u16 = 9092;

/// A connection to Kafka; see the [module](self).
///
/// ```rust,no_run
/// # async fn example() -> traced_broker::Result<()> {
/// use traced_broker::{BrokerUrl, Traced, adapters::kafka::Kafka};
///
/// let url = BrokerUrl::parse("kafka://k1.example:9092,k2.example:9092?partitions=12")?;
/// let broker = Traced::new(Kafka::connect(&url).await?);
/// # Ok(()) }
/// ```
///
/// An unknown or invalid option is refused before a connection is attempted:
///
/// ```rust
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::{BrokerUrl, ErrorKind, adapters::kafka::Kafka};
///
/// let url = BrokerUrl::parse("kafka://localhost?group_protocol=eager")?;
/// let error = Kafka::connect(&url).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Kafka {
    shared: Arc<Shared>,
    identity: Identity,
    capabilities: Capabilities,
}

impl Kafka {
    /// Connects to the cluster that the URL names.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an unknown or invalid option or a path, and those of
    /// [`KafkaBuilder::connect`].
    pub async fn connect(url: &BrokerUrl) -> Result<Self> {
        KafkaBuilder::from_url(url)?.connect().await
    }

    /// Creates settings to connect with. `bootstrap_servers` is `host:port`, or several of them
    /// separated by commas.
    pub fn builder(bootstrap_servers: impl Into<String>) -> KafkaBuilder {
        KafkaBuilder::new(bootstrap_servers)
    }

    /// Creates settings from a client configuration of rdkafka, which needs `bootstrap.servers`.
    ///
    /// ```rust
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use traced_broker::{ErrorKind, adapters::kafka::Kafka};
    ///
    /// let mut configuration = rdkafka::ClientConfig::new();
    /// configuration.set("compression.type", "gzip");
    /// let error = Kafka::from_client(configuration).connect().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig, "bootstrap.servers is missing");
    /// # }
    /// ```
    pub fn from_client(configuration: ClientConfig) -> KafkaBuilder {
        KafkaBuilder::from_client(configuration)
    }

    /// Returns the client configuration of this connection, from which further clients of rdkafka
    /// can be created. It contains the credentials.
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
            destination: OnceLock::new(),
            subscriptions: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let asked = Arc::clone(&shared);
        let answer =
            blocking(move || asked.publisher.ask(|client| topology::ping(client, asked.settings.connect_timeout)))
                .await;
        answer.map_err(|error| trouble.explain(error, &shared.settings))?;
        if let Ok(destination) = shared.publisher.ask(|client| Ok(topology::destination(client))) {
            shared.destination.get_or_init(|| destination);
        }
        Ok(Self {
            identity: described::identity(&shared.settings),
            capabilities: described::capabilities(&shared.settings),
            shared,
        })
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
        blocking(move || {
            shared.publisher.ask(|client| topology::ensure(client, &shared.settings, &topic))?;
            Ok(shared.destination())
        })
        .await
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        self.shared.publisher.publish(topic, &message, confirmer);
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        self.check_open()?;
        let (shared, subscription) = (Arc::clone(&self.shared), subscription.clone());
        blocking(move || {
            shared.check_instance(&subscription)?;
            let destination = shared.destination();
            let open = |client: &_| consume::open(client, &shared.settings, &subscription, destination);
            let (source, control) = shared.publisher.ask(open)?;
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
            shared.publisher.ask(|client| consume::reposition(client, &shared.settings, &subscription, start))
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        self.check_open()?;
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.publisher.ask(|client| topology::ping(client, shared.settings.connect_timeout))).await
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
        // A thread that ended without an answer panicked in a callback.
        let ended = ended.into_iter().try_for_each(|end| end.unwrap_or_else(|_| Err(vanished())));
        flushed.and(ended)
    }
}

/// Runs blocking work on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|_| Err(vanished()))
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the connection is closed")
}

fn vanished() -> Error {
    Error::new(ErrorKind::Unexpected, "a thread of the kafka adapter ended without an answer")
}
