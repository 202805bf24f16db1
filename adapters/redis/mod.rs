//! Redis Streams, through the client crate [`redis`](https://docs.rs/redis/1). Redis 7.0 or later, or what speaks its protocol;
//! one server, not a cluster.
//!
//! # URLs
//! `redis://user:password@host:6379/2`: one host, port 6379 unless named, user and password of the server's ACL if it wants
//! them, and the number of the database, 0 unless named. A password without a user is written `redis://:password@host`.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `topology` | `create` missing streams and groups, or only `check` | `create` |
//! | `connect_timeout` | milliseconds that connecting may take, and that publishes wait for a lost connection | 10000 |
//! | `response_timeout` | milliseconds until a server that does not answer counts as lost | 30000 |
//! | `claim_idle` | milliseconds of silence after which a member's messages go to others, at least 100 | 20000 |
//! | `maxlen` | trim a stream to about that many entries with every publish, **handled or not** | no trimming |
//!
//! [`Redis::builder`] sets the same and takes credentials apart from the URL. There is no TLS in it: hand in a client of your own.
//!
//! # Delivery semantics
//! A topic is a stream under the key of that name, in the order in which the server stored the messages. It comes into being
//! with its first message or its first group. Redis keeps what was acknowledged: a stream grows until `maxlen`, or
//! you, trim it. What is trimmed before it was handled is lost; a member that comes across such a message reports it as an
//! error item ([`ErrorKind::NotFound`]) of its subscription.
//!
//! **A confirmation** says that the server has the message in memory, and that it survives what the server's settings let it
//! survive. Without `appendonly yes` a crash loses what came after the last snapshot, confirmed or not, and so does a restart
//! without one. With it, `appendfsync always` loses nothing; `everysec` loses up to two seconds on a crash of the machine,
//! and under load, while a write to disk is slow, of the server too. Replicas get their copy later: a failover may lose
//! confirmed messages. Acknowledgements are kept as well as messages are; those that are lost bring messages back.
//!
//! **With a group** the topic has a Redis consumer group of that name, and each subscription is a consumer in it with a name of
//! its own, `traced-broker-<process id>-<random>`, for as long as it lives. A new group begins at the oldest message
//! the stream still has. A group that is gone, after a flush say, is made again, and begins where it began first: nothing that is there is
//! passed over. What is handed out stays pending until it is acknowledged (`XACK`); discarding is the same here.
//!
//! - A member that lost its connection keeps its name, and is handed out first what it had not settled; the old handles
//!   fail with [`ErrorKind::SettlementLost`] and settle nothing. The loss is one error item ([`ErrorKind::Unavailable`]).
//! - A member renews what it holds four times in every `claim_idle`, however long a handler takes or a retry waits. What
//!   a dead member held goes to the others after `claim_idle`, and at once what a member held that was closed.
//! - An acknowledgement that the server says came too late, because somebody else settled the message, fails with
//!   [`ErrorKind::SettlementLost`], also when many are acknowledged at a time: each has an answer of its own.
//! - Retries are held by this library. The attempt is 1 when the server hands a message out for the first time, and else what the
//!   server counts; while a member lives, this library counts on from there.
//! - Consumers that are gone are removed once nothing is pending with them, by a script: a user that may not run scripts
//!   leaves them where they are. Likewise closing takes up to five seconds longer without the right to `CLIENT UNBLOCK`.
//!
//! An at-most-once member reads with `NOACK`: nothing is pending, nothing comes back.
//!
//! **Without a group** a reader keeps its place itself and goes on from there over lost connections. Its messages need no
//! acknowledgement and do not come back when the program ends. The place it begins at is settled when subscribing returns.
//!
//! **Where to begin.** [`Start::Time`] goes by the ids of the entries, which are the server's milliseconds: what is stored within the
//! millisecond of the time comes too. A time that is still to come is waited for, and what is stored before it is passed
//! over. Streams have no offsets: [`Start::Offset`] is refused.
//!
//! **Moving a group** (`XGROUP SETID`) takes nothing from a member that lives: what it holds stays pending with it, also what lies before
//! the new position, and comes again if it is not acknowledged. What lies after it is handed out again even while it is pending,
//! to whichever member reads it, and is pending with that one from then on; it is settled by the first acknowledgement, and a
//! later one fails with [`ErrorKind::SettlementLost`]. What nobody holds any more, left by members that closed or were silent for
//! `claim_idle`, is pending no longer: it comes by the new position or is passed over. To repeat or skip cleanly, let the members
//! finish first. Members that wait for something new look at the new position within five seconds. A group that is missing is
//! made at that position, unless `topology` is `check`.
//!
//! **A publish** whose connection breaks before the answer comes is of unknown outcome and is not repeated. Publishes during an
//! outage wait for the connection, and are certainly not sent if they fail. A field may have 512 MiB ([`MAX_FIELD`]).
//! Messages without a payload are not supported: Redis has no such thing.
//!
//! The timestamp is the server's clock in the entry's id. An entry whose id a producer chose has the time that id says.
//!
//! **Bounds.** At most 1024 publishes are unconfirmed, in pipelines of up to 512 messages; a subscription holds at most its
//! prefetch of messages, unsettled and waiting to be handed out taken together, and as many acknowledgements; 16 reports of
//! trouble wait, further ones are only logged. What one read brought, up to 256 messages, is kept together until the last of them is
//! handed out. One connection publishes, a member of a group has two, another reader one.
//!
//! # Headers
//! An entry has the fields `payload` ([`PAYLOAD`]), `key` ([`KEY`]) if there is a key, and one for each header, under the header's own
//! name and in their order, so that any client in any language reads `traceparent` as it stands. A header that occurs twice
//! is a field that occurs twice. Values may be any bytes; names are UTF-8.
//!
//! A header that is named `payload` or `key`, or whose name begins with `header:` ([`ESCAPE`]), has `header:` written before its
//! name, once, and loses it when read. The sender's id of a message is the header `message-id` ([`MESSAGE_ID`]); a message without one
//! has the entry's id. The media type is the header `content-type`.
//!
//! Entries of other producers are read the same way: one without `payload` has an empty payload and all its fields as headers; a
//! second `payload` or `key` is a header; a field whose name is not UTF-8 is left out and counted.
//!
//! # Escape hatch
//! [`Redis::from_client`] takes a [`redis::Client`] of your own, over TLS or a socket file for instance; [`Redis::as_client`]
//! gives the client, to ask the server whatever this library does not. Spans have `messaging.redis.entry.id`, the id of the
//! entry, and `messaging.redis.consumer.name`, the name in the group.

mod answer;
mod backoff;
mod commands;
mod config;
mod connection;
mod consume;
mod entry;
mod error;
mod fields;
mod headers;
mod publish;
mod topology;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Client, ConnectionAddr, cmd};
use async_trait::async_trait;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::address::{Start, Subscription, Topic};
use crate::broker_url::BrokerUrl;
use crate::capability::{Attempts, Capabilities, Confirm, HeaderValues, Order, Retry, TimestampSource};
use crate::driver::{Confirmation, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

pub use config::{DEFAULT_CLAIM_IDLE, DEFAULT_CONNECT_TIMEOUT, DEFAULT_RESPONSE_TIMEOUT, MIN_CLAIM_IDLE, RedisBuilder};
pub use headers::{ESCAPE, KEY, MESSAGE_ID, PAYLOAD};
pub use publish::MAX_FIELD;

use commands::Member;
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
    capabilities.start_at_time = true;
    capabilities.reposition = true;
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

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        self.check_open()?;
        let Some(group) = subscription.group_name() else {
            return Err(Error::new(ErrorKind::InvalidConfig, "a reader without a group has no position to move"));
        };
        let member =
            Member { stream: subscription.topic().to_owned(), group: group.to_owned(), consumer: String::new() };
        topology::reposition(&self.publisher, &self.config, &member, start).await
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
