//! Options of a connection, from the URL and from the builder.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Amqp;
use super::wire::socket::Handshake;
use crate::driver::{BrokerUrl, Identity, Plaintext, Secret, Tls, Topology};
use crate::error::{Error, ErrorKind, Result};

/// The schemes, and the default ports of RabbitMQ.
const SCHEME: (&str, u16) = ("amqp", 5672);
const TLS_SCHEME: (&str, u16) = ("amqps", 5671);
/// The default user, and its password, which is no secret.
const GUEST: &str = "guest";
/// The largest message that RabbitMQ 4 accepts by default, its `max_message_size`.
pub(super) const DEFAULT_MAX_PAYLOAD: usize = 16 * 1024 * 1024;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(10);
const DEFAULT_DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_NAME: &str = "traced-broker";
/// The server's own default.
const DEFAULT_CONSUMER_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// The shortest time that leaves room for a look at the deliveries before it is up.
const SHORTEST_CONSUMER_TIMEOUT: Duration = Duration::from_secs(1);

/// The treatment of a message that no queue takes, because the topic has no subscriber.
///
/// RabbitMQ has queues, not logs: a message goes to the queues that exist when it is published, and
/// a topic without subscribers keeps no message. By default such a publish is confirmed, as on the
/// other brokers, which keep the message: an event without subscribers is not a failure of its
/// sender. [`Receipt::unroutable`](crate::Receipt) tells it, a counter counts it, and a warning
/// names each such topic once. If messages must not be lost, create the group first, or reject
/// them.
///
/// A topic that has lost its queues is no topic without subscribers. As long as a subscription of
/// the same connection reads it, and for 15 seconds after a publish has shown that its exchange was
/// deleted, a message that no queue takes is [`ErrorKind::Unavailable`], certainly not sent. With
/// `topology=check` only the latter holds, since bindings are not made here.
///
/// ```rust
/// use traced_broker::{ErrorKind, adapters::amqp::Unroutable};
///
/// assert_eq!("reject".parse::<Unroutable>().unwrap(), Unroutable::Reject);
/// let error = "keep".parse::<Unroutable>().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unroutable {
    /// The broker confirms the message and drops it, the usual meaning of publish and subscribe:
    /// the URL option `unroutable=drop`.
    #[default]
    Drop,
    /// The publish fails with [`ErrorKind::Rejected`], certainly not sent: the URL option
    /// `unroutable=reject`.
    Reject,
}

impl FromStr for Unroutable {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "drop" => Ok(Self::Drop),
            "reject" => Ok(Self::Reject),
            _ => Err(Error::new(ErrorKind::InvalidConfig, "the option unroutable is drop or reject")),
        }
    }
}

/// The routing key of published messages.
///
/// ```rust
/// use traced_broker::{ErrorKind, adapters::amqp::RoutingKey};
///
/// assert_eq!("key".parse::<RoutingKey>().unwrap(), RoutingKey::Key);
/// let error = "topic".parse::<RoutingKey>().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RoutingKey {
    /// An empty routing key; the message's key travels in a header: the URL option
    /// `routing_key=none`.
    #[default]
    None,
    /// The message's key, so that other programs can bind queues by it: the URL option
    /// `routing_key=key`.
    Key,
}

impl FromStr for RoutingKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "key" => Ok(Self::Key),
            _ => Err(Error::new(ErrorKind::InvalidConfig, "the option routing_key is none or key")),
        }
    }
}

/// The dead letters that the group `parked` of a dead-letter topic keeps.
///
/// ```rust
/// use traced_broker::{ErrorKind, adapters::amqp::Parked};
///
/// assert_eq!("unread".parse::<Parked>().unwrap(), Parked::Unread);
/// let error = "none".parse::<Parked>().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Parked {
    /// All of them, also those that other groups handle, until it is read: the URL option
    /// `parked=all`.
    #[default]
    All,
    /// Those that no other queue takes, because the topic has no other group or reader at that
    /// time: the URL option `parked=unread`. All programs that write dead letters of a topic, or
    /// read its group `parked`, need the same value, because one with `all` binds the queue to all
    /// letters again.
    Unread,
}

impl FromStr for Parked {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Self::All),
            "unread" => Ok(Self::Unread),
            _ => Err(Error::new(ErrorKind::InvalidConfig, "the option parked is all or unread")),
        }
    }
}

/// The settings of a connection.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) hosts: Vec<(String, u16)>,
    tls: Option<Tls>,
    plaintext: Plaintext,
    /// Made of `tls` by [`check`](Self::check).
    pub(super) handshake: Handshake,
    pub(super) username: String,
    pub(super) password: Secret,
    pub(super) virtual_host: String,
    pub(super) name: String,
    pub(super) topology: Topology,
    pub(super) unroutable: Unroutable,
    pub(super) parked: Parked,
    pub(super) routing_key: RoutingKey,
    /// The binding keys of readers without a group, separated by commas.
    pub(super) binding_key: Option<String>,
    pub(super) connect_timeout: Duration,
    pub(super) delivery_timeout: Duration,
    pub(super) heartbeat: Duration,
    pub(super) max_in_flight: usize,
    pub(super) max_payload: usize,
    /// Zero if the server has none.
    pub(super) consumer_timeout: Duration,
    pub(super) delivery_limit: Option<u32>,
}

impl Settings {
    /// Reads a URL. The settings are to be [checked](Self::check).
    pub(super) fn from_url(url: &BrokerUrl) -> Result<Self> {
        let Some((scheme, port)) = [SCHEME, TLS_SCHEME].into_iter().find(|(scheme, _)| *scheme == url.scheme()) else {
            let message = "the URL of a RabbitMQ server begins with amqp:// or, with TLS, amqps://";
            return Err(Error::new(ErrorKind::InvalidConfig, message).with_context("scheme", url.scheme()));
        };
        let mut options = url.options();
        let settings = Self {
            hosts: url.hosts(port),
            tls: Tls::of_scheme(scheme == TLS_SCHEME.0, &mut options)?,
            plaintext: options.take("plaintext")?.unwrap_or_default(),
            handshake: Handshake::default(),
            username: url.username().unwrap_or(GUEST).to_owned(),
            password: url.password().cloned().unwrap_or_else(|| Secret::new(GUEST)),
            virtual_host: if url.path().is_empty() { "/" } else { url.path() }.to_owned(),
            name: options.take("name")?.unwrap_or_else(|| DEFAULT_NAME.to_owned()),
            topology: options.take("topology")?.unwrap_or_default(),
            unroutable: options.take("unroutable")?.unwrap_or_default(),
            parked: options.take("parked")?.unwrap_or_default(),
            routing_key: options.take("routing_key")?.unwrap_or_default(),
            binding_key: options.take("binding_key")?,
            connect_timeout: options.take("connect_timeout")?.map_or(DEFAULT_CONNECT_TIMEOUT, Duration::from_millis),
            delivery_timeout: options.take("delivery_timeout")?.map_or(DEFAULT_DELIVERY_TIMEOUT, Duration::from_millis),
            heartbeat: options.take("heartbeat")?.map_or(DEFAULT_HEARTBEAT, Duration::from_secs),
            max_in_flight: options.take("max_in_flight")?.unwrap_or(Identity::DEFAULT_MAX_IN_FLIGHT),
            max_payload: options.take("max_payload")?.unwrap_or(DEFAULT_MAX_PAYLOAD),
            consumer_timeout: options.take("consumer_timeout")?.map_or(DEFAULT_CONSUMER_TIMEOUT, Duration::from_millis),
            delivery_limit: options.take("delivery_limit")?,
        };
        options.finish()?;
        Ok(settings)
    }

    /// Checks the values, and reads the files for TLS.
    pub(super) fn check(mut self) -> Result<Self> {
        let invalid = |message: &'static str| Err(Error::new(ErrorKind::InvalidConfig, message));
        if self.connect_timeout.is_zero() {
            return invalid("connect_timeout is at least 1 millisecond");
        }
        if self.delivery_timeout.is_zero() {
            return invalid("delivery_timeout is at least 1 millisecond");
        }
        if !(1..=u64::from(u16::MAX)).contains(&self.heartbeat.as_secs()) {
            return invalid("heartbeat is 1 to 65535 seconds");
        }
        if self.max_in_flight == 0 {
            return invalid("max_in_flight is at least 1");
        }
        if !self.consumer_timeout.is_zero() && self.consumer_timeout < SHORTEST_CONSUMER_TIMEOUT {
            return invalid("consumer_timeout is 0, for none, or at least 1000 milliseconds");
        }
        if self.virtual_host.len() > 255 {
            return invalid("the name of the virtual host is longer than 255 bytes");
        }
        let is_secret = (self.username.as_str(), self.password.expose()) != (GUEST, GUEST);
        if self.tls.is_none() && is_secret {
            self.plaintext.check(&self.hosts)?;
        }
        self.handshake = Handshake::new(self.tls.as_ref())?;
        Ok(self)
    }
}

/// Settings of a connection, to [`connect`](Self::connect) with. Setters never fail; connecting
/// checks all values.
///
/// ```rust,no_run
/// # async fn example(password: String) -> traced_broker::Result<()> {
/// use traced_broker::adapters::amqp::{Amqp, Unroutable};
///
/// let amqp = Amqp::builder("amqps://rabbit-1,rabbit-2/shop")
///     .credentials("orders", password)
///     .unroutable(Unroutable::Reject)
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
///
/// An invalid value is refused before a connection is attempted:
///
/// ```rust
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::time::Duration;
/// use traced_broker::{ErrorKind, adapters::amqp::Amqp};
///
/// let builder = Amqp::builder("amqp://localhost").heartbeat(Duration::from_millis(500));
/// let error = builder.connect().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// # }
/// ```
#[must_use]
pub struct AmqpBuilder {
    url: String,
    changes: Vec<Change>,
}

type Change = Box<dyn FnOnce(&mut Settings) + Send>;

impl AmqpBuilder {
    pub(super) fn new(url: String) -> Self {
        Self { url, changes: Vec::new() }
    }

    fn with(mut self, change: impl FnOnce(&mut Settings) + Send + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Sets user name and password, in place of those in the URL.
    pub fn credentials(self, username: impl Into<String>, password: impl Into<String>) -> Self {
        let (username, password) = (username.into(), Secret::new(password));
        self.with(|settings| (settings.username, settings.password) = (username, password))
    }

    /// Connects with TLS, whatever the scheme of the URL, with these settings in place of those in
    /// the URL. The default port stays that of the scheme.
    pub fn tls(self, tls: Tls) -> Self {
        self.with(|settings| settings.tls = Some(tls))
    }

    /// Sets whether credentials may be sent without TLS to hosts that are not this machine.
    pub fn plaintext(self, plaintext: Plaintext) -> Self {
        self.with(move |settings| settings.plaintext = plaintext)
    }

    /// Sets the virtual host, in place of the path of the URL.
    pub fn virtual_host(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|settings| settings.virtual_host = name)
    }

    /// Sets the name of the connections on the server's management pages.
    pub fn name(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|settings| settings.name = name)
    }

    /// Sets whether missing exchanges and queues are created.
    pub fn topology(self, topology: Topology) -> Self {
        self.with(move |settings| settings.topology = topology)
    }

    /// Sets the treatment of messages that no queue takes.
    pub fn unroutable(self, unroutable: Unroutable) -> Self {
        self.with(move |settings| settings.unroutable = unroutable)
    }

    /// Sets the dead letters that the group `parked` keeps.
    pub fn parked(self, parked: Parked) -> Self {
        self.with(move |settings| settings.parked = parked)
    }

    /// Sets the routing key of published messages.
    pub fn routing_key(self, routing_key: RoutingKey) -> Self {
        self.with(move |settings| settings.routing_key = routing_key)
    }

    /// Sets the keys by which the queues of readers without a group are bound, separated by commas,
    /// in place of those that see all messages of a topic exchange.
    pub fn binding_key(self, keys: impl Into<String>) -> Self {
        let keys = keys.into();
        self.with(|settings| settings.binding_key = Some(keys))
    }

    /// Sets the time limit of one attempt to connect to one host, and of one request to the server.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.with(move |settings| settings.connect_timeout = timeout)
    }

    /// Sets the maximum time that a publish waits for its confirm. Default 60 seconds.
    pub fn delivery_timeout(self, limit: Duration) -> Self {
        self.with(move |settings| settings.delivery_timeout = limit)
    }

    /// Sets the heartbeat interval, in whole seconds. A connection without a sign of life for twice
    /// this time is given up.
    pub fn heartbeat(self, interval: Duration) -> Self {
        self.with(move |settings| settings.heartbeat = interval)
    }

    /// Sets the maximum number of unconfirmed publishes.
    pub fn max_in_flight(self, publishes: usize) -> Self {
        self.with(move |settings| settings.max_in_flight = publishes)
    }

    /// Sets the largest payload in bytes: the server's `max_message_size`, because the server
    /// closes the channel on a larger message.
    pub fn max_payload(self, bytes: usize) -> Self {
        self.with(move |settings| settings.max_payload = bytes)
    }

    /// Sets the time after which the server ends the channel of an unsettled message, the server's
    /// `consumer_timeout`; zero if the server has none. The protocol does not show it.
    pub fn consumer_timeout(self, timeout: Duration) -> Self {
        self.with(move |settings| settings.consumer_timeout = timeout)
    }

    /// Sets the number of times that the server returns a message to a queue before it drops it:
    /// the queue's `x-delivery-limit` or that of a policy, whichever is lower. The protocol does
    /// not show it. Queues that this adapter creates have no limit, but a policy may set one.
    ///
    /// A message that was delivered so often is replaced by a copy before it is handed out again,
    /// with its attempts and deliveries counted on. A limit of 0 leaves no delivery in which to do
    /// so: a lost connection drops what it had fetched.
    pub fn delivery_limit(self, deliveries: u32) -> Self {
        self.with(move |settings| settings.delivery_limit = Some(deliveries))
    }

    /// Connects.
    ///
    /// # Errors
    /// The same as for [`Amqp::connect`].
    pub async fn connect(self) -> Result<Amqp> {
        let mut settings = Settings::from_url(&BrokerUrl::parse(&self.url)?)?;
        for change in self.changes {
            change(&mut settings);
        }
        Amqp::open(settings).await
    }
}

impl fmt::Debug for AmqpBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AmqpBuilder")
    }
}
