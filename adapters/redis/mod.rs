//! Redis Streams, through the client crate `redis`.

mod backoff;
mod commands;
mod config;
mod connection;
mod consume;
mod entry;
mod error;
mod headers;
mod publish;
mod topology;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Client, ConnectionAddr, cmd};
use async_trait::async_trait;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::address::{Subscription, Topic};
use crate::broker_url::BrokerUrl;
use crate::capability::{Attempts, Capabilities, Confirm, HeaderValues, Order, Retry, TimestampSource};
use crate::driver::{Confirmation, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

pub use config::{DEFAULT_CLAIM_IDLE, DEFAULT_CONNECT_TIMEOUT, DEFAULT_RESPONSE_TIMEOUT, MIN_CLAIM_IDLE, RedisBuilder};
pub use headers::{ESCAPE, KEY, MESSAGE_ID, PAYLOAD};
pub use publish::MAX_FIELD;

use config::Config;
use connection::Connection;
use error::SYSTEM;
use publish::Publisher;

/// The port of a Redis URL that names none.
pub const DEFAULT_PORT: u16 = 6379;

/// How long closing may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// A connection to a Redis server; see the [module](self).
pub struct Redis {
    config: Arc<Config>,
    identity: Identity,
    capabilities: Capabilities,
    publisher: Publisher,
    tasks: TaskTracker,
    closing: CancellationToken,
    /// Ends the tasks when the broker is dropped without being closed.
    _guard: DropGuard,
}

impl Redis {
    /// Connects to the server that the URL names.
    ///
    /// # Errors
    /// As [`RedisBuilder::connect`].
    pub async fn connect(url: &BrokerUrl) -> Result<Self> {
        RedisBuilder::from_url(url).connect().await
    }

    /// A builder that starts from a URL, with or without options.
    pub fn builder(url: impl AsRef<str>) -> RedisBuilder {
        RedisBuilder::from_text(url.as_ref())
    }

    /// A builder over a client of your own: for TLS, socket files, or whatever else the client crate can do.
    ///
    /// `TCP_NODELAY` is switched on. Over anything but plain TCP the protocol is RESP3, which tells when a connection is lost.
    pub fn from_client(client: Client) -> RedisBuilder {
        RedisBuilder::from_client(client)
    }

    /// The client, to open further connections with.
    pub fn as_client(&self) -> &Client {
        &self.config.client
    }

    async fn start(config: Arc<Config>) -> Result<Self> {
        let connection = Connection::open(&config, Duration::ZERO).await?;
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (publisher, writer) = Publisher::new(Arc::clone(&config), connection, closing.clone());
        tasks.spawn(writer);
        let identity = identity(config.client.get_connection_info().addr());
        let _guard = closing.clone().drop_guard();
        Ok(Self { config, identity, capabilities: capabilities(), publisher, tasks, closing, _guard })
    }

    fn check_open(&self) -> Result<()> {
        if self.closing.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "the broker is closed").with_system(SYSTEM));
        }
        Ok(())
    }
}

fn identity(address: &ConnectionAddr) -> Identity {
    let identity = Identity::new(SYSTEM);
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            identity.with_server(host, *port)
        }
        other => Identity { server_address: Some(other.to_string().into()), ..identity },
    }
}

fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::new();
    capabilities.confirm = Confirm::Broker;
    capabilities.groups = true;
    capabilities.at_least_once = true;
    capabilities.backlog = true;
    capabilities.retry = Retry::Held;
    capabilities.attempts = Attempts::Broker;
    capabilities.order = Order::Stream;
    capabilities.native_key = false;
    capabilities.timestamp = Some(TimestampSource::Broker);
    capabilities.header_values = HeaderValues::Bytes;
    capabilities.tombstones = false;
    capabilities.max_payload = Some(MAX_FIELD);
    capabilities
}

#[async_trait]
impl Driver for Redis {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.check_open()?;
        topology::declare(&self.publisher, self.config.topology, topic).await?;
        Ok(Destination::new())
    }

    fn publish(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        match self.check_open() {
            Ok(()) => self.publisher.publish(topic, message),
            Err(error) => Confirmation::ready(Err(error)),
        }
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        self.check_open()?;
        consume::subscribe(&self.config, subscription, &self.closing, &self.tasks).await
    }

    async fn ping(&self) -> Result<()> {
        self.check_open()?;
        self.publisher.command(cmd("PING")).await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        if self.closing.is_cancelled() {
            return Ok(());
        }
        self.closing.cancel();
        self.tasks.close();
        let ended = async {
            self.publisher.close().await;
            self.tasks.wait().await;
        };
        tokio::time::timeout(CLOSE_WITHIN, ended).await.map_err(|_| {
            Error::new(ErrorKind::Timeout, "the server did not answer in time: acknowledgements may be lost")
                .with_system(SYSTEM)
        })
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("server", &self.config.address()).finish_non_exhaustive()
    }
}
