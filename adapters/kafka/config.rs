//! What a connection to Kafka is made with: from a URL, from a builder, or from a client configuration.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rdkafka::ClientConfig;

use super::{DEFAULT_PORT, Kafka};
use crate::broker_url::{BrokerUrl, Secret, Topology};
use crate::driver::DEFAULT_MAX_IN_FLIGHT;
use crate::error::{Error, ErrorKind, Result};

const BOOTSTRAP: &str = "bootstrap.servers";
pub(super) const GROUP_PROTOCOL: &str = "group.protocol";

/// What the delivery semantics rest on: set by the adapter, not by users.
const RESERVED: [&str; 14] = [
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
    "group.id",
    "message.timeout.ms",
    "queue.buffering.max.messages",
    "request.required.acks",
];

/// Settings of a connection, to [`connect`](Self::connect) with. Setters never fail; connecting checks everything.
///
/// ```no_run
/// # async fn example() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::{Secret, Traced, adapters::kafka::Kafka};
///
/// let kafka = Kafka::builder("k1.example:9092,k2.example:9092")
///     .credentials("app", Secret::new("s3cret"))
///     .partitions(12)
///     .delivery_timeout(Duration::from_secs(10))
///     .property("compression.type", "gzip")
///     .connect()
///     .await?;
/// let broker = Traced::new(kafka);
/// # Ok(()) }
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
    pub(super) max_in_flight: usize,
    /// The first property that may not be set, reported when connecting.
    refused: Option<String>,
}

/// Who assigns partitions to the members of a group. All members of a group must use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// A member does, cooperatively: members that stay keep their partitions. Understood by every broker.
    #[default]
    Classic,
    /// The broker does (KIP-848): partitions move one by one, without halting the group. Needs Kafka 4.0 or later; how long a member may be
    /// silent and how often it reports is then configured at the broker.
    Consumer,
}

impl GroupProtocol {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }
}

impl FromStr for GroupProtocol {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "classic" => Ok(Self::Classic),
            "consumer" => Ok(Self::Consumer),
            _ => Err("it is `classic` or `consumer`"),
        }
    }
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
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
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
        if let Some(milliseconds) = options.take("commit_interval")? {
            builder = builder.commit_interval(Duration::from_millis(milliseconds));
        }
        if let Some(publishes) = options.take("max_in_flight")? {
            builder = builder.max_in_flight(publishes);
        }
        if let Some(milliseconds) = options.take::<u32>("linger")? {
            builder = builder.property("linger.ms", milliseconds.to_string());
        }
        if let Some(protocol) = options.take::<GroupProtocol>("group_protocol")? {
            builder = builder.group_protocol(protocol);
        }
        if let Some(mechanism) = options.take::<String>("mechanism")? {
            builder = builder.property("sasl.mechanism", mechanism);
        }
        if let Some(name) = options.take::<String>("client_id")? {
            builder = builder.property("client.id", name);
        }
        options.finish()?;
        Ok(builder)
    }

    pub(super) fn from_client(client: ClientConfig) -> Self {
        let set = |name: &&&str| **name != BOOTSTRAP && client.get(name).is_some();
        let refused = RESERVED.iter().find(set).map(|name| (*name).to_owned());
        Self { client, refused, ..Self::new("") }
    }

    /// User and password for SASL. Unless [properties](Self::property) say otherwise the mechanism is `PLAIN` and the connection is
    /// not encrypted, as the scheme `kafka://` says.
    pub fn credentials(mut self, username: impl Into<String>, password: Secret) -> Self {
        self.client.set("sasl.username", username).set("sasl.password", password.expose());
        self
    }

    /// Whether to create missing topics. Default: create.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// How many partitions a topic is created with, or -1 for the broker's own default. Default 6: so many members of a group
    /// can share it. An existing topic keeps what it has.
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// How many replicas a topic is created with, or -1 for the broker's own default, which is the default.
    pub fn replication(mut self, replicas: i32) -> Self {
        self.replication = replicas;
        self
    }

    /// How long connecting, subscribing, creating a topic, a ping and closing may take. Default 10 seconds.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long a publish may wait for its confirmation, retries across reconnections included. Default 30 seconds.
    pub fn delivery_timeout(mut self, limit: Duration) -> Self {
        self.delivery_timeout = limit;
        self
    }

    /// How often acknowledgements are brought to the broker while a subscription runs; what was acknowledged within that time before a
    /// crash comes again. Default 1 second.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.commit_interval = interval;
        self
    }

    /// Who assigns partitions to the members of a group. Default [`GroupProtocol::Classic`].
    pub fn group_protocol(mut self, protocol: GroupProtocol) -> Self {
        self.client.set(GROUP_PROTOCOL, protocol.as_str());
        self
    }

    /// How many publishes may be unconfirmed at a time. Default 1024.
    pub fn max_in_flight(mut self, publishes: usize) -> Self {
        self.max_in_flight = publishes;
        self
    }

    /// Sets a configuration property of librdkafka, for producer, consumers and topic creation alike, such as
    /// `compression.type` or `security.protocol`. Those that the delivery semantics rest on are refused when connecting.
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
    /// [`ErrorKind::InvalidConfig`] for a value out of range or a property that librdkafka does not know or that may not be
    /// set; [`ErrorKind::Unavailable`] when no broker answers in time; [`ErrorKind::Unauthenticated`] for wrong credentials.
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
        if self.client.get("sasl.username").is_some() {
            default(&mut self.client, "security.protocol", "sasl_plaintext");
            if self.client.get("sasl.mechanisms").is_none() {
                default(&mut self.client, "sasl.mechanism", "PLAIN");
            }
        }
        Ok(self)
    }

    /// The configuration that producer, consumers and administration share.
    pub(super) fn shared_client(&self) -> ClientConfig {
        let mut client = self.client.clone();
        // The business of members of groups only.
        client.remove(GROUP_PROTOCOL);
        default(&mut client, "client.id", "traced-broker");
        default(&mut client, "reconnect.backoff.ms", "100");
        default(&mut client, "reconnect.backoff.max.ms", "2000");
        // With the default, a connection that breaks while nothing is asked of it is an error in the log.
        default(&mut client, "log.connection.close", "false");
        client
    }

    /// Whether groups are to use the protocol in which the broker assigns the partitions.
    pub(super) fn assigned_by_broker(&self) -> bool {
        self.client.get(GROUP_PROTOCOL) == Some(GroupProtocol::Consumer.as_str())
    }

    /// The servers to find the cluster through, `host:port,…`.
    pub(super) fn servers(&self) -> &str {
        self.client.get(BOOTSTRAP).unwrap_or_default()
    }

    /// The largest message that the producer takes, in bytes.
    pub(super) fn max_message(&self) -> usize {
        self.client.get("message.max.bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(DEFAULT_MAX_MESSAGE)
    }
}

/// The most publishes that may be unconfirmed: librdkafka counts up to ten million, and twice as many may be in its queue.
const MAX_IN_FLIGHT: usize = 1_000_000;

/// librdkafka's `message.max.bytes`.
const DEFAULT_MAX_MESSAGE: usize = 1_000_000;

const MAX_MILLISECONDS: u128 = 24 * 60 * 60 * 1000;

/// Sets a property that is not set.
pub(super) fn default(client: &mut ClientConfig, name: &str, value: impl Into<String>) {
    if client.get(name).is_none() {
        client.set(name, value);
    }
}

/// `host:port`, with the brackets of an IPv6 address.
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
