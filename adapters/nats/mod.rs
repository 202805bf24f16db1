//! NATS, through async-nats: JetStream, which stores messages, or core NATS, which does not.
//!
//! # URLs
//! `nats://[user:password@]host[:4222][,host…]`; a user without a password is a token. `?mode=core` chooses core NATS.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `mode` | `jetstream` or `core` | `jetstream` |
//! | `topology` | `create` missing streams and consumers, or only `check` | `create` |
//! | `ack` | a delivery counts as settled on `send`, or on `confirm` by the server | `send` |
//! | `ack_wait` | ms after which what a vanished consumer left unsettled is handed out again, at least 100 | 10000 |
//! | `connect_timeout`, `confirm_timeout` | ms for connecting, and for an answer to a publish | 10000 |
//! | `replicas` | servers that keep a created stream, 1 to 5 | 1 |
//! | `max_age` | ms for which a created stream keeps messages, 0 for ever | 0 |
//! | `tls`, `tls_ca` | `true` to insist on TLS; a file of trusted authorities | `false` |
//!
//! [`Nats::builder`] takes the same, and credentials files, keys and client certificates.
//!
//! # Delivery semantics
//! **JetStream.** A topic is a subject; a stream that takes it is used as it is, else one is made: named as the topic with `~`
//! for each dot, on file, kept by limits. A confirmed message is stored by the server: it survives the server's death by
//! SIGKILL, and a loss of power only with replicas or a server set to `sync_interval: always`. No answer in time is an unknown
//! outcome; publishing again with the same message id within the stream's window of duplicates stores it once.
//!
//! A group is a durable pull consumer of that name, dots as `~`; a new one starts at the oldest message. Members share. Without
//! a group, a reader has an ephemeral consumer of its own. Retries, their delays and the attempt are the server's; the timestamp is
//! when it stored the message. While a delivery is unsettled, this process asks the server for more time, so that a handler
//! may be slow. By default an acknowledgement that is sent when the connection breaks may be lost, and the message comes
//! again; `ack=confirm` waits for the server. Closing waits until the server has them all. Settling after a reconnection fails
//! with `SettlementLost`.
//!
//! **Core.** Nothing is stored and nothing confirmed: a receipt says so, and its outcome is unknown. A group is a queue group;
//! whoever listens hears a message once or not at all, so that a subscription has to be `at_most_once()`. A listener that is too
//! slow loses what comes beyond 65,536 waiting messages, which the stream reports as an error.
//!
//! # Headers
//! Names are visible ASCII without a colon, values text without line breaks; anything else is refused before it is sent, as are
//! names that begin with `Nats-`, which are orders to the server. The message id is `Nats-Msg-Id`. The key is the header
//! `message-key`, or in base64 `message-key-base64` where it is not such text. A foreign header block that breaks the rules is
//! read apart from the client, which cannot: with JetStream the message is delivered with the headers that can be read, the
//! others counted; with core NATS that message is lost, and the connection restored.
//!
//! # Escape hatch
//! [`Nats::from_client`] works over a client of your own, [`Nats::as_client`] gives the one that publishes.

mod api;
mod config;
mod consume;
mod core;
mod dial;
mod error;
mod headers;
mod link;
mod names;
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

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::address::{Guarantee, Start, Subscription, Topic};
use crate::broker_url::BrokerUrl;
use crate::capability::{Attempts, Capabilities, Confirm, HeaderValues, Order, Retry, TimestampSource};
use crate::driver::{Confirmation, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

use config::Config;
use consume::{Deliveries, Sessions};
use dial::{Dial, Notices, Queues};
use link::Link;
use reader::Reader;

pub use config::{Acknowledge, Mode, NatsBuilder};
pub use headers::{KEY, KEY_BASE64};

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

    async fn over(config: Config, dial: Dial) -> Result<Self> {
        let notices = Arc::new(Notices::default());
        let client = dial.client(QUEUES, &notices).await?;
        let link = Link::over(client, notices, config.confirm_timeout).await?;
        if config.mode == Mode::JetStream {
            api::check_enabled(&link).await?;
        }
        let mut identity = Identity::new("nats");
        if let Some((host, port)) = config.hosts.first() {
            identity = identity.with_server(host, *port);
        }
        Ok(Self {
            identity: identity.with_send_attributes(None, Some("messaging.nats.message.stream_sequence")),
            capabilities: capabilities(config.mode, link.client().max_payload()),
            config: Arc::new(config),
            dial,
            link: Arc::new(link),
            closed: CancellationToken::new(),
            sessions: Arc::default(),
            groups: Mutex::default(),
        })
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
        if subscription.group_name().is_none() && subscription.start_position() == Start::Earliest {
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
                Ok(Destination::new().with_attribute("messaging.nats.stream", stream.config.name.as_str()))
            }
        }
    }

    fn publish(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        if let Err(error) = self.check_open() {
            return Confirmation::ready(Err(error));
        }
        match self.config.mode {
            Mode::JetStream => publish::stored(&self.link, topic, message),
            Mode::Core => publish::unconfirmed(&self.link, topic, message),
        }
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        self.check_open()?;
        match self.config.mode {
            Mode::JetStream => self.read(subscription).await,
            Mode::Core => self.listen(subscription).await,
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
        for session in sessions {
            session.end();
        }
        self.bring_home().await
    }
}

fn capabilities(mode: Mode, max_payload: usize) -> Capabilities {
    let stored = Capabilities {
        confirm: Confirm::Broker,
        groups: true,
        at_least_once: true,
        backlog: true,
        retry: Retry::NativeDelayed,
        attempts: Attempts::Broker,
        order: Order::Stream,
        native_key: false,
        timestamp: Some(TimestampSource::Broker),
        header_values: HeaderValues::Text,
        tombstones: false,
        max_payload: Some(max_payload),
    };
    match mode {
        Mode::JetStream => stored,
        Mode::Core => Capabilities {
            confirm: Confirm::Never,
            at_least_once: false,
            backlog: false,
            retry: Retry::Unsupported,
            attempts: Attempts::Never,
            order: Order::Publisher,
            timestamp: None,
            ..stored
        },
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("config", &self.config).field("link", &self.link).finish_non_exhaustive()
    }
}
