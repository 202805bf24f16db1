//! RabbitMQ 3.10 or later, over AMQP 0-9-1.
//!
//! # URLs
//! `amqp://user:password@host:5672/vhost`. Several hosts of one cluster are tried in their order:
//! `amqp://rabbit-1,rabbit-2/shop`. Without a user it is `guest` with password `guest`, without a path the virtual host `/`
//! (which may also be written `/%2F`).
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `topology` | `create` missing exchanges and queues, or only `check` | `create` |
//! | `unroutable` | a message that no queue takes is confirmed and dropped by the broker (`drop`), or its publish fails with `Rejected` (`reject`) | `drop` |
//! | `routing_key` | `none`, or the message's `key` | `none` |
//! | `max_in_flight` | publishes that may be unconfirmed at a time | 1024 |
//! | `max_payload` | the largest payload in bytes, the server's `max_message_size` | 16777216 |
//! | `connect_timeout` | milliseconds for one attempt at one host, and for one request to the broker | 10000 |
//! | `heartbeat` | seconds; after twice that without a sign of life the connection is given up | 10 |
//! | `name` | what the connections are called on the management pages | `traced-broker` |
//!
//! [`Amqp::builder`] has the same, and takes credentials that are not to be part of a URL. TLS is not built in: `amqps://` is
//! refused, never taken for `amqp://`.
//!
//! # Delivery semantics
//! | here | in RabbitMQ |
//! |---|---|
//! | topic `orders` | durable topic exchange `orders` |
//! | group `billing` on it | durable quorum queue `orders.billing`, bound with `#`, with no limit of deliveries |
//! | no group | a queue of the connection's own, exclusive and gone with it |
//! | dead-letter topic `orders.dead` of a subscription | exchange `orders.dead`, and its group `parked`: queue `orders.dead.parked` |
//! | what waits for its time | durable quorum queues `traced-broker.delay.16ms` and so on, shared by all topics of the virtual host |
//!
//! **Confirms.** Messages are persistent, and a publish ends with the broker's confirm: every queue that takes the message has it on the
//! disks of a majority of its replicas, and it survives the death of the server. A queue itself is registered on disk within
//! some seconds of its creation. A publish whose connection ends before the confirm fails with an unknown outcome, one without a
//! connection fails at once, certainly not sent, and may be tried again. An alarm of the broker (memory, disk) holds back
//! confirms until it is over, and so new publishes once `max_in_flight` are waiting.
//!
//! **A topic that nobody has subscribed to** keeps nothing: RabbitMQ has queues, not logs, so a message goes to the queues that exist when
//! it is published. With `unroutable=drop` such a publish is confirmed, because that is what publish and subscribe means:
//! an event that interests nobody is no failure of its sender, and the same program runs unchanged over the other brokers, which confirm
//! it too (and, having logs, keep it). Whoever publishes work that must not vanish creates the group first, or says
//! `unroutable=reject`, and then the publish fails with [`ErrorKind::Rejected`], certainly not sent. Rejected messages of a
//! subscription never vanish so: its dead-letter topic always has the group `parked`, to be read like any other group,
//! or emptied by an operator. It is not emptied by other groups of that topic.
//!
//! **Groups.** Members share the queue; every group has its own. A new group gets what is published from its creation on
//! ([`Capabilities::backlog`] is false), and keeps it while no member is there. A reader without a group misses what is
//! published while its connection is down; asking it to start at the earliest message is [`ErrorKind::Unsupported`].
//! Order is that of the queue, as long as one member reads it and nothing is retried or delayed. There are no positions in a queue:
//! to start at a time or an offset, and to move a group, is [`ErrorKind::Unsupported`].
//!
//! **Settlement.** Acknowledgements are gathered for up to two milliseconds, or up to half the prefetch, and brought to the broker in one.
//! RabbitMQ does not confirm them: when the connection ends first, the message comes again. [`close`](Driver::close) proves by a round
//! trip that they arrived. A retry without a delay gives the message back to the queue, which delivers it again at once; the attempt is
//! the queue's own count, kept over restarts. (A reader without a group counts 1, then 2.) A discarded message is gone, or goes where a
//! policy of the broker says. Not acknowledged for longer than the server's `consumer_timeout` (30 minutes), the channel ends and its
//! messages come again. At most once, a message is acknowledged as it is handed out, and comes again only when that
//! acknowledgement is lost with the connection.
//!
//! **Delayed messages and delayed retries** wait at the broker, and survive the end of this program and of the server. A queue lets go of
//! messages at its head only, so a delay is made up of waits, each in a queue where all wait equally long: written in steps of 16
//! milliseconds as seven hexadecimal digits, the largest first, one queue for each digit that is not zero. They are made when first
//! needed and never deleted, at most 105 per virtual host, with exchanges `traced-broker.delay.0` to `.6` and `.out` that lead from one
//! to the next by the headers `delay-0` to `delay-6`. A message is never early. It is late by up to 16 milliseconds of rounding and some
//! milliseconds for each queue, together 10 to 40 on a server with time to spare; and by as long as the server is down when a wait
//! ends. What a server that dies was just handing on from one queue to the next may take three minutes more: it repeats what the next queue
//! has not confirmed after that time (`dead_letter_worker_publisher_confirm_timeout` of the application `rabbit`, in milliseconds, is
//! 180000 unless its advanced configuration says otherwise). The longest delay is 49 days and 17 hours, a longer one
//! [`ErrorKind::InvalidMessage`].
//!
//! - A *delayed message* is confirmed once the first queue has it. At its time it goes to the topic's exchange as if it were published then,
//!   for the groups and readers there are then, with that time as its time of publishing. If nobody has subscribed by then, or the
//!   topic is deleted meanwhile, it is dropped, whatever `unroutable` says.
//! - A *delayed retry* puts a copy of the message where it waits, and acknowledges the message once the copy is confirmed: if anything
//!   dies in between, or settling fails with [`ErrorKind::SettlementLost`], the message comes twice, never not at all. The copy goes to
//!   the end of this group's queue and to no other. Attempts are counted on, over retries of both kinds. It keeps all
//!   headers and properties but `CC`, `expiration`, `user-id`, what the broker had added, names that are not UTF-8, and what lies deeper than 16
//!   tables in each other. Until the copy is confirmed, in an alarm of the broker too, the message counts as unsettled. If it cannot be
//!   stored, settling fails with the reason, and the message is given back to its queue a second later at most.
//! - A *reader without a group* keeps the message unsettled for the delay, since its queue goes with the connection anyway.
//!
//! The queues hand messages on at least once, for which a server that was upgraded from before 3.9 has to have the feature flag
//! `stream_queue` enabled. A message for a group that is deleted meanwhile is kept in the queue `traced-broker.delay.lost`; look there and
//! empty it. (`traced-broker.delay.nothing` takes a copy of what goes to topics and keeps none, so that there always is a queue to
//! confirm.) A group that refuses messages, as by a policy with a length limit and `reject-publish`, holds up what waits in the
//! same queue for others. With `topology=check` the exchanges and the queues that a delay needs have to be there, or it is
//! [`ErrorKind::NotFound`] with the name of what is missing; their bindings cannot be checked, nor can that of `.out` to the topic or
//! queue, without which messages end in the queue for what is lost. A program that runs once with `topology=create` makes
//! them. The user of the virtual host needs all three permissions on names that begin with `traced-broker.delay.`.
//!
//! **Loss of the connection.** Publishing and consuming have a connection each, so that neither holds back the other; both are
//! restored with growing pauses of up to three seconds, without end. Subscriptions go on by themselves, with exchange and queue
//! declared again, and what was unsettled comes again. Old deliveries are [`ErrorKind::SettlementLost`] and touch nothing of the new connection.
//!
//! **Bounds.** Unconfirmed messages: `max_in_flight`, copied once into the client's buffers, and copies for delayed retries: the
//! prefetches of the subscriptions. Fetched messages: the subscription's
//! prefetch. Four buffers of 4 MiB per driver for frames, and one per connection for what was read, at most 1 MiB and a little.
//!
//! # Headers
//! | here | in AMQP |
//! |---|---|
//! | header | entry of the header table; a long string if it is UTF-8, else a byte array |
//! | several headers of one name | one entry, an array |
//! | `content-type`, `content-encoding`, `correlation-id` | the property of that name |
//! | key | entry `message-key`, or the routing key with `routing_key=key` |
//! | id | property `message-id` |
//! | time of publishing | entry `timestamp_in_ms` and, in seconds, property `timestamp` |
//!
//! Names have at most 255 bytes, and all of a message's properties fit one frame less 64 bytes: 131,008 bytes unless the server
//! allows less. Of a delayed message they have 4096 bytes less, of one that is retried with a delay 6464. The names `CC` and `BCC` are
//! refused, since the broker takes them for routing keys. The entries `message-key`, `timestamp_in_ms`, `x-delivery-count`,
//! `publish-number`, `delay-0` to `delay-6`, `delayed-for` and `prior-attempts` are this adapter's or the broker's own: headers of
//! these names are not sent, and those of a message that waited are not seen, nor is what the broker tells of its waits (`x-death` and
//! the like). A table has no order that lasts: headers of different names may come in another.
//!
//! What others published is read as it is: byte arrays and long strings as their bytes, numbers, truth values and times (seconds) as text,
//! an array of such as several headers, nothing as empty. Tables, and names that are not UTF-8, are counted as unreadable.
//! Bytes of properties and routing keys that are not UTF-8 are read as question marks. No message, whatever its headers hold, ends a
//! connection: every frame is checked before the client parses it, and header tables are handed past the client's parser
//! to one of our own, which does not descend into nested values. Of properties larger than a frame, the largest entries are left
//! out.
//!
//! # Escape hatch
//! [`Amqp::as_client`] gives the client's connection that publishes, for exchanges, bindings and policies of one's own.
//! Channels opened on it are checked like ours: a message consumed over it has its whole header table in one byte array, under the
//! empty name. There is no `from_client`: a connection made elsewhere would go unchecked, and could not be restored.

mod bytes;
mod config;
mod connection;
mod consume;
mod content_header;
mod copy;
mod delay;
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
mod retry;
mod returned;
mod settle;
mod stream;
mod table;
mod topology;
mod waiting;

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
            identity: Identity::new("rabbitmq")
                .with_server(host, *port)
                .with_client_id(&settings.name)
                .with_max_in_flight(settings.max_in_flight),
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
        retry: Retry::NativeDelayed,
        native_key: false,
        timestamp: Some(TimestampSource::Producer),
        tombstones: false,
        delayed_publish: true,
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
        self.capabilities.check_start(subscription.start_position())?;
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
            publisher: Arc::clone(&self.publisher),
            settlers: Arc::clone(&self.settlers),
            subscription: subscription.clone(),
            _life: Arc::clone(&self.life),
        });
        let reading = plan.start(live).await?;
        Ok(Source::new(destination(subscription), Deliveries::new(plan, reading)))
    }

    async fn reposition(&self, _subscription: &Subscription, _start: Start) -> Result<()> {
        Err(crate::capability::unsupported("move the position of a group", crate::capability::REPOSITIONING))
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
