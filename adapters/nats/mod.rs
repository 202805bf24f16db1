//! NATS through the crate `async-nats`: JetStream, where messages are stored and confirmed, and core NATS, where they are not.
//!
//! # URLs
//! `nats://host:4222`, several hosts separated by commas, `nats://user:password@host`, or `nats://token@host`. There is no path.
//! The builder also takes an nkey, a `.creds` file and a client certificate.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `mode` | `jetstream`, or `core` | `jetstream` |
//! | `topology` | `create` missing streams and groups, or only `check` | `create` |
//! | `ack` | `send` settlements and go on, or `confirm` each by an answer | `send` |
//! | `ack_wait` | milliseconds until the server hands out again what a consumer that vanished left unsettled, at least 100 | 10000 |
//! | `connect_timeout` | milliseconds for connecting, all servers together | 10000 |
//! | `confirm_timeout` | milliseconds for the answer to a publish, settlement or request | 10000 |
//! | `replicas` | servers that keep a stream that is created, 1 to 5 | 1 |
//! | `max_age` | milliseconds a stream that is created keeps messages, 0 for ever | 0 |
//! | `header_names` | names of headers `exact`, as they are given, or `canonical`, as Go's HTTP headers are (`Traceparent`) | `exact` |
//! | `tls` | `true` refuses connections without TLS; else the server decides | `false` |
//! | `tls_ca` | a PEM file of certificate authorities to trust | the system's |
//!
//! # Delivery semantics
//! **Names.** A topic is a subject of the same name. The stream that takes the subject is used if there is one; else one is created,
//! named after the topic with `~` for each dot, kept in files, without limits but `max_age`. It grows until something is set:
//! `max_age` here, or limits at the server. A dot that would leave a part of the subject empty (`a..b`, `.a`) is
//! written `~` there too. A group is a durable pull consumer named after the group, again with `~` for each dot; in a
//! stream of several topics a group name serves one of them. A subscription without a group has a consumer of its own, deleted when
//! it ends, or by the server after a minute without it; of a stream that is a work queue, where it would take messages from the groups, it
//! is [`Unsupported`](crate::ErrorKind::Unsupported). What exists already keeps its configuration if it can be used at all; a
//! consumer of your own needs the topic's subject as its filter, unless the stream takes nothing else.
//!
//! **Confirmed** means that the server has written the message to its file: it survives the server's being killed. A
//! power failure needs `sync_interval: always` at the server, or replicas. A lost connection or a time-out leaves the outcome
//! unknown; while the connection is down, publishing fails at once and nothing is sent. The message id is `Nats-Msg-Id`:
//! within two minutes, unless the stream says otherwise, the same id is stored once and confirmed as often as it is sent.
//!
//! **Consumed** at least once. Retries are the server's, also delayed; later messages pass a delayed one. The attempt is the server's
//! count, the latest of which a server that is killed forgets: it writes them a moment after it has delivered. The timestamp is the
//! server's. The offset is the place in the stream. The order is that of the stream for one member; members share, so that a group of
//! several keeps none. While this process lives it asks for more time for what is out, so that `ack_wait` is no limit for handlers.
//!
//! Each subscription has a connection of its own; publishing and settling share another. When that of a subscription
//! is lost, handles of its deliveries report that the settlement is lost, their messages go back at once, and the subscription
//! continues by itself. What was on the wire at that moment comes again after `ack_wait`. With `ack=send` a settlement that is
//! on its way when the connection breaks is lost too, and the message comes again; closing waits until the server has worked off all
//! of them. A server that is killed forgets about the last tenth of a second of settlements, even confirmed ones.
//!
//! **Positions.** New groups and readers begin at the earliest message, at the latest, at a time (of storage, by the server's clock; one
//! that is yet to come is now) or at an offset (of a message or after the last). A group is moved in one step by server 2.14 and
//! later: its members go on from there, wherever they are. What was out or fetched in this process is dropped and its handles
//! are stale; members in other processes first hand out what they have fetched, at most their prefetch, and settling that
//! does no harm. Where that step is not to be had (older servers, and any place before the one where the group was created, unless that
//! was the earliest) the consumer is deleted and created again. That fails as a conflict, and changes nothing, while
//! members in other processes wait for messages; if this process is killed between the two steps, the group is gone, and begins anew.
//!
//! **Delays** are kept by server 2.12 and later as message schedules, in the stream of the topic under a subject of their own below
//! `@delayed.TOPIC.` (the topic with `~` for each dot), to which streams that are created here have a place. What is confirmed
//! is kept as any message is, and longer than `max_age`; limits on size and number apply to it. The server publishes it when it is due, at the
//! earliest, and up to a quarter of a second later; only then does it have an offset, and a timestamp, of its own. Its id guards against
//! duplicates when it is sent, not when it is due. A server that is killed just then may publish it twice. A stream that exists needs
//! `allow_msg_schedules`, the subject `@delayed.TOPIC.>`, a retention other than `interest`, and `allow_msg_ttl` if messages
//! are to be kept longer than `max_age`; else delayed publishes fail as a conflict, as found when the topic is first used.
//!
//! **Core NATS** confirms nothing and keeps nothing: a publish ends with an unconfirmed receipt, a subscription has to be
//! `at_most_once()`, a group is a queue group, there is no retry, no delay, no timestamp, no backlog and no position. Messages that are not read in time
//! are lost, and reported as an error item.
//!
//! **Bounds.** At most 1024 publishes are in flight. A subscription never has more asked for and unsettled together than its
//! prefetch, and its client's queue holds that and 1024 notices of the server. 65,536 messages and settlements may wait to be
//! written on the shared connection; what comes on top is refused as busy. The server remembers at most 65,536 unsettled messages of
//! a group that is created here. A core subscription holds 65,536 unread messages.
//!
//! # Headers
//! Names are visible ASCII without a colon; values are UTF-8 without line breaks, and without white space at either end, since readers
//! remove it. Anything else is refused when publishing. Values of one name keep their order; the client does
//! not keep that of different names. All headers of a message together are limited to 64 KiB by JetStream.
//!
//! NATS tells upper from lower case in names. Here they are found in any; of other readers some, above all those in Go that use HTTP's
//! header type, know one spelling only, which `header_names=canonical` writes.
//!
//! A key travels in `message-key` when it is text that a header can hold, else in base64 in `message-key-base64`. The id of a delayed
//! message travels in `delayed-message-id`, for the server removes `Nats-Msg-Id` when it is due. These three, and all names that begin
//! with `Nats-`, which are orders to the server, are refused from users and not shown among the headers of a received message.
//!
//! Foreign producers may write header blocks that break the rules. The client gives up its connection over one it cannot read,
//! and the server would deliver it again and again. So after the loss of a connection the unsettled messages of the consumer are read
//! as JSON, up to 50,000 from each end, and those that the client cannot read are delivered from there: with the headers that can be
//! read, values as bytes, and the rest counted. They are retried from memory, and their attempt is counted by the session.
//! For a while after one, messages are asked for one by one. Members of a group that lose their connections together may each
//! deliver such a message.
//!
//! What remains: handles from before such a loss are stale, as after any; with a carriage return inside a value the
//! client's task ends by a panic, whose message is printed, and is replaced, which needs a program that unwinds on panic; core NATS
//! loses the message.
//!
//! # Escape hatch
//! [`Nats::as_client`] is the client that publishes and settles; [`Nats::from_client`] uses one of your own for everything. It
//! then also reads, so that a header block it cannot read breaks publishing too, and if its task ends, nothing replaces it.

mod abilities;
mod api;
mod config;
mod consume;
mod core;
mod delay;
mod dial;
mod error;
mod header_names;
mod headers;
mod link;
mod moment;
mod names;
mod position;
mod publish;
mod quarantine;
mod reader;
mod replies;
mod session;
mod state;
mod tokens;
mod topology;
mod window;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::address::{Guarantee, Start, Subscription, Topic};
use crate::broker_url::BrokerUrl;
use crate::capability::{Capabilities, REPOSITIONING, unsupported};
use crate::driver::{Confirmation, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

use config::Config;
use consume::{Deliveries, Sessions};
use delay::Oddities;
use dial::{Dial, Notices, Queues};
use link::Link;
use reader::Reader;

pub use config::{Acknowledge, Mode, NatsBuilder};
pub use header_names::HeaderNames;
pub use headers::{DELAYED_ID, KEY, KEY_BASE64};

/// What may wait to be written on the connection that publishes and acknowledges: the publishes in flight, and
/// settlements in a burst. Answers on the way in are bounded by what was asked.
const QUEUES: Queues = Queues { outgoing: 65_536, incoming: 65_536 };

/// A connection to NATS; see the [module](self).
pub struct Nats {
    identity: Identity,
    capabilities: Capabilities,
    config: Arc<Config>,
    dial: Dial,
    link: Arc<Link>,
    closed: CancellationToken,
    sessions: Arc<Sessions>,
    oddities: Oddities,
    /// The groups that were read from, as stream and consumer: their acknowledgements are brought home at the end.
    groups: Mutex<HashSet<(String, String)>>,
}

impl Nats {
    /// Connects to the servers of the URL.
    ///
    /// # Errors
    /// As [`NatsBuilder::connect`].
    pub async fn connect(url: &BrokerUrl) -> Result<Self> {
        NatsBuilder::from_url(url).connect().await
    }

    /// Options beyond those of the URL.
    pub fn builder(url: impl AsRef<str>) -> NatsBuilder {
        NatsBuilder::new(url.as_ref())
    }

    /// Uses a client that is connected already, for everything; options are those of a URL without any, but for `mode`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when its server has no JetStream and `mode` is not [`Mode::Core`], and what the
    /// connection reports.
    pub async fn from_client(client: async_nats::Client, mode: Mode) -> Result<Self> {
        let info = client.server_info();
        let config = Config { mode, ..Config::read(&BrokerUrl::parse("nats://")?)? };
        let config = Config { hosts: vec![(info.host, info.port)], ..config };
        Self::over(config, Dial::Given(client)).await
    }

    /// The client that publishes and acknowledges. Subscriptions have clients of their own.
    pub fn as_client(&self) -> &async_nats::Client {
        self.link.client()
    }

    async fn open(config: Config) -> Result<Self> {
        let dial = Dial::New(Arc::new(config.clone()));
        Self::over(config, dial).await
    }

    async fn over(mut config: Config, dial: Dial) -> Result<Self> {
        let notices = Arc::new(Notices::default());
        let client = dial.client(QUEUES, &notices).await?;
        let link = Link::over(client, notices, config.confirm_timeout).await?;
        if config.mode == Mode::JetStream {
            config.level = api::level(&link).await?;
        }
        let mut identity = Identity::new("nats");
        if let Some((host, port)) = config.hosts.first() {
            identity = identity.with_server(host, *port);
        }
        Ok(Self {
            identity: identity.with_send_attributes(None, Some("messaging.nats.message.stream_sequence")),
            capabilities: abilities::capabilities(config.mode, config.level, link.client().max_payload()),
            config: Arc::new(config),
            dial,
            link: Arc::new(link),
            closed: CancellationToken::new(),
            sessions: Arc::default(),
            oddities: Oddities::default(),
            groups: Mutex::default(),
        })
    }

    fn keep(&self, topic: &Topic, message: Outbound, time: SystemTime) -> Confirmation<Receipt> {
        if !self.capabilities.delayed_publish {
            return Confirmation::ready(Err(Error::new(ErrorKind::Unsupported, delay::UNSUPPORTED)));
        }
        match self.oddities.schedule(topic, time) {
            Ok(schedule) => publish::kept(&self.link, topic, message, &schedule),
            Err(error) => Confirmation::ready(Err(error)),
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() { Err(error::closed()) } else { Ok(()) }
    }

    async fn read(&self, subscription: &Subscription) -> Result<Source> {
        let reader = Reader::new(Arc::clone(&self.config), self.dial.clone(), Arc::clone(&self.link), subscription);
        let session = reader.open().await?;
        let consumer = (session.consumer.stream.clone(), session.consumer.name.clone());
        let destination = Destination::new()
            .with_attribute("messaging.nats.stream", consumer.0.as_str())
            .with_attribute("messaging.nats.consumer", consumer.1.as_str());
        if subscription.group_name().is_some() {
            self.groups.lock().insert(consumer);
        }
        let sessions = Arc::clone(&self.sessions);
        Ok(Source::new(destination, Deliveries::new(Arc::new(reader), session, sessions, &self.closed)))
    }

    async fn listen(&self, subscription: &Subscription) -> Result<Source> {
        if subscription.guarantee() != Guarantee::AtMostOnce {
            let message =
                "core NATS forgets a message once it is handed out: subscribe at_most_once(), or use JetStream";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        // What a group begins at unless it is told cannot be told from what it is told; nothing lies before it here.
        let is_now = match subscription.start_position() {
            Start::Earliest => subscription.group_name().is_some(),
            start => start == Start::Latest,
        };
        if !is_now {
            let message = "core NATS keeps no messages to start from: start at the latest, or use JetStream";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let subject = names::subject(subscription.topic());
        let group = subscription.group_name().map(str::to_owned);
        let closed = self.closed.clone();
        let listener = core::Listener::open(&self.config, &self.dial, subject, group, closed).await?;
        Ok(Source::new(Destination::new(), listener.into_stream()))
    }

    /// Brings everything home that was only sent on its way.
    async fn bring_home(&self) -> Result<()> {
        self.link.round_trip().await?;
        let groups: Vec<_> = self.groups.lock().drain().collect();
        for (stream, consumer) in groups {
            // The server works off what it is told of a consumer in order. Asking for more time for a message that is not
            // out changes nothing, but the answer shows that all before it was done.
            let last = tokens::acknowledge(&stream, &consumer, u64::MAX);
            match self.link.confirm(last.into(), "+WPI".into()).await {
                // The consumer is gone, and with it what could be told it.
                Err(error) if error.kind() == ErrorKind::SettlementLost => {}
                answered => answered?,
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Driver for Nats {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.check_open()?;
        match self.config.mode {
            Mode::Core => Ok(Destination::new()),
            Mode::JetStream => {
                let stream = topology::stream(&self.link, &self.config, topic).await?;
                if self.capabilities.delayed_publish {
                    self.oddities.learn(&self.link, topic, &stream).await?;
                }
                Ok(Destination::new().with_attribute("messaging.nats.stream", stream.config.name.as_str()))
            }
        }
    }

    fn publish(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        if let Err(error) = self.check_open() {
            return Confirmation::ready(Err(error));
        }
        let message = self.config.header_names.spell(message);
        match (self.config.mode, message.deliver_at) {
            (Mode::JetStream, None) => publish::stored(&self.link, topic, message),
            (Mode::Core, None) => publish::unconfirmed(&self.link, topic, message),
            (_, Some(time)) => self.keep(topic, message, time),
        }
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        self.check_open()?;
        match self.config.mode {
            Mode::JetStream => self.read(subscription).await,
            Mode::Core => self.listen(subscription).await,
        }
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        self.check_open()?;
        match (self.config.mode, subscription.group_name().map(names::object)) {
            (Mode::JetStream, Some(group)) => {
                let (sessions, topic) = (&self.sessions, subscription.topic());
                position::set(&self.link, &self.config, sessions, topic, &group, start).await
            }
            _ => Err(unsupported("move the position of a group", REPOSITIONING)),
        }
    }

    async fn ping(&self) -> Result<()> {
        self.check_open()?;
        self.link.round_trip().await
    }

    async fn close(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Ok(());
        }
        self.closed.cancel();
        let sessions = self.sessions.take_all();
        join_all(sessions.iter().map(|session| session.leave())).await;
        for session in &sessions {
            session.end();
        }
        join_all(sessions.iter().map(|session| session.arrive())).await;
        self.bring_home().await
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("config", &self.config).field("link", &self.link).finish_non_exhaustive()
    }
}
