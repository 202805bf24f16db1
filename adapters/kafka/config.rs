//! Settings of a connection to Kafka, from a URL, a builder, or a client configuration.

use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;

use super::choices::{GroupProtocol, OffsetReset};
use super::tls;
use crate::adapters::kafka::{DEFAULT_PORT, Kafka};
use crate::driver::{BrokerUrl, Identity, Plaintext, Secret, Tls, Topology, UrlOptions};
use crate::error::{Error, ErrorKind, Result};

const BOOTSTRAP: &str = "bootstrap.servers";
pub(super) const GROUP_PROTOCOL: &str = "group.protocol";
pub(super) const ASSIGNOR: &str = "partition.assignment.strategy";
pub(super) const INSTANCE_ID: &str = "group.instance.id";

/// The group name under which readers without a group fetch. They neither join it nor commit to it.
const READERS: &str = "traced-broker-reader";

/// The properties that the delivery semantics depend on. Only the adapter sets them.
const RESERVED: [&str; 17] = [
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    BOOTSTRAP,
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    // Would pass for an error of the subscription.
    "enable.partition.eof",
    "group.id",
    "message.timeout.ms",
    "queue.buffering.max.messages",
    "request.required.acks",
    // Nobody reads them; they would be lines of 20 kB in the log.
    "statistics.interval.ms",
    // The producer would refuse every message outside of a transaction.
    "transactional.id",
];

/// Settings of a connection, to [`connect`](Self::connect) with. Setters never fail; connecting
/// checks everything.
///
/// ```rust,no_run
/// # async fn example() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::{Secret, Tls, Traced, adapters::kafka::Kafka};
///
/// let kafka = Kafka::builder("k1.example:9092,k2.example:9092")
///     .tls(Tls::new().authorities_file("/etc/kafka/ca.pem"))
///     .credentials("app", Secret::new("s3cret"))
///     .partitions(12)
///     .delivery_timeout(Duration::from_secs(10))
///     .property("compression.type", "gzip")
///     .connect()
///     .await?;
/// let broker = Traced::new(kafka);
/// # Ok(()) }
/// ```
///
/// A property that the adapter sets itself is refused before a connection is attempted:
///
/// ```rust
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use traced_broker::{ErrorKind, adapters::kafka::Kafka};
///
/// let builder = Kafka::builder("localhost:9092").property("acks", "1");
/// let error = builder.connect().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct KafkaBuilder {
    pub(super) client: ClientConfig,
    pub(super) topology: Topology,
    pub(super) partitions: i32,
    pub(super) replication: i32,
    pub(super) connect_timeout: Duration,
    pub(super) delivery_timeout: Duration,
    pub(super) commit_interval: Duration,
    pub(super) revoke_patience: Duration,
    pub(super) max_in_flight: usize,
    pub(super) offset_reset: OffsetReset,
    pub(super) reader_group: String,
    tls: Option<Tls>,
    plaintext: Plaintext,
    /// The first property that may not be set, reported when connecting.
    refused: Option<String>,
}

impl KafkaBuilder {
    pub(super) fn new(bootstrap_servers: impl Into<String>) -> Self {
        let mut client = ClientConfig::new();
        client.set(BOOTSTRAP, bootstrap_servers);
        Self {
            client,
            topology: Topology::default(),
            partitions: 6,
            replication: -1,
            connect_timeout: Duration::from_secs(10),
            delivery_timeout: Duration::from_secs(30),
            commit_interval: Duration::from_secs(1),
            revoke_patience: Duration::from_secs(5),
            max_in_flight: Identity::DEFAULT_MAX_IN_FLIGHT,
            offset_reset: OffsetReset::default(),
            reader_group: READERS.to_owned(),
            tls: None,
            plaintext: Plaintext::default(),
            refused: None,
        }
    }

    pub(super) fn from_url(url: &BrokerUrl) -> Result<Self> {
        if !url.path().is_empty() {
            return Err(invalid("a kafka URL has no path; topics are named when publishing and subscribing"));
        }
        let hosts = url.hosts(DEFAULT_PORT);
        let mut builder = Self::new(hosts.iter().map(host_and_port).collect::<Vec<_>>().join(","));
        if let Some(username) = url.username() {
            builder = builder.credentials(username, url.password().cloned().unwrap_or_else(|| Secret::new("")));
        }
        let mut options = url.options();
        builder.tls = Tls::of_scheme(url.scheme() == "kafkas", &mut options)?;
        if let Some(permission) = options.take("plaintext")? {
            builder = builder.plaintext(permission);
        }
        if let Some(topology) = options.take("topology")? {
            builder = builder.topology(topology);
        }
        if let Some(partitions) = options.take("partitions")? {
            builder = builder.partitions(partitions);
        }
        if let Some(replication) = options.take("replication")? {
            builder = builder.replication(replication);
        }
        if let Some(milliseconds) = options.take("connect_timeout")? {
            builder = builder.connect_timeout(Duration::from_millis(milliseconds));
        }
        if let Some(milliseconds) = options.take("delivery_timeout")? {
            builder = builder.delivery_timeout(Duration::from_millis(milliseconds));
        }
        if let Some(publishes) = options.take("max_in_flight")? {
            builder = builder.max_in_flight(publishes);
        }
        if let Some(milliseconds) = options.take::<u32>("linger")? {
            builder = builder.property("linger.ms", milliseconds.to_string());
        }
        if let Some(mechanism) = options.take::<String>("mechanism")? {
            builder = builder.property("sasl.mechanism", mechanism);
        }
        if let Some(name) = options.take::<String>("client_id")? {
            builder = builder.property("client.id", name);
        }
        builder = builder.with_groups(&mut options)?;
        options.finish()?;
        Ok(builder)
    }

    /// Takes the options of groups and readers.
    fn with_groups(self, options: &mut UrlOptions) -> Result<Self> {
        let mut builder = self;
        if let Some(milliseconds) = options.take("commit_interval")? {
            builder = builder.commit_interval(Duration::from_millis(milliseconds));
        }
        if let Some(milliseconds) = options.take("revoke_patience")? {
            builder = builder.revoke_patience(Duration::from_millis(milliseconds));
        }
        if let Some(protocol) = options.take::<GroupProtocol>("group_protocol")? {
            builder = builder.group_protocol(protocol);
        }
        if let Some(assignor) = options.take::<String>("assignor")? {
            builder = builder.assignor(assignor);
        }
        if let Some(policy) = options.take("offset_reset")? {
            builder = builder.offset_reset(policy);
        }
        if let Some(name) = options.take::<String>("reader_group")? {
            builder = builder.reader_group(name);
        }
        Ok(builder)
    }

    pub(super) fn from_client(client: ClientConfig) -> Self {
        let set = |name: &&&str| **name != BOOTSTRAP && client.get(name).is_some();
        let refused = RESERVED.iter().find(set).map(|name| (*name).to_owned());
        Self { client, refused, ..Self::new("") }
    }

    /// Sets user and password for SASL. The mechanism is `PLAIN` unless the
    /// [property](Self::property) `sasl.mechanism` says otherwise.
    pub fn credentials(mut self, username: impl Into<String>, password: Secret) -> Self {
        self.client.set("sasl.username", username).set("sasl.password", password.expose());
        self
    }

    /// Encrypts the connections, as the scheme `kafkas://` does. Needs the cargo feature `kafka-tls`.
    /// Default: not encrypted.
    ///
    /// Connecting refuses [`Tls::server_name`]: librdkafka checks the name of each host that it
    /// connects to. [`Tls::identity_pem`] puts the key into [`Kafka::as_client`], whose `Debug`
    /// prints it.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets whether user and password may be sent to other machines without TLS. Default
    /// [`Plaintext::Refused`].
    pub fn plaintext(mut self, permission: Plaintext) -> Self {
        self.plaintext = permission;
        self
    }

    /// Sets whether missing topics are created. Default: create.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Sets the number of partitions of a topic that is created, or -1 for the broker's own
    /// default. Default 6: up to six members of a group can share the topic. An existing topic
    /// keeps its partitions.
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Sets the number of replicas of a topic that is created, or -1 for the broker's own default.
    /// Default -1.
    pub fn replication(mut self, replicas: i32) -> Self {
        self.replication = replicas;
        self
    }

    /// Sets the maximum duration of connecting, subscribing, creating a topic, a ping and closing.
    /// Default 10 seconds.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Sets the maximum time that a publish waits for its confirmation, including retries across
    /// reconnections. Default 30 seconds.
    pub fn delivery_timeout(mut self, limit: Duration) -> Self {
        self.delivery_timeout = limit;
        self
    }

    /// Sets the interval at which acknowledgements are sent to the broker while a subscription
    /// runs. Messages acknowledged within that time before a crash are redelivered. Default 1
    /// second.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.commit_interval = interval;
        self
    }

    /// Sets the maximum time that partitions which move to another member wait until the deliveries
    /// in hand are settled. Default 5 seconds. Handlers that take no longer than that handle no
    /// message twice when members join and leave; deliveries that are unsettled after it are
    /// redelivered to the other member.
    ///
    /// The member fetches nothing meanwhile, and the other member waits as well. 0 waits for none.
    /// Connecting refuses more than half of librdkafka's property `max.poll.interval.ms`, after
    /// which the group expels the member; that is 300 seconds unless set.
    pub fn revoke_patience(mut self, limit: Duration) -> Self {
        self.revoke_patience = limit;
        self
    }

    /// Sets the protocol that assigns partitions to the members of a group. Default
    /// [`GroupProtocol::Classic`].
    pub fn group_protocol(mut self, protocol: GroupProtocol) -> Self {
        self.client.set(GROUP_PROTOCOL, protocol.as_str());
        self
    }

    /// Sets the assignors that this member can use, separated by commas: `cooperative-sticky`,
    /// `range` or `roundrobin`. Default `cooperative-sticky`, which members of other clients have
    /// only if it is set there, too. Brokers that assign ([`GroupProtocol::Consumer`]) need none.
    ///
    /// All members of a group must have one in common, and cooperative ones do not mix with the
    /// others. To join a group of Java's or librdkafka's defaults, set `range`.
    pub fn assignor(mut self, assignors: impl Into<String>) -> Self {
        self.client.set(ASSIGNOR, assignors);
        self
    }

    /// Sets the place at which a group goes on whose position is gone. Default
    /// [`OffsetReset::Earliest`].
    pub fn offset_reset(mut self, policy: OffsetReset) -> Self {
        self.offset_reset = policy;
        self
    }

    /// Sets the name of the group that readers without a group give in their requests. Default
    /// `traced-broker-reader`. Where ACLs are used, it needs `Describe`.
    pub fn reader_group(mut self, name: impl Into<String>) -> Self {
        self.reader_group = name.into();
        self
    }

    /// Sets the maximum number of unconfirmed publishes. Default 1024.
    pub fn max_in_flight(mut self, publishes: usize) -> Self {
        self.max_in_flight = publishes;
        self
    }

    /// Sets a configuration property of librdkafka, for the producer, consumers and topic creation
    /// alike, for example `compression.type` or `security.protocol`. Connecting refuses properties
    /// that the delivery semantics depend on.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        if RESERVED.contains(&name.as_str()) {
            self.refused.get_or_insert(name);
        } else {
            self.client.set(name, value);
        }
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a value out of range, and for a property that librdkafka
    /// does not know or that may not be set, for a file that cannot be used, and for a password to
    /// another machine without TLS; [`ErrorKind::FeatureDisabled`] for TLS and SCRAM without the
    /// cargo feature `kafka-tls`; [`ErrorKind::Unavailable`] if no broker answers in time;
    /// [`ErrorKind::Unauthenticated`] for wrong credentials, and if one side does not accept the
    /// certificate of the other.
    pub async fn connect(self) -> Result<Kafka> {
        Kafka::open(self.checked()?).await
    }

    fn checked(mut self) -> Result<Self> {
        if let Some(name) = self.refused {
            return Err(
                invalid("this property of the kafka client is set by the adapter").with_context("property", name)
            );
        }
        if self.client.get(BOOTSTRAP).is_none_or(str::is_empty) {
            return Err(invalid("no server to connect to is given").with_context("property", BOOTSTRAP));
        }
        self.check_protocol()?;
        if self.reader_group.is_empty() {
            return Err(invalid("reader_group is empty"));
        }
        if self.partitions != -1 && !(1..=100_000).contains(&self.partitions) {
            return Err(
                invalid("partitions is outside 1 to 100000, and not -1").with_context("partitions", self.partitions)
            );
        }
        if self.replication != -1 && !(1..=i32::from(i16::MAX)).contains(&self.replication) {
            return Err(
                invalid("replication is outside 1 to 32767, and not -1").with_context("replication", self.replication)
            );
        }
        if !(1..=MAX_IN_FLIGHT).contains(&self.max_in_flight) {
            return Err(
                invalid("max_in_flight is outside 1 to 1000000").with_context("max_in_flight", self.max_in_flight)
            );
        }
        for (name, limit) in [
            ("connect_timeout", self.connect_timeout),
            ("delivery_timeout", self.delivery_timeout),
            ("commit_interval", self.commit_interval),
        ] {
            if !(1..=MAX_MILLISECONDS).contains(&limit.as_millis()) {
                return Err(invalid("a time is outside 1 ms to 24 hours").with_context("option", name));
            }
        }
        let poll = self.client.get("max.poll.interval.ms").and_then(|limit| limit.parse().ok()).unwrap_or(300_000);
        if self.revoke_patience > Duration::from_millis(poll) / 2 {
            return Err(invalid("revoke_patience is more than half of the property max.poll.interval.ms")
                .with_context("max.poll.interval.ms", poll));
        }
        tls::secure(&mut self.client, self.tls.as_ref())?;
        if tls::reveals_password(&self.client) {
            self.plaintext.check(&self.hosts())?;
        }
        Ok(self)
    }

    /// Refuses what the broker decides if it assigns the partitions.
    fn check_protocol(&self) -> Result<()> {
        let mut decided = [ASSIGNOR, "session.timeout.ms", "heartbeat.interval.ms"].into_iter();
        match decided.find(|name| self.assigned_by_broker() && self.client.get(name).is_some()) {
            None => Ok(()),
            Some(name) => {
                let message = "with group_protocol=consumer the broker decides this; the property \
                               group.remote.assignor (uniform, range) asks it for an assignor";
                Err(invalid(message).with_context("property", name))
            }
        }
    }

    /// Returns the configuration that producer, consumers and administration share.
    pub(super) fn shared_client(&self) -> ClientConfig {
        let mut client = self.client.clone();
        // Applies to members of groups only.
        client.remove(GROUP_PROTOCOL);
        default(&mut client, "client.id", "traced-broker");
        default(&mut client, "reconnect.backoff.ms", "100");
        default(&mut client, "reconnect.backoff.max.ms", "2000");
        // By default, librdkafka logs an error when an idle connection breaks.
        default(&mut client, "log.connection.close", "false");
        client
    }

    /// Returns `true` if groups use the protocol in which the broker assigns the partitions.
    pub(super) fn assigned_by_broker(&self) -> bool {
        self.client.get(GROUP_PROTOCOL) == Some(GroupProtocol::Consumer.as_str())
    }

    /// Returns the servers through which the cluster is found, `host:port,…`.
    pub(super) fn servers(&self) -> &str {
        self.client.get(BOOTSTRAP).unwrap_or_default()
    }

    /// Returns the hosts among the servers. What is not understood is a host, too.
    fn hosts(&self) -> Vec<(String, u16)> {
        let hosts = |server: &str| {
            let url = BrokerUrl::parse(&format!("kafka://{}", server.trim()));
            url.map_or_else(|_| vec![(server.to_owned(), DEFAULT_PORT)], |url| url.hosts(DEFAULT_PORT))
        };
        self.servers().split(',').flat_map(hosts).collect()
    }

    /// Returns the largest message that the producer accepts, in bytes.
    pub(super) fn max_message(&self) -> usize {
        self.client.get("message.max.bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(DEFAULT_MAX_MESSAGE)
    }
}

/// Maximum of `max_in_flight`: librdkafka counts up to ten million messages, and its queue may hold
/// twice `max_in_flight`.
const MAX_IN_FLIGHT: usize = 1_000_000;

/// The default of librdkafka's `message.max.bytes`.
const DEFAULT_MAX_MESSAGE: usize = 1_000_000;

const MAX_MILLISECONDS: u128 = 24 * 60 * 60 * 1000;

/// Sets a property unless it is set already.
pub(super) fn default(client: &mut ClientConfig, name: &str, value: impl Into<String>) {
    if client.get(name).is_none() {
        client.set(name, value);
    }
}

/// Formats `host:port`, with the brackets of an IPv6 address.
fn host_and_port((host, port): &(String, u16)) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

impl fmt::Debug for KafkaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Properties may be secrets: only their names are shown.
        f.debug_struct("KafkaBuilder")
            .field("servers", &self.servers())
            .field("properties", &self.client.config_map().keys())
            .field("topology", &self.topology)
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .finish_non_exhaustive()
    }
}
