//! The amqp adapter.

mod bytes;
mod config;
mod connection;
mod consume;
mod content_header;
mod error;
mod frames;
mod incoming;
mod inspect;
mod lane;
mod link;
mod names;
mod outgoing;
mod pending;
mod places;
mod publish;
mod refusals;
mod returned;
mod settle;
mod stream;
mod table;
mod topology;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::OnceCell;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use config::{AmqpBuilder, RoutingKey, Unroutable};

use crate::address::{Start, Subscription, Topic};
use crate::broker_url::BrokerUrl;
use crate::capability::{Capabilities, Confirm, Retry, TimestampSource};
use crate::driver::{Confirmation, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

use config::Settings;
use connection::Live;
use consume::{Deliveries, Plan, Settlers};
use error::During;
use link::Link;
use publish::Publisher;

/// RabbitMQ, connected; see the [module](self).
pub struct Amqp {
    identity: Identity,
    capabilities: Capabilities,
    settings: Arc<Settings>,
    publishing: Arc<Link>,
    publisher: Arc<Publisher>,
    /// Made by the first subscription.
    consuming: OnceCell<Arc<Link>>,
    settlers: Arc<Settlers>,
    closed: CancellationToken,
    life: Arc<DropGuard>,
}

impl Amqp {
    /// Connects to the first host of the URL that answers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an unknown or invalid option, [`ErrorKind::Unavailable`] when no host answers in time,
    /// [`ErrorKind::Unauthenticated`] when the user is refused, [`ErrorKind::NotFound`] when there is no such virtual host,
    /// [`ErrorKind::PermissionDenied`] when the user may not use it.
    pub async fn connect(url: &BrokerUrl) -> Result<Self> {
        Self::open(Settings::from_url(url)?).await
    }

    /// Connects with more options than a URL holds.
    pub fn builder(url: impl Into<String>) -> AmqpBuilder {
        AmqpBuilder::new(url.into())
    }

    async fn open(settings: Settings) -> Result<Self> {
        let settings = Arc::new(settings);
        let closed = CancellationToken::new();
        let life = Arc::new(closed.clone().drop_guard());
        let (publishing, host) = Link::open(&settings, "publish", &closed).await?;
        let publishing = Arc::new(publishing);
        let publisher = Publisher::start(&settings, Arc::clone(&publishing)).await?;
        let (host, port) = &settings.hosts[host];
        Ok(Self {
            identity: Identity::new("rabbitmq").with_server(host, *port).with_max_in_flight(settings.max_in_flight),
            capabilities: capabilities(settings.max_payload),
            publishing,
            publisher,
            consuming: OnceCell::new(),
            settlers: Arc::default(),
            closed,
            life,
            settings,
        })
    }

    /// The client's connection that publishes, if it is up; a later one takes its place when it is lost.
    pub fn as_client(&self) -> Option<Client> {
        self.publishing.current().ok().map(Client)
    }

    async fn consuming(&self) -> Result<Arc<Link>> {
        let open =
            || async { Link::open(&self.settings, "consume", &self.closed).await.map(|(link, _)| Arc::new(link)) };
        self.consuming.get_or_try_init(open).await.cloned()
    }
}

/// The client's connection, held open: a [`lapin::Connection`].
#[derive(Debug)]
pub struct Client(Arc<Live>);

impl std::ops::Deref for Client {
    type Target = lapin::Connection;

    fn deref(&self) -> &lapin::Connection {
        &self.0.connection
    }
}

fn capabilities(max_payload: usize) -> Capabilities {
    Capabilities {
        confirm: Confirm::Broker,
        backlog: false,
        retry: Retry::Native,
        native_key: false,
        timestamp: Some(TimestampSource::Producer),
        tombstones: false,
        max_payload: Some(max_payload),
        ..Capabilities::new()
    }
}

#[async_trait]
impl Driver for Amqp {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        let live = self.publishing.within(self.settings.connect_timeout).await?;
        let channel = live.channel(During::Declare).await?;
        topology::declare_topic(&live, &channel, topic, self.settings.topology).await?;
        Ok(Destination::new())
    }

    fn publish(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        self.publisher.publish(topic, message).unwrap_or_else(|error| Confirmation::ready(Err(error)))
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        if subscription.group_name().is_none() && subscription.start_position() == Start::Earliest {
            let message =
                "RabbitMQ keeps messages in the queues of groups: join a group, or start at the latest message";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let link = self.consuming().await?;
        let live = link.within(self.settings.connect_timeout).await?;
        let plan = Arc::new(Plan {
            settings: Arc::clone(&self.settings),
            link,
            settlers: Arc::clone(&self.settlers),
            subscription: subscription.clone(),
            _life: Arc::clone(&self.life),
        });
        let reading = plan.start(live).await?;
        Ok(Source::new(destination(subscription), Deliveries::new(plan, reading)))
    }

    async fn ping(&self) -> Result<()> {
        let live = self.publishing.current()?;
        live.channel(During::Declare).await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Ok(());
        }
        let unconfirmed = self.publisher.finish(self.settings.connect_timeout).await;
        let settlers = self.settlers.all();
        let settled = join_all(settlers.iter().map(|settler| settler.finish())).await;
        self.closed.cancel();
        let links = std::iter::once(&self.publishing).chain(self.consuming.get());
        join_all(links.map(|link| link.close())).await;
        std::iter::once(unconfirmed).chain(settled).collect()
    }
}

/// The conventions' name of what is consumed: exchange and queue, the routing key being empty or different per message.
fn destination(subscription: &Subscription) -> Destination {
    match subscription.group_name() {
        Some(group) => {
            let topic = subscription.topic();
            Destination::new().named(format!("{topic}:{topic}.{group}"))
        }
        None => Destination::new()
            .with_attribute("messaging.destination.anonymous", true)
            .with_attribute("messaging.destination.temporary", true),
    }
}

impl fmt::Debug for Amqp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp")
            .field("identity", &self.identity)
            .field("virtual_host", &self.settings.virtual_host)
            .finish_non_exhaustive()
    }
}
