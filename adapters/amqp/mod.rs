//! RabbitMQ 3.10 or later, over AMQP 0-9-1.
//!
//! # URLs
//! `amqp://user:password@host:5672/vhost`. Several hosts of one cluster are tried in their order:
//! `amqp://rabbit-1,rabbit-2/shop`. Without a user, the user is `guest` with password `guest`.
//! Without a path, the virtual host is `/`, which may also be written `/%2F`.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `topology` | `create` missing exchanges and queues, or only `check` that they exist | `create` |
//! | `unroutable` | a message that no queue takes is confirmed and dropped by the broker (`drop`), or its publish fails with `Rejected` (`reject`) | `drop` |
//! | `routing_key` | `none`, or the message's `key` | `none` |
//! | `max_in_flight` | maximum number of unconfirmed publishes | 1024 |
//! | `max_payload` | largest payload in bytes, the server's `max_message_size` | 16777216 |
//! | `connect_timeout` | time limit in milliseconds of one attempt at one host, and of one request to the broker | 10000 |
//! | `heartbeat` | interval in seconds; after twice that without a sign of life the connection is given up | 10 |
//! | `name` | name of the connections on the management pages | `traced-broker` |
//!
//! [`Amqp::builder`] offers the same options, and takes credentials that should not be part of a
//! URL. TLS is not built in: `amqps://` is refused and never treated as `amqp://`.
//!
//! # Delivery semantics
//! | here | in RabbitMQ |
//! |---|---|
//! | topic `orders` | durable topic exchange `orders` |
//! | group `billing` of that topic | durable quorum queue `orders.billing`, bound with `#`, without a limit of deliveries |
//! | no group | an exclusive queue of the connection, deleted with it |
//! | dead-letter topic `orders.dead` of a subscription | exchange `orders.dead`, and its group `parked`: queue `orders.dead.parked` |
//! | delayed messages and delayed retries | durable quorum queues `traced-broker.delay.16ms` and so on, shared by all topics of the virtual host |
//!
//! ## Confirms
//! Messages are persistent. A publish ends with the broker's confirm: every queue that takes the
//! message then has it on the disks of a majority of its replicas, and it survives the death of the
//! server. A queue itself is registered on disk within some seconds of its creation. A publish
//! whose connection ends before the confirm fails with an unknown outcome; a publish without a
//! connection fails at once, certainly not sent, and may be tried again. During an alarm of the
//! broker (memory, disk) confirms are held back, and new publishes too once `max_in_flight` are
//! unconfirmed.
//!
//! ## Topics without subscribers
//! RabbitMQ has queues, not logs: a message goes to the queues that exist when it is published, and
//! a topic without subscribers keeps no message. With `unroutable=drop` such a publish is
//! confirmed: an event without subscribers is not a failure of its sender, and the same program
//! runs unchanged on the other brokers, which confirm it too and, having logs, keep it. If messages
//! must not be lost, create the group first, or set `unroutable=reject`: the publish then fails
//! with [`ErrorKind::Rejected`], certainly not sent. Rejected messages of a subscription are never
//! lost in this way, because its dead-letter topic always has the group `parked`. Read it like any
//! other group, or empty it as an operator; other groups of that topic do not empty it.
//!
//! ## Groups
//! Members share the queue of their group; every group has its own. A new group receives the
//! messages published after its creation ([`Capabilities::backlog`] is false), and keeps them while
//! it has no members. A reader without a group misses the messages published while its connection
//! is down, and to start it at the earliest message is [`ErrorKind::Unsupported`]. Messages are
//! delivered in the order of the queue, as long as one member reads it and no message is retried or
//! delayed. A queue has no positions: to start at a time or an offset, and to move a group, is
//! [`ErrorKind::Unsupported`].
//!
//! ## Settlement
//! Acknowledgements are gathered for up to two milliseconds, or up to half the prefetch, and sent
//! in one frame. RabbitMQ does not confirm them: if the connection ends first, the message is
//! redelivered. [`close`](Driver::close) proves by a round trip that they arrived. If a message
//! stays unsettled for longer than the server's `consumer_timeout`, the channel ends and its
//! messages are redelivered. With the guarantee at most once, a message is acknowledged when it is
//! handed out, and redelivered only if that acknowledgement is lost with the connection.
//!
//! ## Retries and discards
//! A retry without a delay returns the message to the queue, which redelivers it at once. The
//! attempt is the queue's own count, kept over restarts; a reader without a group counts 1, then 2.
//! A reader without a group keeps a message unsettled for the delay of its retry, because its queue
//! ends with the connection anyway. A discarded message is dropped, or goes where a policy of the
//! broker says.
//!
//! ## Delays
//! Delayed messages and delayed retries of groups wait at the broker, and survive the end of this
//! program and of the server. A queue releases messages at its head only, so a delay is made up of
//! waits, each in a queue in which all messages wait equally long. It is written in steps of 16
//! milliseconds as seven hexadecimal digits; each digit that is not zero is one wait, the largest
//! first. Exchanges `traced-broker.delay.0` to `.6` and `.out` lead from one queue to the next by
//! the headers `delay-0` to `delay-6`. The queues are created at first use and never deleted.
//!
//! | limit | value |
//! |---|---|
//! | longest delay | 49 days and 17 hours; a longer one is [`ErrorKind::InvalidMessage`] |
//! | number of delay queues | at most 105 per virtual host |
//! | too early | never |
//! | too late | up to 16 ms of rounding and some milliseconds for each queue, together 10 to 40 ms on a server with time to spare |
//! | too late if the server is down when a wait ends | as long as it is down |
//! | too late if the server dies while it hands the message on to the next queue | up to three minutes more: it then repeats messages that the next queue has not confirmed |
//!
//! ## Delayed messages
//! A delayed message is confirmed once the first queue has it. When it is due, it goes to the
//! topic's exchange as if it were published then, for the groups and readers that exist then. Its
//! time of publishing is the time when it was due. If the topic has no subscriber by then, or was
//! deleted meanwhile, the message is dropped, whatever the value of `unroutable`.
//!
//! ## Delayed retries
//! A delayed retry publishes a copy of the message to the delay queues, and acknowledges the
//! message once the copy is confirmed. If a process dies in between, or settling fails with
//! [`ErrorKind::SettlementLost`], the message is delivered twice, but it is never lost. The copy
//! goes to the end of this group's queue and to no other queue, and attempts are counted on over
//! retries of both kinds. Until the copy is confirmed, during an alarm of the broker too, the
//! message counts as unsettled. If the copy cannot be stored, settling fails with the reason, and
//! the message is returned to its queue a second later at most.
//!
//! ## Headers of a retried message
//! The copy keeps all headers and properties except `CC`, `expiration`, `user-id`, headers that the
//! broker had added, names that are not UTF-8, and values nested deeper than 16 tables.
//!
//! ## Delay queues
//! The queues hand messages on at least once. A message for a group that was deleted meanwhile is
//! kept in the queue `traced-broker.delay.lost`; look there and empty it. The queue
//! `traced-broker.delay.nothing` takes a copy of each message for a topic and keeps none, so that
//! there always is a queue to confirm. A group that refuses messages, for example by a policy with
//! a length limit and `reject-publish`, holds up messages for other groups that wait in the same
//! queue.
//!
//! ## Reconnection
//! Publishing and consuming use a connection each, so that neither holds back the other. Both are
//! restored without end, with growing pauses of up to three seconds. Subscriptions continue by
//! themselves: exchange and queue are declared again, and unsettled messages are redelivered.
//! Settling an old delivery is [`ErrorKind::SettlementLost`] and does not affect the new
//! connection.
//!
//! ## Bounds
//! | in memory | bound |
//! |---|---|
//! | unconfirmed messages | `max_in_flight`, copied once into the client's buffers |
//! | copies for delayed retries | the prefetches of the subscriptions |
//! | fetched messages | the prefetch of the subscription |
//! | frames | four buffers of 4 MiB per driver |
//! | bytes read | one buffer per connection, at most 1 MiB and a little |
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
//! A table has no lasting order: headers of different names may arrive in another order.
//!
//! ## Limits
//! | limit | value |
//! |---|---|
//! | name | 255 bytes |
//! | all properties of a message | one frame less 64 bytes: 131,008 bytes unless the server allows less |
//! | all properties of a delayed message | 4096 bytes less |
//! | all properties of a message that is retried with a delay | 6464 bytes less |
//!
//! ## Reserved names
//! The names `CC` and `BCC` are refused, because the broker uses them as routing keys. The entries
//! `message-key`, `timestamp_in_ms`, `x-delivery-count`, `publish-number`, `delay-0` to `delay-6`,
//! `delayed-for` and `prior-attempts` belong to this adapter or the broker: headers of these names
//! are not sent. A message that has waited shows neither these headers nor those in which the
//! broker describes its waits, such as `x-death`.
//!
//! ## Messages of other publishers
//! | in AMQP | here |
//! |---|---|
//! | byte array, long string | its bytes |
//! | number, truth value, time (in seconds) | text |
//! | array of these | several headers |
//! | void | an empty value |
//! | table, name that is not UTF-8 | counted as unreadable |
//! | bytes of properties and routing keys that are not UTF-8 | question marks |
//!
//! No message ends a connection, whatever its headers contain: every frame is checked before the
//! client parses it. Header tables bypass the client's parser and are read by this adapter's own,
//! which does not descend into nested values. If the properties are larger than a frame, the
//! largest entries are left out.
//!
//! # Escape hatch
//! [`Amqp::as_client`] returns the client's connection that publishes, to declare exchanges,
//! bindings and policies of the application. Channels opened on it are checked in the same way: a
//! message consumed over it has its whole header table in one byte array, under the empty name.
//! There is no `from_client`: a connection made elsewhere would be unchecked, and could not be
//! restored.
//!
//! # Permissions and settings at the server
//! The user needs access to the virtual host and these permissions in it. Those marked † are needed
//! with `topology=create` only.
//!
//! | operation | configure | write | read |
//! |---|---|---|---|
//! | declare a topic | exchange `TOPIC` † | | |
//! | publish | exchange `TOPIC` † | exchange `TOPIC` | |
//! | subscribe as a group | exchange `TOPIC` †, queue `TOPIC.GROUP` † | queue `TOPIC.GROUP` † | exchange `TOPIC` †, queue `TOPIC.GROUP` |
//! | subscribe without a group | exchange `TOPIC` †, queue `amq.gen-…` | queue `amq.gen-…` | exchange `TOPIC`, queue `amq.gen-…` |
//! | dead-letter topic `DEAD` | exchange `DEAD` †, queue `DEAD.parked` † | exchange `DEAD`, queue `DEAD.parked` † | exchange `DEAD` † |
//! | delayed message | names that begin with `traced-broker.delay.` † | the same names, exchange `TOPIC` † | the same names † |
//! | delayed retry | names that begin with `traced-broker.delay.` † | the same names, queue `TOPIC.GROUP` † | the same names † |
//!
//! With `topology=check` the exchanges and queues in the table have to exist, including those that
//! a delay needs; otherwise the operation fails with [`ErrorKind::NotFound`] and the name of the
//! missing one. The queue `DEAD.parked` is not checked. Bindings cannot be checked, not even that
//! of `traced-broker.delay.out` to the topic or queue, without which messages end in the queue
//! `traced-broker.delay.lost`. A program that runs once with `topology=create` creates all of them.
//!
//! | setting at the server | value |
//! |---|---|
//! | feature flag `stream_queue` | has to be enabled on a server upgraded from before 3.9, or delay queues do not hand messages on at least once |
//! | `max_message_size` | at least `max_payload`, because the server closes the channel on a larger message |
//! | `consumer_timeout` | 30 minutes by default; longer than the longest time to settle a message |
//! | `dead_letter_worker_publisher_confirm_timeout` of the application `rabbit` | 180000 ms unless the advanced configuration says otherwise; the time after which a delay queue repeats a message that the next queue has not confirmed |

mod config;
mod connection;
mod consume;
mod error;
mod headers;
mod publish;
mod topology;
mod wire;

use crate::names::attribute;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::OnceCell;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use config::{AmqpBuilder, RoutingKey, Unroutable};

use crate::driver::capability::{Capabilities, Confirm, Redelivery, TimestampSource};
use crate::driver::{BrokerUrl, Confirmation, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Start, Subscription, Topic};

use config::Settings;
use connection::Live;
use connection::link::Link;
use consume::{Deliveries, Plan, Settlers};
use error::During;
use publish::Publisher;

/// A connection to RabbitMQ; see the [module](self).
///
/// ```rust,no_run
/// # async fn example() -> traced_broker::Result<()> {
/// use traced_broker::{BrokerUrl, Traced, adapters::amqp::Amqp};
///
/// let url = BrokerUrl::parse("amqp://rabbit-1,rabbit-2/shop?unroutable=reject")?;
/// let broker = Traced::new(Amqp::connect(&url).await?);
/// # Ok(()) }
/// ```
///
/// An unknown or invalid option is refused before a connection is attempted:
///
/// ```rust
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::{BrokerUrl, ErrorKind, adapters::amqp::Amqp};
///
/// let url = BrokerUrl::parse("amqp://localhost?unroutable=keep")?;
/// let error = Amqp::connect(&url).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// # Ok(()) }
/// ```
pub struct Amqp {
    identity: Identity,
    capabilities: Capabilities,
    settings: Arc<Settings>,
    publishing: Arc<Link>,
    publisher: Arc<Publisher>,
    /// The connection that consumes, opened by the first subscription.
    consuming: OnceCell<Arc<Link>>,
    settlers: Arc<Settlers>,
    closed: CancellationToken,
    life: Arc<DropGuard>,
}

impl Amqp {
    /// Connects to the first host of the URL that answers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an unknown or invalid option, [`ErrorKind::Unavailable`] if
    /// no host answers in time, [`ErrorKind::Unauthenticated`] if the user is refused,
    /// [`ErrorKind::NotFound`] if the virtual host does not exist, and
    /// [`ErrorKind::PermissionDenied`] if the user may not use it.
    pub async fn connect(url: &BrokerUrl) -> Result<Self> {
        Self::open(Settings::from_url(url)?).await
    }

    /// Creates a builder, which has more options than a URL can hold.
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

    /// Returns the client's connection that publishes, if it is up. When it is lost, a new one
    /// replaces it.
    ///
    /// ```rust,no_run
    /// # async fn example(amqp: traced_broker::adapters::amqp::Amqp) {
    /// if let Some(client) = amqp.as_client() {
    ///     assert!(client.status().connected());
    /// }
    /// # }
    /// ```
    pub fn as_client(&self) -> Option<Client> {
        self.publishing.current().ok().map(Client)
    }

    async fn consuming(&self) -> Result<Arc<Link>> {
        let open =
            || async { Link::open(&self.settings, "consume", &self.closed).await.map(|(link, _)| Arc::new(link)) };
        self.consuming.get_or_try_init(open).await.cloned()
    }
}

/// A handle to the client's connection, a [`lapin::Connection`]. It keeps the connection open until
/// the driver is closed or the connection is lost.
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
        retry: Redelivery::NativeDelayed,
        native_key: false,
        timestamp: Some(TimestampSource::Producer),
        tombstones: false,
        delayed_publish: true,
        reader_resumes: false,
        confirms_settlements: false,
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
        Err(crate::driver::capability::unsupported(
            "move the position of a group",
            crate::driver::capability::REPOSITIONING,
        ))
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

/// Returns the source under the name that the semantic conventions prescribe: exchange and queue.
/// The routing key is left out, because it is empty or differs per message.
fn destination(subscription: &Subscription) -> Destination {
    match subscription.group_name() {
        Some(group) => {
            let topic = subscription.topic();
            Destination::new().named(format!("{topic}:{topic}.{group}"))
        }
        None => Destination::new()
            .with_attribute(attribute::DESTINATION_ANONYMOUS, true)
            .with_attribute(attribute::DESTINATION_TEMPORARY, true),
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
