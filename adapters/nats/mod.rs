//! NATS through the crate `async-nats`: JetStream, which stores and confirms messages, and core
//! NATS, which does not.
//!
//! # URLs
//! `nats://host:4222`, several hosts separated by commas, `nats://user:password@host`, or
//! `nats://token@host`; `tls://` requires TLS. There is no path. The builder also takes an nkey, a
//! client certificate, and a `.creds` file. That file, passwords and tokens are read anew at each
//! connect, passwords and tokens also [from a function](crate::SecretSource).
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `mode` | `jetstream`, or `core` | `jetstream` |
//! | `topology` | `create` missing streams and groups, or only `check` | `create` |
//! | `ack` | `send` settlements and go on, or `confirm` each by an answer | `send` |
//! | `ack_wait` | milliseconds until the server redelivers what a consumer that vanished left unsettled, at least 100 | 10000 |
//! | `connect_timeout` | milliseconds for connecting, all servers together | 10000 |
//! | `confirm_timeout` | milliseconds for the answer to a publish, settlement or request | 10000 |
//! | `election_wait` | milliseconds for which publishes wait while a cluster elects the leader of their stream, 0 to fail them at once | 10000 |
//! | `replicas` | servers that keep a stream that is created, 1 to 5 | 1 |
//! | `max_age` | milliseconds for which a stream that is created keeps messages, 0 for no limit | 0 |
//! | `max_bytes`, `max_msgs` | limits of a stream that is created; beyond them it drops its oldest messages, settled or not | none |
//! | `duplicate_window` | milliseconds for which a stream that is created knows the ids of its messages | 120000 |
//! | `storage` | of a stream that is created: `file` or `memory` | `file` |
//! | `inbox_prefix` | first tokens of the subjects at which answers and messages come | `_INBOX` |
//! | `password_file`, `token_file` | a file with the password of `nats://user@host`, or with the token, which is read anew at each connect | none |
//! | `header_names` | spelling of header names: `exact`, as given, or `canonical`, like Go's HTTP headers (`Traceparent`) | `exact` |
//! | `tls` | `true` refuses connections without TLS; otherwise the server decides | `false` |
//! | `tls_ca`, `tls_cert`, `tls_key`, `tls_server_name` | require TLS: authorities to trust, certificate to present and its key in PEM files, and the name that the server's certificate is for; see [`Tls`](crate::Tls) | the system's, none, the host |
//! | `plaintext` | `yes` sends a password or token without TLS to another machine, too; otherwise TLS is required there | `no` |
//!
//! # Delivery semantics
//!
//! ## Topics
//! A topic is a subject of the same name. A dot that would leave a part of the subject empty
//! (`a..b`, `.a`) is written `~`. If a stream takes the subject, it is used and keeps its
//! configuration. Otherwise a stream is created, named after the topic with `~` for each dot, kept
//! in files, and without limits. It grows until one is set: `max_age`, `max_bytes` or `max_msgs`
//! here, or limits at the server.
//!
//! ## Groups
//! A group is a durable pull consumer named after the group, with `~` for each dot. In a stream of
//! several topics, a group name serves one of them. An existing consumer keeps its configuration if
//! it can be used at all. One member gets messages in the order of the stream. Several members
//! share them, so their group keeps no order.
//!
//! ## Readers without a group
//! A subscription without a group has its own consumer. It is deleted when the subscription ends,
//! or by the server after a minute without use. On a stream that is a work queue it would take
//! messages from the groups, so there it is [`Unsupported`](crate::ErrorKind::Unsupported).
//!
//! ## Confirms
//! A confirmed message is in the server's file and survives if the server is killed; to survive a
//! power failure, the server needs `sync_interval: always`, or replicas. A lost connection or a
//! time-out leaves the outcome unknown. While the connection is down, publishing fails at once, and
//! nothing is sent. While a cluster elects the leader of a stream, publishes to it wait for up to
//! `election_wait` and keep their order.
//!
//! ## Message ids
//! The message id is `Nats-Msg-Id`. Within two minutes, unless told otherwise, a stream stores an
//! id once. A repetition is confirmed, and its receipt is a
//! [duplicate](crate::Receipt::duplicate). A stream of several topics would store an id under one
//! of them only, so there `Nats-Msg-Id` is `TOPIC/ID`, and `delayed-message-id` is the id alone.
//! Received messages have the id alone. Producers with other clients that repeat messages of this
//! library have to write the same two headers.
//!
//! ## Consuming
//! Messages are consumed at least once. The server performs retries, also delayed ones, and later
//! messages pass a delayed one. The timestamp is the server's, and the offset is the sequence in
//! the stream. While this process lives, it asks for more time for unsettled messages, so
//! `ack_wait` does not limit handlers. It does so on a thread of its own, where the connections are
//! read and written too: handlers that block or compute do not make the server redeliver. If the
//! process is stopped for longer than `ack_wait`, a warning is logged, and the deliveries are lost.
//! A consumer that an operator deletes is made again at the first message that is unsettled or
//! waits for a retry, as far as this member knows. Settled messages behind it come again.
//!
//! ## Attempts
//! The attempt is the number of retries that were asked for, plus one. The server counts hand-outs,
//! which is more: fetched ahead, given back, or redelivered after a lost connection. So the
//! failures of a group are kept in the stream `STREAM@tries`, in one small message for each message
//! that failed and is unsettled. The stream is created at the first retry. It is written before the
//! server is asked for the retry, and read when a message comes that was handed out before; a
//! message that does not fail costs nothing. A record is deleted when its message is settled, and
//! expires after 30 days. It does not count for a group that is created again or moved.
//!
//! If the stream cannot be used (no permission, or missing with `topology=check`), this process
//! counts alone, up to 16,384 messages of a group, and logs a warning once. Readers without a group
//! count in this process too. A server that is killed may hand a message out as new, because it
//! writes its counts a moment after the delivery; the attempt is then 1 again.
//!
//! The same record has the [trials](crate::driver::DeliveryHandle::begin_trial) of a message that
//! may end the process of its handler. A note is withdrawn when the process hears of the delivery,
//! over the next connection if this one is lost, for up to 15 minutes. Where the stream cannot be
//! used, such a message is never found out; nor is one with
//! [unreadable headers](#unreadable-headers).
//!
//! ## Settlement
//! An acknowledgement that is on its way when the connection breaks is sent again over the next
//! one, within three quarters of `ack_wait`: later, the message may be another member's. A retry is
//! not, because the message may have gone back already; it comes again after `ack_wait` if it has
//! not. Closing waits until the server has processed all settlements. A server
//! that is killed forgets about the last tenth of a second of settlements, even confirmed ones.
//!
//! ## Reconnection
//! Each subscription has its own connection; publishing and settling share another. When one is
//! lost, or another server leads the consumer, what is in hand stays there, and is settled over the
//! next connection if that comes within `ack_wait`. Otherwise, or if a server that was killed has
//! forgotten it, it fails with [`SettlementLost`](crate::ErrorKind::SettlementLost). Messages on
//! the wire usually come before newer ones, in their order, if the group has one member and the
//! server notices the loss within half a second; else after `ack_wait`.
//!
//! ## Start positions
//! New groups and readers begin at the earliest message, at the latest, at a time or at an offset.
//! A time is compared with the time of storage by the server's clock; a time in the future counts
//! as now. An offset is that of a message, or the next one after the last message.
//!
//! ## Repositioning
//! Server 2.14 and later moves a group in one step: its members, wherever they are, continue from
//! there. Deliveries and fetched messages in this process are dropped, and their handles are stale.
//! Members in other processes first deliver what they have fetched, at most their prefetch, and
//! settling it does no harm.
//!
//! ## Repositioning in two steps
//! The consumer is deleted and created again on older servers, and for a position before the one
//! where the group was created, unless that was the earliest. While members in other processes wait
//! for messages, this fails as a [`Conflict`](crate::ErrorKind::Conflict) without any effect. If
//! this process is killed between the two steps, the group is gone and begins anew.
//!
//! ## Delays
//! Server 2.12 and later keeps delayed messages as message schedules in the stream of the topic.
//! Each has its own subject below `@delayed.TOPIC.` (the topic with `~` for each dot), and streams
//! that are created here take these subjects. A confirmed delayed message is kept as any message
//! is, and longer than `max_age`; limits on size and number apply to it. An existing stream needs
//! the [settings below](#permissions-and-settings-at-the-server). Without them, delayed publishes
//! fail as a [`Conflict`](crate::ErrorKind::Conflict), as found when the topic is first used.
//!
//! ## When a delayed message is due
//! The server publishes it at its time or up to a quarter of a second later. Only then does it get
//! its own offset and timestamp. Its id guards against duplicates when it is sent, not when it is
//! due. A server that is killed at that moment may publish it twice.
//!
//! ## Core NATS
//! Core NATS does not confirm or keep messages: a publish ends with an unconfirmed receipt. A
//! subscription has to be `at_most_once()`, and a group is a queue group. There is no retry, delay,
//! timestamp, backlog or position. Messages are lost that are not read in time, or sent while a
//! connection is away; error items say so.
//!
//! ## Limits
//! | bound | value |
//! |---|---|
//! | publishes in flight | 1024 |
//! | messages of a subscription that are requested or unsettled | its prefetch, and [what waits](crate::Subscription::waiting) |
//! | queue of a subscription's client | its prefetch, and 1024 notices of the server |
//! | size of requested messages | 8 MiB in each of four requests, or one message that is larger |
//! | messages and settlements that wait to be written on the shared connection | 65,536; more are refused as [`Busy`](crate::ErrorKind::Busy) |
//! | unsettled messages that the server remembers of a group that is created here | 65,536 |
//! | unread messages of a core subscription | 65,536, of 64 MiB together |
//! | messages of a stream whose attempts the server keeps, all groups together | 1,000,000 |
//!
//! # Headers
//!
//! ## Names and values
//! Names are visible ASCII without a colon. Values are UTF-8 without line breaks, and without white
//! space at either end, because readers remove it. Anything else is refused when publishing. Values
//! of one name keep their order; the client does not keep the order of different names. JetStream
//! limits all headers of a message together to 64 KiB.
//!
//! ## Upper and lower case
//! NATS distinguishes upper and lower case in names. This library finds a name in any case. Some
//! other readers, above all those in Go that use HTTP's header type, know one spelling only, which
//! `header_names=canonical` writes.
//!
//! The id of a copy, such as a dead letter or a message that is sent back, is in the header
//! `message-id`: under `Nats-Msg-Id`, the server would drop it as a duplicate of the original.
//! Received messages have it as their id.
//!
//! ## Reserved names
//! | name | contents |
//! |---|---|
//! | `message-key` | the key, if it is text that a header can hold |
//! | `message-key-base64` | any other key, in base64 |
//! | `delayed-message-id` | the id of a delayed message, because the server removes `Nats-Msg-Id` when it is due; the id of a message in a [stream of several topics](#message-ids) |
//! | all that begin with `Nats-` | orders to the server |
//!
//! A message to publish that has one of these headers is refused, and a received message does not
//! show them.
//!
//! ## Unreadable headers
//! Foreign producers may write header blocks that break the rules. The client gives up its
//! connection over a block that it cannot read, and the server would redeliver the message again
//! and again. So when only the connection of a subscription is lost, the message that came next is
//! read as JSON; if that one is well, and it happens again, the 256 oldest unsettled ones. Those
//! that the client cannot read are delivered from there: with the headers that can be read, values
//! as bytes, and the rest counted.
//!
//! - They are retried from memory, and counted there. The next 1024 are requested one by one.
//! - Members of a group that lose their connections together may each deliver such a message.
//! - A carriage return inside a value ends the client's task by a panic, whose message is printed.
//!   The task is replaced, which needs a program that unwinds on panic.
//! - Core NATS loses the message.
//!
//! # Escape hatch
//! [`Nats::as_client`] is the client that publishes and settles. [`Nats::from_client`] uses your
//! own client for everything: a header block that it cannot read breaks publishing too, and it is
//! not replaced if it ends. It runs on your runtime, whose threads handlers then must not block
//! (`spawn_blocking`).
//!
//! # Permissions and settings at the server
//! JetStream has to be enabled for the account, except with `mode=core`. The user needs the
//! following subjects. Consumers of readers without a group are named `reader-…`; moving a group to
//! a time creates a consumer `time-…` for a moment.
//!
//! | permission | subject | needed for |
//! |---|---|---|
//! | subscribe | `_INBOX.>`, or that of `inbox_prefix` | answers and messages; with `mode=core` publish too, for health |
//! | publish | `TOPIC` | publishing |
//! | subscribe | `TOPIC` | subscribing with `mode=core` |
//! | publish | `@delayed.TOPIC.>` | delayed messages |
//! | publish | `$JS.API.INFO` | connecting, reconnecting, health, and closing |
//! | publish | `$JS.API.STREAM.NAMES`, `$JS.API.STREAM.INFO.STREAM` | finding the stream of a topic |
//! | publish | `$JS.API.STREAM.CREATE.STREAM` | creating a missing stream |
//! | publish | `$JS.API.CONSUMER.INFO.STREAM.CONSUMER` | subscribing; moving a group |
//! | publish | `$JS.API.CONSUMER.CREATE.STREAM.CONSUMER.TOPIC` | creating a missing group; a reader without a group |
//! | publish | `$JS.API.CONSUMER.MSG.NEXT.STREAM.CONSUMER`, `$JS.ACK.>` | reading and settling |
//! | publish | `$JS.API.STREAM.MSG.GET.STREAM` | recovering messages with unreadable headers |
//! | publish | `@tries.STREAM.CONSUMER.*`, `$JS.API.STREAM.MSG.GET.STREAM@tries`, `$JS.API.STREAM.MSG.DELETE.STREAM@tries` | counting attempts over processes, and noting trials |
//! | publish | `$JS.API.STREAM.CREATE.STREAM@tries` | creating the place for them |
//! | publish | `$JS.API.STREAM.PURGE.STREAM@tries` | moving a group |
//! | publish | `$JS.API.CONSUMER.DELETE.STREAM.CONSUMER` | ending a reader without a group; moving a group |
//! | publish | `$JS.API.CONSUMER.RESET.STREAM.CONSUMER` | moving a group |
//!
//! | existing object | settings it needs |
//! |---|---|
//! | stream | no `no_ack` |
//! | stream, for delayed messages | `allow_msg_schedules`, the subject `@delayed.TOPIC.>`, a retention other than `interest`, and `allow_msg_ttl` if messages are to be kept longer than `max_age` |
//! | consumer | pull, explicit acknowledgement, not `headers_only`, no `max_deliver` below 100, and the topic's subject as its filter, unless the stream takes no other subject |
//! | stream `STREAM@tries`, with `topology=check` | the subject `@tries.STREAM.>`, and `max_msgs_per_subject` 1 |
//!
//! A consumer with `max_deliver` drops a message without a word after so many hand-outs, also those
//! of messages that were only fetched ahead. Leave it out and limit attempts by
//! [`Retry`](crate::Retry); the last hand-out is logged as a warning.

mod builder;
mod config;
mod connection;
mod consume;
mod driver;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod headers;
mod publish;
mod topology;

use crate::names::attribute;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::driver::capability::Capabilities;
use crate::driver::{BrokerUrl, Identity};
use crate::error::Result;

use config::Config;
use connection::dial::{Dial, Notices, Queues};
use connection::link::Link;
use consume::Sessions;
use consume::attempts::AllAttempts;
use publish::delay::Oddities;
use publish::shared::SharedStreams;

pub use builder::NatsBuilder;
pub use config::{Acknowledge, Mode, Storage};
pub use headers::header_names::HeaderNames;

/// The bounds of the connection that publishes and acknowledges. Publishes in flight and bursts of
/// settlements wait to be written; incoming answers are bounded by the requests.
const QUEUES: Queues = Queues { outgoing: 65_536, incoming: 65_536 };

/// A connection to NATS; see the [module](self).
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::adapters::nats::Nats;
/// use traced_broker::{BrokerUrl, Message, Traced, TracedBroker};
///
/// let url = BrokerUrl::parse("nats://localhost:4222?ack=confirm")?;
/// let broker = Traced::new(Nats::connect(&url).await?);
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
/// println!("server {}", broker.get_ref().as_client().server_info().version);
/// # Ok(()) }
/// ```
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// # use traced_broker::{BrokerUrl, ErrorKind, adapters::nats::Nats};
/// let error = Nats::connect(&BrokerUrl::parse("nats://localhost/path")?).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig); // A NATS URL has no path.
/// # Ok(()) }
/// ```
pub struct Nats {
    identity: Identity,
    capabilities: Capabilities,
    config: Arc<Config>,
    dial: Dial,
    link: Arc<Link>,
    closed: CancellationToken,
    sessions: Arc<Sessions>,
    attempts: Arc<AllAttempts>,
    oddities: Oddities,
    shared: SharedStreams,
    /// The groups that were read from, as stream and consumer; closing waits for their
    /// acknowledgements.
    groups: Mutex<HashSet<(String, String)>>,
}

impl Nats {
    /// Connects to the servers of the URL.
    ///
    /// # Errors
    /// Those of [`NatsBuilder::connect`].
    pub async fn connect(url: &BrokerUrl) -> Result<Self> {
        NatsBuilder::from_url(url).connect().await
    }

    /// Returns a builder that starts from this URL and has further options.
    pub fn builder(url: impl AsRef<str>) -> NatsBuilder {
        NatsBuilder::new(url.as_ref())
    }

    /// Returns a builder that uses your connected client for everything. The options about servers,
    /// credentials, TLS and inboxes have no effect.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use traced_broker::Traced;
    /// use traced_broker::adapters::nats::Nats;
    ///
    /// let client = async_nats::connect("nats://localhost:4222").await?;
    /// let broker = Traced::new(Nats::from_client(client).replicas(3).connect().await?);
    /// # Ok(()) }
    /// ```
    pub fn from_client(client: async_nats::Client) -> NatsBuilder {
        NatsBuilder::from_client(client)
    }

    /// Returns the client that publishes and acknowledges. Subscriptions have their own clients.
    pub fn as_client(&self) -> &async_nats::Client {
        self.link.client()
    }

    async fn open(config: Config) -> Result<Self> {
        let dial = Dial::new(Arc::new(config.clone()))?;
        Self::over(config, dial).await
    }

    async fn over(mut config: Config, dial: Dial) -> Result<Self> {
        let (notices, info) = (Arc::<Notices>::default(), (config.mode == Mode::JetStream).then(connection::api::info));
        let client = dial.client(QUEUES, &notices).await?;
        let patience = (config.confirm_timeout, config.election_wait);
        let link = Arc::new(Link::over(client, notices, patience, dial.background(), info).await?);
        publish::election::start(&link);
        if config.mode == Mode::JetStream {
            config.level = connection::api::level(&link).await?;
        }
        let mut identity = Identity::new("nats");
        let info = link.client().server_info();
        if let Some((host, port)) = config.connected_host(&info.host, info.port) {
            identity = identity.with_server(host, *port);
        }
        Ok(Self {
            identity: identity.with_send_attributes(None, Some(attribute::NATS_STREAM_SEQUENCE)),
            capabilities: connection::capabilities::capabilities(
                config.mode,
                config.acknowledge,
                config.level,
                link.client().max_payload(),
            ),
            config: Arc::new(config),
            dial,
            link,
            closed: CancellationToken::new(),
            sessions: Arc::default(),
            attempts: Arc::default(),
            oddities: Oddities::default(),
            shared: SharedStreams::default(),
            groups: Mutex::default(),
        })
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("config", &self.config).field("link", &self.link).finish_non_exhaustive()
    }
}
