//! Redis Streams, through the client crate [`redis`](https://docs.rs/redis/1). Redis 7.0 or later,
//! or Valkey; one server, not a cluster.
//!
//! # URLs
//! `redis://user:password@host:6379/2`: one host, the port (6379 by default), user and password of
//! the server's ACL if it requires them, and the number of the database (0 by default). A password
//! without a user is written `redis://:password@host`. `rediss://` is the same over TLS, with the
//! cargo feature `tls`.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `topology` | `create` missing streams and groups, or only `check` | `create` |
//! | `connect_timeout` | milliseconds for connecting, and for which publishes wait for a lost connection | 10000 |
//! | `response_timeout` | milliseconds until a server that does not answer counts as lost | 10000 |
//! | `claim_idle` | milliseconds of silence after which a member's messages go to others, at least 100 | 20000 |
//! | `maxlen` | trim a stream to about this many entries with every publish, **handled or not** | no trimming |
//! | `max_age` | trim a stream of entries older than so many milliseconds with every publish, **handled or not** | no trimming |
//! | `wait_replicas` | number of replicas that have a message before it is confirmed | 0 |
//! | `wait_timeout` | milliseconds in which the replicas must have it | 5000 |
//! | `tls_ca`, `tls_cert`, `tls_key`, `tls_server_name` | authorities to trust, certificate to present and its key in PEM files, and the name that the server's certificate is for; see [`Tls`](crate::Tls) | the system's, none, the host |
//! | `plaintext` | `yes` sends a password without TLS to another machine, too | `no` |
//! | `retention` | remove what all groups have handled: `created` from streams that are created here, `handled` from all, `all` keeps everything | `created` |
//!
//! [`Redis::builder`] has the same options, and takes credentials apart from the URL. The name of
//! the host is looked up at each connect. If it has several addresses, the next one is tried when
//! one fails, or has not answered for 250 ms; the first that answers is taken.
//!
//! # Delivery semantics
//!
//! ## Topics
//! A topic is a stream under the key of the same name, in the order in which the server stored the
//! messages. It is created with its first message or its first group.
//!
//! Redis keeps acknowledged messages. Four times in every `claim_idle`, each member of a group
//! removes from its stream what all its groups have acknowledged or, at most once, read:
//! [`HANDLED_FOR`] (one minute) after it was stored at the earliest. By default this concerns
//! streams that this library has created, which the key `{<topic>}:created` tells. Groups of other
//! programs count like those of this library. **A reader without a group, a new group and one that
//! is moved back find only what is left**; keep more with `retention=all`, and bound it with
//! `maxlen` or `max_age`. So must a stream that only has readers without a group: it is not trimmed
//! otherwise.
//!
//! A group keeps everything that it has not handled, also while it has no members, because they may
//! come back. If it had none for an hour and keeps messages for longer, the members of other groups
//! log a warning with its name. If it is gone for good, remove it:
//! `XGROUP DESTROY <topic> <group>`. The next trimming then removes what it kept.
//!
//! The reference policies of Redis 8.2 (`KEEPREF`, `DELREF`, `ACKED`) are not used: trimming is the
//! same on all servers. If you trim there yourself, `ACKED` spares what a group has not handled.
//!
//! Messages that are trimmed by these two, or by you, before they were handled are lost. A member
//! that finds such a message reports it as an error item ([`ErrorKind::NotFound`]) of its
//! subscription. A server whose `maxmemory-policy` evicts whole streams is warned of at connecting.
//!
//! ## Confirms
//! A confirmed message is in the server's memory. The settings of the server decide what it
//! survives:
//!
//! | settings | loss of confirmed messages |
//! |---|---|
//! | no `appendonly` | a crash, or a restart without a snapshot, loses what came after the last snapshot |
//! | `appendonly yes`, `appendfsync always` | no loss |
//! | `appendonly yes`, `appendfsync everysec` | up to two seconds on a crash of the machine; under load, while a write to disk is slow, also on a crash of the server |
//! | replicas | they get their copy later, so a failover may lose messages |
//! | replicas, and the option `wait_replicas` | none, if a replica is promoted that has them |
//!
//! With `wait_replicas`, the messages of a pipeline are followed by a `WAIT`, and confirmed only if
//! so many replicas have them within `wait_timeout`. Otherwise their publishes fail with
//! [`ErrorKind::Timeout`] and an unknown outcome: the server has them, but a failover may lose
//! them.
//! It is the operator's part that a replica is promoted which has the most; Sentinel does so. A
//! replica has a message in its memory; its own `appendonly` decides if it survives a crash there.
//!
//! Acknowledgements are kept as messages are. If some are lost, their messages are redelivered.
//!
//! ## Publishing
//! A publish whose connection breaks before the answer comes has an unknown outcome, and is not
//! repeated. Publishes during an outage wait for the connection, and are certainly not sent if they
//! fail. Messages without a payload are not supported, because Redis does not have them.
//!
//! ## Groups
//! A group is a Redis consumer group of the same name. Each subscription is a consumer in it with
//! its own name, `traced-broker-<process id>-<random>`, for as long as it lives. A new group begins
//! at the oldest message in the stream. A group that is gone, for example after a failover, is
//! created again and begins at the first message that was not acknowledged when a member last
//! looked, four times in every `claim_idle`: later ones come again. It begins where it first began
//! if the stream was made anew, or the program is. A delivered message stays pending until it is
//! acknowledged (`XACK`); discarding is the same here.
//!
//! - A member renews its messages four times in every `claim_idle`, however long a handler takes or
//!   a retry waits. It does so on a thread of the broker's, so that handlers that block their
//!   thread do not delay it. Messages of a dead member go to the others after `claim_idle`.
//! - A message that is given back, because its member stops, is closed, or dropped it unsettled, is
//!   pending with the consumer `traced-broker-returned`. The others look there every second, or
//!   four times in every `claim_idle` if that is more often, and take it if they have room.
//! - Retries are held by this library. The attempt is one more than the number of attempts that
//!   failed. The hash `{<topic>}:<group>:attempts` keeps that number for the next member: it has an
//!   entry for each pending message with a failed attempt, removed with the message, and expires a
//!   week after the last failure. Without permission for that key, attempts are counted anew by the
//!   next member, which a warning says.
//! - [Trials](crate::driver::DeliveryHandle::begin_trial) of a message that may end the process of
//!   its handler are noted in the same hash, in the field `<id>/trials`. The note is withdrawn when
//!   the process hears of the delivery, over the next connection if this one is lost, and when the
//!   member ends. Without the permission, such a message is never found out.
//! - The number of deliveries is the server's. Messages that were fetched ahead and given back, or
//!   never arrived because the connection broke, do not count.
//! - A message that another member claimed is lost: its delivery is over at the next renewal at the
//!   latest. Its acknowledgement fails with [`ErrorKind::SettlementLost`]. This also holds if many
//!   are acknowledged at a time: each has its own answer.
//!
//! ## At most once
//! An at-most-once member reads with `NOACK`: its messages are not pending and not redelivered.
//! Those that were read ahead, or are on their way, are lost when the subscription ends.
//!
//! ## Reconnection
//! Connections on which nothing happens are kept alive: by a `PING` after ten seconds, or a quarter
//! of `claim_idle` if that is less, and by the operating system. A server that is gone without a
//! word is noticed within about `response_timeout` after that.
//!
//! A member that lost its connection keeps its name and its messages. Deliveries that are out can
//! be settled over the next connection, which the settlement waits for, unless another member
//! claimed the message in the meantime. An acknowledgement whose answer was lost is sent again if
//! the message is still pending; otherwise it fails with an unknown outcome. Messages that were
//! fetched and not handed out are read again. The loss is one error item
//! ([`ErrorKind::Unavailable`]).
//!
//! ## Readers without a group
//! A reader keeps its position itself, and continues from there after a lost connection. Its
//! messages need no acknowledgement, and are not redelivered when the program ends. The position at
//! which it begins is fixed when subscribing returns.
//!
//! ## Start positions
//! [`Start::Time`] uses the ids of the entries, which are the server's milliseconds: messages
//! stored within the millisecond of the time are included. A time in the future is waited for, and
//! messages stored before it are passed over. Streams have no offsets: [`Start::Offset`] is
//! refused.
//!
//! ## Repositioning
//! Moving a group (`XGROUP SETID`) takes no messages from a live member. To repeat or skip cleanly,
//! let the members finish first.
//!
//! - Messages that a live member holds stay pending with it, also those before the new position,
//!   and are redelivered if they are not acknowledged.
//! - Messages after the new position are delivered again even while they are pending, to any member
//!   that reads them, and are then pending with that member. The first acknowledgement settles such
//!   a message; a later one fails with [`ErrorKind::SettlementLost`].
//! - Messages left by members that were closed, or silent for `claim_idle`, are no longer pending:
//!   they are delivered from the new position, or passed over.
//! - Members that wait for new messages look at the new position within five seconds.
//! - A missing group is created at the new position, unless `topology` is `check`.
//!
//! ## Timestamps
//! The timestamp is the server's clock in the id of the entry. If a producer chose the id, it is
//! the time in that id.
//!
//! ## Limits
//! | bound | value |
//! |---|---|
//! | unconfirmed publishes | 1024, in pipelines of up to 512 messages |
//! | messages of a subscription that are unsettled or wait to be delivered | its prefetch, and [what waits](crate::Subscription::waiting) |
//! | acknowledgements of a subscription on their way or waiting for a connection | the same |
//! | reports of trouble that wait | 16; further ones are only logged |
//! | messages of one read, kept together until the last is delivered | 256, and about 8 MiB |
//! | one answer of the server, over any transport | 1 GiB |
//! | size of a field | 512 MiB ([`MAX_FIELD`]) |
//! | connections | one to publish, two for each member of a group, one for any other reader |
//! | threads | one for all members of groups, started with the first |
//!
//! # Headers
//!
//! ## Fields of an entry
//! | field | contents |
//! |---|---|
//! | `payload` ([`header::REDIS_PAYLOAD`](crate::names::header::REDIS_PAYLOAD)) | the payload |
//! | `key` ([`header::REDIS_KEY`](crate::names::header::REDIS_KEY)) | the key, if there is one |
//! | the name of a header | the value of that header |
//!
//! Headers keep their order, so a client in any language reads `traceparent` as it is. A header
//! that occurs twice is a field that occurs twice. Values may be any bytes; names are UTF-8.
//!
//! ## Reserved names
//! A header that is named `payload` or `key`, or whose name begins with `header:`
//! ([`header::REDIS_ESCAPE`](crate::names::header::REDIS_ESCAPE)), is written with one `header:`
//! before its name, which is removed when it is read. The sender's id of a message is the header
//! `message-id` ([`header::MESSAGE_ID`](crate::names::header::MESSAGE_ID)); a message without one
//! has the id of the entry. The media type is the header `content-type`.
//!
//! ## Entries of other producers
//! Entries of other producers are read the same way. One without `payload` has an empty payload,
//! and all its fields are headers. A second `payload` or `key` is a header. A field whose name is
//! not UTF-8 is left out and counted.
//!
//! # Escape hatch
//! [`Redis::from_client`] takes your own [`redis::Client`], for example of a socket file, and
//! [`RedisBuilder::transport`] any stream of bytes. [`Redis::as_client`] returns the client, for
//! requests that this library does not make. Spans have `messaging.redis.entry.id`, the id of the
//! entry, and `messaging.redis.consumer.name`, the name in the group.
//!
//! # Permissions and settings at the server
//! The keys are the names of the topics, `{<topic>}:<group>:attempts` for failed attempts and noted
//! trials, and `{<topic>}:created`.
//! These rules of the ACL suffice for a user with the topics `orders` and `orders.…` in database 0,
//! without the last three rows of the table:
//!
//! ```text
//! ACL SETUSER shop on >PASSWORD ~orders ~orders.* ~{orders}:* ~{orders.*
//!     +@stream +type +ping +client|id +set +exists +eval
//!     +hset +hincrby +hmget +hdel +hscan +expire
//! ```
//!
//! | command | needed for |
//! |---|---|
//! | `PING` | connecting and health checks |
//! | `SELECT` | a database other than 0 |
//! | `TYPE`, `XADD` | publishing |
//! | `WAIT` | publishing with `wait_replicas`; not among the rules above |
//! | `XINFO STREAM` | starting at the latest message, creating a group, subscribing with `topology=check` |
//! | `XREAD` | reading without a group |
//! | `CLIENT ID`, `XREADGROUP`, `XPENDING`, `XCLAIM`, `XACK`, `XRANGE` | groups |
//! | `HSET`, `HMGET`, `HDEL`, `HSCAN`, `EXPIRE` | failed attempts that the next member knows of; without the permission it does not |
//! | `HINCRBY` | noting trials, with the commands before; without the permission, a message that ends its process is handed out for ever |
//! | `XINFO GROUPS` | a group that is lost begins where it was; without the permission, where it first began |
//! | `XGROUP CREATE` | groups with `topology=create` |
//! | `XGROUP CREATECONSUMER` | being listed before the first message; optional |
//! | `XGROUP SETID`, `XPENDING`, `XACK` | moving a group |
//! | `SET`, and `EVAL` with `EXISTS`, `XINFO GROUPS`, `XPENDING`, `XTRIM` and `XRANGE` in the script | removing what is handled; without the permission it stays, which a warning says |
//! | `EVAL`, with `XINFO CONSUMERS` and `XGROUP DELCONSUMER` in the script | removing consumers that are gone and have no pending messages; without the permission they stay |
//! | `CLIENT UNBLOCK` | closing; without the permission it takes up to five seconds longer |
//! | `CLIENT SETINFO` | the name of the library in the server's list of clients; optional |
//! | `INFO` | warning of a server that evicts streams; optional |
//!
//! A permission that is missing and not optional is [`ErrorKind::PermissionDenied`]: the error of
//! the operation, or an error item of the subscription. It repeats the server's words, which name
//! the command.
//!
//! The settings `appendonly` and `appendfsync` decide what [confirms](#confirms) mean, and
//! `proto-max-bulk-len` limits the size of a field.

mod config;
mod connection;
mod consume;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod headers;
mod publish;
mod topology;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Client, ConnectionAddr, cmd};
use async_trait::async_trait;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::driver::capability::{Attempts, Capabilities, Confirm, HeaderValues, Order, Redelivery, TimestampSource};
use crate::driver::{BrokerUrl, Confirmer, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Start, Subscription, Topic};

pub use config::{
    DEFAULT_CLAIM_IDLE, DEFAULT_CONNECT_TIMEOUT, DEFAULT_RESPONSE_TIMEOUT, DEFAULT_WAIT_TIMEOUT, HANDLED_FOR,
    MIN_CLAIM_IDLE, RedisBuilder, Retention,
};
pub use publish::MAX_FIELD;

use config::Config;
use connection::Connection;
use connection::commands::{Member, PAGE};
use consume::{MemberThread, Memberships};
use error::SYSTEM;
use publish::Publisher;

/// The default port of a Redis URL.
pub const DEFAULT_PORT: u16 = 6379;

/// Maximum duration of closing.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// A connection to a Redis server; see the [module](self).
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::adapters::redis::Redis;
/// use traced_broker::{BrokerUrl, Message, Traced, TracedBroker};
///
/// let url = BrokerUrl::parse("redis://localhost:6379/2?claim_idle=60000")?;
/// let broker = Traced::new(Redis::connect(&url).await?);
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
/// # Ok(()) }
/// ```
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// # use traced_broker::{BrokerUrl, ErrorKind, adapters::redis::Redis};
/// let error = Redis::connect(&BrokerUrl::parse("redis://localhost/orders")?).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig); // The path is the number of a database.
/// # Ok(()) }
/// ```
pub struct Redis {
    config: Arc<Config>,
    identity: Identity,
    capabilities: Capabilities,
    publisher: Publisher,
    members: MemberThread,
    memberships: Memberships,
    tasks: TaskTracker,
    closing: CancellationToken,
    /// Ends the tasks when the broker is dropped without being closed.
    _guard: DropGuard,
}

impl Redis {
    /// Connects to the server that the URL names.
    ///
    /// # Errors
    /// Those of [`RedisBuilder::connect`].
    pub async fn connect(url: &BrokerUrl) -> Result<Self> {
        RedisBuilder::from_url(url).connect().await
    }

    /// Returns a builder that starts from a URL, with or without options.
    pub fn builder(url: impl AsRef<str>) -> RedisBuilder {
        RedisBuilder::from_text(url.as_ref())
    }

    /// Returns a builder over your own client: its address, which may be a socket file, its
    /// credentials, and its TCP settings. The connections are this library's.
    ///
    /// `TCP_NODELAY` is switched on, and keep-alive and the time limit of unacknowledged bytes are
    /// set unless the client has its own. A client over TLS keeps its TLS settings to itself: hand
    /// in [those](RedisBuilder::tls) as well, or connecting fails with [`ErrorKind::InvalidConfig`].
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use traced_broker::Traced;
    /// use traced_broker::adapters::redis::Redis;
    ///
    /// let client = redis::Client::open("unix:///run/redis/redis.sock")?;
    /// let broker = Traced::new(Redis::from_client(client).connect().await?);
    /// # Ok(()) }
    /// ```
    pub fn from_client(client: Client) -> RedisBuilder {
        RedisBuilder::from_client(client)
    }

    /// Returns the client, to open further connections.
    pub fn as_client(&self) -> &Client {
        &self.config.client
    }

    async fn start(config: Arc<Config>) -> Result<Self> {
        let mut connection = Connection::open(&config, config.waits()).await?;
        topology::warn_of_eviction(&mut connection, &config).await?;
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (publisher, writer) = Publisher::new(Arc::clone(&config), connection, closing.clone());
        tasks.spawn(writer);
        let identity = identity(config.client.get_connection_info().addr());
        let _guard = closing.clone().drop_guard();
        let (members, memberships) = (MemberThread::new(closing.clone(), tasks.clone()), Memberships::default());
        Ok(Self {
            config,
            identity,
            capabilities: capabilities(),
            publisher,
            members,
            memberships,
            tasks,
            closing,
            _guard,
        })
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
    capabilities.retry = Redelivery::Held;
    capabilities.attempts = Attempts::Broker;
    capabilities.order = Order::Stream;
    capabilities.native_key = false;
    capabilities.timestamp = Some(TimestampSource::Broker);
    capabilities.header_values = HeaderValues::Bytes;
    capabilities.tombstones = false;
    capabilities.sets_aside = true;
    capabilities.notes_trials = true;
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
        topology::declare(&self.publisher, &self.config, topic).await?;
        Ok(Destination::new())
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        match self.check_open() {
            Ok(()) => self.publisher.publish(topic, message, confirmer),
            Err(error) => confirmer.confirm(Err(error)),
        }
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        self.check_open()?;
        let (config, subscription) = (Arc::clone(&self.config), subscription.clone());
        let is_member = consume::renews(&subscription);
        let subscribing = consume::subscribe(
            config,
            subscription,
            self.closing.clone(),
            self.tasks.clone(),
            self.memberships.clone(),
        );
        if is_member { self.members.run(subscribing).await } else { subscribing.await }
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        self.check_open()?;
        let Some(group) = subscription.group_name() else {
            return Err(Error::new(ErrorKind::InvalidConfig, "a reader without a group has no position to move"));
        };
        let member =
            Member { stream: subscription.topic().to_owned(), group: group.to_owned(), consumer: String::new() };
        let read = self.memberships.read(&member.stream, group);
        topology::reposition(&self.publisher, &self.config, &member, start).await?;
        // What members here had read before is not handed out. Entries behind the new position are
        // read again; those before it must not be claimed.
        let position = topology::known(start)?;
        let mut passed = read.take_waiting();
        passed.retain(|id| position.is_none_or(|position| *id <= position));
        for page in passed.chunks(PAGE) {
            self.publisher.command(member.acknowledge(page.iter().copied())).await?;
        }
        Ok(())
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
