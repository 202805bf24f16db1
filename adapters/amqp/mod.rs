//! RabbitMQ 3.10 or later, over AMQP 0-9-1.
//!
//! # URLs
//! `amqp://user:password@host:5672/vhost`. Several hosts of one cluster,
//! `amqp://rabbit-1,rabbit-2`, share the connections: they are tried in random order, each a second
//! after the one before, and the first to answer is taken. Without a user, the user is `guest` with
//! password `guest`. Without a path, the virtual host is `/`, which may also be written `/%2F`.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `topology` | `create` missing exchanges and queues, or only `check` that they exist | `create` |
//! | `unroutable` | a message to a topic without subscribers is confirmed and dropped by the broker (`drop`), or its publish fails with `Rejected` (`reject`); see [`Unroutable`] | `drop` |
//! | `parked` | which dead letters the group `parked` keeps: `all`, or those that are `unread` because no other queue takes them; see [`Parked`] | `all` |
//! | `routing_key` | `none`, or the message's `key` | `none` |
//! | `binding_key` | keys of the messages that readers without a group get, separated by commas | `#`, the empty key and the topic |
//! | `max_in_flight` | maximum number of unconfirmed publishes | 1024 |
//! | `max_payload` | largest payload in bytes, the server's `max_message_size` | 16777216 |
//! | `consumer_timeout` | the server's `consumer_timeout` in milliseconds, 0 if it has none; see [time limit](#time-limit) | 1800000 |
//! | `delivery_limit` | the `delivery-limit` of the queues or of their policy; see [`AmqpBuilder::delivery_limit`] | none, but 20 with `topology=check` on RabbitMQ 4 |
//! | `connect_timeout` | time limit in milliseconds of one attempt at one host, and of one request to the broker | 10000 |
//! | `delivery_timeout` | milliseconds that a publish waits for a connection and its confirm | 60000 |
//! | `heartbeat` | interval in seconds; after twice that without a sign of life the connection is given up | 10 |
//! | `name` | name of the connections on the management pages | `traced-broker` |
//! | `tls_ca` | PEM file of the authorities to trust, with `amqps://` | those of the system |
//! | `tls_cert`, `tls_key` | PEM files of the certificate to present and of its private key, with `amqps://` | none |
//! | `tls_server_name` | name that the certificate of the server has to be for, with `amqps://` | the host |
//! | `plaintext` | `yes` sends a user's password to other machines without TLS; see [TLS](#tls) | `no` |
//!
//! [`Amqp::builder`] offers the same options, and takes credentials that should not be part of a
//! URL.
//!
//! ## TLS
//! `amqps://host:5671` or [`AmqpBuilder::tls`], with the cargo feature `tls`. Certificates are
//! always checked, for the host of the URL that is connected to. The files are read when the driver
//! connects, and anew for each connection, so they may be replaced while the program runs. A
//! certificate or password that is refused is [`ErrorKind::Unauthenticated`]. The first connect
//! then fails; a lost connection is restored without end, since a certificate can be replaced, and
//! what waits for it too long fails with this kind.
//!
//! Without TLS, credentials other than the default ones are refused for hosts that are not this
//! machine, unless `plaintext=yes` allows it: [`ErrorKind::InvalidConfig`].
//!
//! # Delivery semantics
//! | here | in RabbitMQ |
//! |---|---|
//! | topic `orders` | durable topic exchange `orders` |
//! | group `billing` of that topic | durable quorum queue `orders.billing`, bound with `#`, without a limit of deliveries |
//! | no group | an exclusive queue of the connection, deleted with it; of more than 256 MiB the broker drops the oldest messages |
//! | dead-letter topic `orders.dead` of a subscription | exchange `orders.dead`, and its group `parked`: queue `orders.dead.parked` |
//! | delayed messages and delayed retries | durable quorum queues `traced-broker.delay.v1.16ms` and so on, shared by all topics of the virtual host |
//!
//! ## Confirms
//! Messages are persistent. A publish ends with the broker's confirm: every queue that takes the
//! message then has it on the disks of a majority of its replicas, and it survives the death of the
//! server. A publish whose connection ends before the confirm fails with an unknown outcome. One
//! without a connection waits for it for 30 seconds, or nine tenths of `delivery_timeout`, and is
//! then certainly not sent; as many as `max_in_flight` wait. During an alarm of the broker (memory,
//! disk) confirms are held back. A message that the broker refuses is [`ErrorKind::Busy`], of
//! unknown outcome.
//!
//! The server enters a new queue in its register on disk within five seconds. If it is killed
//! before that, the queue comes back without its messages. This holds for the queue of a new group,
//! and for a delay queue that a delay has used for the first time.
//!
//! ## Topics that are refused or deleted
//! The broker ends the channel on a message that it refuses, and with it the confirms of other
//! topics. Messages that were sent after it are sent again in their order; of those before it, the
//! unconfirmed ones fail with an unknown outcome. The topic then fails at once, for 1 second and
//! later up to 60, and is tried again on a channel of its own. An exchange that was deleted is made
//! again, and subscriptions look after their exchanges and bindings every 5 seconds: for 6 seconds
//! publishes to it are certainly not sent, and after that no message is confirmed that no queue
//! took.
//!
//! ## Dead letters
//! Rejected messages are never lost for want of a subscriber, because their topic always has the
//! group `parked`. Read it like any other group: others do not empty it, and it has no limit. A
//! warning tells of more than 1000 messages in it, and again each time that they have doubled.
//! With `parked=unread` it only gets letters that no other queue takes, over the exchange
//! `DEAD.parked`; the queue of an existing topology is used, and its binding to `DEAD` removed.
//!
//! ## Groups
//! Members share the queue of their group; every group has its own. A new group receives what is
//! published after its creation ([`Capabilities::backlog`] is false), and keeps it while it has no
//! members. A reader without a group misses what is published while its connection is down, which
//! it tells by an error of the kind [`ErrorKind::Unavailable`]. A direct exchange has no key for
//! all messages: name those of others by `binding_key`. To start a reader at the earliest message
//! is [`ErrorKind::Unsupported`], as it is to start at a time or an offset and to move a group: a
//! queue has no positions. Messages are delivered in the order of the queue, as long as one member
//! reads it, none is delayed or retried, and the server of its connection lives.
//!
//! ## Settlement
//! Acknowledgements are gathered for up to two milliseconds or half the prefetch, and sent in one
//! frame. RabbitMQ does not confirm them: if the connection ends first, the message is redelivered.
//! [`close`](Driver::close) proves by a round trip that they arrived. At most once means that a
//! message is acknowledged when it is handed out, and redelivered if that is lost.
//!
//! A delivery ends with its channel, with its connection, and when the server cancels the consumer,
//! because the queue was deleted for example. This is noticed within a second, also while no task
//! polls the subscription.
//!
//! ## Attempts and deliveries
//! A queue counts deliveries (`x-delivery-count`), whatever happened to them: one that is fetched
//! ahead by ten deploys was delivered ten times. [`Inbound::deliveries`](crate::driver::Inbound) is
//! this count; a classic queue has none. Attempts are retries that were asked for, and are counted
//! in the message: a retry publishes a copy with the headers `prior-attempts` and
//! `prior-deliveries`, straight to the end of the queue or through the delay queues, and
//! acknowledges the message once the copy is confirmed. If the process dies in between, the message
//! exists twice. During an alarm, a retry waits for its end.
//!
//! Any publisher can write these headers. They count only in a message that came straight to the
//! queue or through the delay queues, and that names this program's user as its `user-id`, which
//! the broker checks. Members of a group with different users do not see each other's counts.
//!
//! If the headers of a message leave less than 4 kB of the frame for those of a copy, its queue
//! counts its attempts, and every delivery is one. A message that is given back unhandled returns
//! to its queue as it is, or as a copy that counts attempts that failed in this process. A
//! discarded message is dropped, or goes where a policy of the broker says.
//!
//! ## Trials
//! A message that was [delivered twice](crate::driver::Inbound::is_suspicious) without being heard
//! of, or came again from a queue without a count, may be one that ends its process. Its
//! [trials](crate::driver::DeliveryHandle::begin_trial) are noted in a stream beside the queue,
//! `traced-broker.trials.v1.QUEUE`, which the first such message declares. Each waits until the
//! stream was read. It keeps 7 days and 2 MiB, and is never deleted. A note outlives processes
//! and, with replicas, a server. Messages that are equal in routing key, `message-id`, `timestamp`
//! and payload share their notes. Without the permissions below, without streams, or without an
//! answer in 5 seconds, during an alarm for example, they are handed out like others.
//!
//! ## Time limit
//! If a message stays unsettled for longer than the server's `consumer_timeout`, the server ends
//! the channel, and with it all other deliveries. The server counts from the time at which it sent
//! the message. This adapter avoids that:
//!
//! | after | here |
//! |---|---|
//! | half of the time | messages that were fetched and not handed out are given back; a warning names the queue and the number of other messages |
//! | nine tenths of it | each such message alone is given back; its delivery ends and cannot be settled any more, and its channel and all other deliveries go on |
//!
//! The protocol shows the server's time only when it ends a channel, and then it is used: set
//! `consumer_timeout` if it is not 30 minutes. From RabbitMQ 3.12 on, a policy can set it for a
//! queue (`consumer-timeout`). A reader without a group keeps a message unsettled for the delay of
//! its retry: at most nine tenths of it.
//!
//! ## Delays
//! Delayed messages and delayed retries of groups wait at the broker, and survive the end of this
//! program and of the server. A queue releases messages at its head only, so a delay is made up of
//! waits, each in a queue in which all messages wait equally long: it is written in steps of 16
//! milliseconds as seven hexadecimal digits, and each that is not zero is one wait, the largest
//! first. Exchanges `traced-broker.delay.v1.0` to `.6` and `.out` lead from queue to queue by the
//! headers `delay-0` to `delay-6`. The queues are created at first use and never deleted.
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
//! deleted, the message is dropped, whatever the value of `unroutable`.
//!
//! ## Delayed retries
//! The copy of a delayed retry goes through the delay queues to the end of this group's queue and
//! to no other. If settling fails with [`ErrorKind::SettlementLost`], the message may be delivered
//! twice, but it is never lost. Until the copy is confirmed, during an alarm of the broker too, the
//! message counts as unsettled. If the copy cannot be stored, settling fails with the reason, and a
//! second later the message returns to its queue with its attempt counted.
//!
//! ## Headers of a retried message
//! The copy keeps all headers and properties except `CC`, `expiration`, headers that the broker had
//! added, names that are not UTF-8, and values nested deeper than 16 tables. Its `user-id` is the
//! user of this connection. A copy that went straight to the queue has the queue's name as its
//! routing key; the original one is in the header `retry-routing-key`, and is shown here as before.
//!
//! ## Delay queues
//! The queues hand messages on at least once. A group that is deleted and made again gets its
//! waiting retries. A message whose delay ends while its group or topic is missing is kept in the
//! queue `traced-broker.delay.v1.lost`; look there and empty it. The queue
//! `traced-broker.delay.v1.nothing` confirms each message for a topic and keeps none. A group that
//! refuses messages, by `reject-publish` for example, holds up others that wait in the same queue.
//!
//! ## Threads and connections
//! Each driver has a thread for sockets and timers, and the client one per connection. Handlers
//! that block the application's runtime starve no heartbeats, and another runtime may use a driver.
//! Publishing and consuming use a connection each, so that neither holds back the other. Both are
//! restored without end, with pauses of up to three seconds. Unsettled messages are redelivered.
//! Settling an old delivery is [`ErrorKind::SettlementLost`]. A channel on which the broker refuses
//! messages is replaced, with pauses of up to 30 seconds, because one that was opened while a
//! quorum queue had no leader refuses all messages for it. The order of messages stays the same.
//!
//! ## Bounds
//! | in memory | bound |
//! |---|---|
//! | unconfirmed messages | `max_in_flight`, kept until confirmed; copied until they are written |
//! | copies for retries | the prefetches of the subscriptions |
//! | fetched messages | the prefetch of the subscription; a consumer is replaced once a quarter of it [waits](crate::Subscription::waiting) |
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
//! | `amqp-type`, `amqp-app-id`, `amqp-reply-to`, `amqp-priority` | the property of that name |
//! | `amqp-expiration` | property `expiration`; an entry in dead letters and delayed messages, which must not expire |
//! | `amqp-routing-key` | the routing key, if it is not the key; an entry in dead letters |
//! | time of publishing | entry `timestamp_in_ms`, as text, and, in seconds, property `timestamp` |
//!
//! A table has no lasting order: headers of different names may arrive in another order.
//!
//! ## Copies
//! A dead letter, a message that is sent back, forwarded or bridged from RabbitMQ to RabbitMQ keeps
//! the types of its headers, and tables that have no form as headers. A header that was changed on
//! the way is written as text. `CC` and `BCC` are renamed to `bridged-CC` and `bridged-BCC`.
//! Headers that the broker had added, `user-id` and `cluster-id` are left out.
//!
//! ## Limits
//! | limit | value |
//! |---|---|
//! | name | 255 bytes |
//! | all properties of a message | one frame less 64 bytes: 131,008 bytes unless the server allows less |
//! | all properties of a delayed message | 4096 bytes less |
//! | all properties of a message that is retried with a delay | 6464 bytes less |
//! | all properties of a message whose attempts are counted in copies | 3392 bytes less |
//!
//! ## Reserved names
//! The names `CC` and `BCC` are refused, because the broker uses them as routing keys. The entries
//! `message-key`, `timestamp_in_ms`, `x-delivery-count`, `publish-number`, `delay-0` to `delay-6`,
//! `delayed-for`, `prior-attempts`, `prior-deliveries` and `retry-routing-key` belong to this
//! adapter or the broker: headers of these names are not sent. A message that has waited shows
//! neither these headers nor those in which the broker describes its waits, such as `x-death`.
//!
//! ## Messages of other publishers
//! | in AMQP | here |
//! |---|---|
//! | byte array, long string | its bytes |
//! | number, truth value, time (in seconds) | text |
//! | array of these | several headers; elements are counted as unreadable once their repeated names exceed 64 KiB in a message |
//! | void | an empty value |
//! | table, name that is not UTF-8 | counted as unreadable, but for `x-death`; a table is kept in copies |
//! | bytes of properties and routing keys that are not UTF-8 | question marks |
//!
//! No message ends a connection, whatever its headers contain: every frame is checked before the
//! client parses it. Header tables bypass the client's parser and are read by this adapter's own,
//! not descending into nested values. Beyond a frame, the largest entries are left out.
//!
//! # Escape hatch
//! [`Amqp::as_client`] returns the client's connection that publishes, to declare exchanges,
//! bindings and policies of the application. Channels opened on it are checked in the same way: a
//! message consumed over it has its whole header table in one byte array, under the empty name.
//! There is no `from_client`: a connection made elsewhere would be unchecked, and could not be
//! restored.
//!
//! # Permissions and settings at the server
//! The user needs these permissions in the virtual host; those marked † with `topology=create`.
//!
//! | operation | configure | write | read |
//! |---|---|---|---|
//! | declare a topic | exchange `TOPIC` † | | |
//! | publish | exchange `TOPIC` † | exchange `TOPIC` | |
//! | subscribe as a group | exchange `TOPIC` †, queue `TOPIC.GROUP` † | queue `TOPIC.GROUP` † | exchange `TOPIC` †, queue `TOPIC.GROUP` |
//! | subscribe without a group | exchange `TOPIC` †, queue `amq.gen-…` | queue `amq.gen-…` | exchange `TOPIC`, queue `amq.gen-…` |
//! | dead-letter topic `DEAD` | exchange `DEAD` †, queue `DEAD.parked` † | exchange `DEAD`, queue `DEAD.parked` † | exchange `DEAD` † |
//! | the same with `parked=unread` | also exchange `DEAD.parked` † | also exchange `DEAD.parked` | also exchange `DEAD.parked` † |
//! | retry without a delay | | exchange `amq.default` | |
//! | delayed message | names that begin with `traced-broker.delay.` † | the same names, exchange `TOPIC` † | the same names † |
//! | delayed retry | names that begin with `traced-broker.delay.` † | the same names, queue `TOPIC.GROUP` † | the same names † |
//! | note trials | queue `traced-broker.trials.v1.TOPIC.GROUP` † | exchange `amq.default` | the same queue |
//!
//! The default exchange, `amq.default`, leads to every queue. If the user may not write to it, a
//! retry without a delay takes the way of the shortest delay; a reader without a group then counts
//! an attempt as long as it keeps the message in hand.
//!
//! With `topology=check` the exchanges and queues in the table have to exist, with those that a
//! delay needs; otherwise the operation fails with [`ErrorKind::NotFound`] and the name of the
//! missing one. The queue `DEAD.parked` is not checked. Bindings cannot be checked, not even that
//! of `traced-broker.delay.v1.out` to the topic or queue, without which messages end in the queue
//! `traced-broker.delay.v1.lost`. A program that runs once with `topology=create` creates them all.
//!
//! | setting at the server | value |
//! |---|---|
//! | feature flag `stream_queue` | has to be enabled on a server upgraded from before 3.9, or delay queues do not hand messages on at least once, and no trials are noted |
//! | `max_message_size` | at least `max_payload`, because the server closes the channel on a larger message |
//! | `consumer_timeout` | 30 minutes by default; longer than the longest time to settle a message, and named by the option of this name |
//! | `net_ticktime` of a cluster | 60 seconds by default: a server that is cut off while its connections stay open is missed by the others after up to 75 seconds; lower it to fail over sooner |
//! | `delivery-limit` of a policy | better none; otherwise named by the option `delivery_limit` |
//! | `dead_letter_worker_publisher_confirm_timeout` of the application `rabbit` | 180000 ms unless the advanced configuration says otherwise; the time after which a delay queue repeats a message that the next queue has not confirmed |

mod capabilities;
mod config;
mod connection;
mod consume;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod headers;
mod opening;
mod publish;
mod topology;
mod trials;
mod wire;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::OnceCell;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use config::{AmqpBuilder, Parked, RoutingKey, Unroutable};
pub use connection::client::Client;

use crate::driver::capability::{Capabilities, REPOSITIONING, unsupported};
use crate::driver::{BrokerUrl, Confirmer, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Start, Subscription, Topic};

use config::Settings;
use connection::engine::Engine;
use connection::link::{Closing, Link};
use consume::{Plan, Settlers, destination, held::Held, intake::CurrentIntake, stream::Deliveries, time_limit};
use error::During;
use publish::Publisher;
use topology::bindings::DeadLetterTopics;
use trials::Logs;

/// The name of the system in spans, and of the native form of its messages.
const SYSTEM: &str = "rabbitmq";

/// A connection to RabbitMQ; see the [module](self).
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
    dead_letters: Arc<DeadLetterTopics>,
    logs: Arc<Logs>,
    closed: CancellationToken,
    life: Arc<DropGuard>,
    engine: Arc<Engine>,
}

impl Amqp {
    /// Connects to the first host of the URL that answers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an unknown or invalid option,
    /// [`ErrorKind::FeatureDisabled`] for TLS without the feature `tls`,
    /// [`ErrorKind::Unavailable`] if no host answers in time, [`ErrorKind::Unauthenticated`] if the
    /// user or a certificate is refused, [`ErrorKind::NotFound`] if the virtual host does not
    /// exist, and [`ErrorKind::PermissionDenied`] if the user may not use it.
    pub async fn connect(url: &BrokerUrl) -> Result<Self> {
        Self::open(Settings::from_url(url)?).await
    }

    /// Creates a builder, which has more options than a URL can hold.
    pub fn builder(url: impl Into<String>) -> AmqpBuilder {
        AmqpBuilder::new(url.into())
    }

    /// Returns the client's connection that publishes, if it is up. When it is lost, a new one
    /// replaces it.
    ///
    /// ```rust,no_run
    /// # fn example(amqp: &traced_broker::adapters::amqp::Amqp) {
    /// assert!(amqp.as_client().is_some_and(|client| client.status().connected()));
    /// # }
    /// ```
    pub fn as_client(&self) -> Option<Client> {
        self.publishing.current().ok().map(Client::new)
    }

    async fn consuming(&self) -> Result<Arc<Link>> {
        let open = || async {
            let opened = Link::open(&self.settings, "consume", &self.closed, &self.engine).await;
            opened.map(|(link, _)| Arc::new(link))
        };
        self.consuming.get_or_try_init(open).await.cloned()
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
        self.dead_letters.declare(&live, &channel, topic, self.settings.topology).await?;
        self.publisher.declared(topic);
        Ok(Destination::new())
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        self.publisher.publish(topic, message, confirmer);
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
            engine: Arc::clone(&self.engine),
            link,
            publisher: Arc::clone(&self.publisher),
            settlers: Arc::clone(&self.settlers),
            subscription: subscription.clone(),
            intake: CurrentIntake::default(),
            logs: Arc::clone(&self.logs),
            held: Held::default(),
            interest: Arc::new(self.publisher.interest(subscription)),
            time_limit: Arc::new(time_limit::TimeLimit::new(self.settings.consumer_timeout)),
            _life: Arc::clone(&self.life),
        });
        self.dead_letters.add(subscription);
        let reading = plan.start(live).await?;
        let stopped = Arc::clone(&plan);
        let source = Source::new(destination(subscription), Deliveries::new(plan, reading));
        Ok(source.on_stop(move || stopped.stop()))
    }

    async fn reposition(&self, _subscription: &Subscription, _start: Start) -> Result<()> {
        Err(unsupported("move the position of a group", REPOSITIONING))
    }

    async fn ping(&self) -> Result<()> {
        let live = self.publishing.current()?;
        live.channel(During::Declare).await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Ok(());
        }
        // Also if this future is dropped, because the time for closing is up.
        let links = || std::iter::once(&self.publishing).chain(self.consuming.get());
        let _closing = Closing::new(&self.closed, links());
        let unconfirmed = self.publisher.finish(self.settings.connect_timeout).await;
        let settlers = self.settlers.all();
        let settled = join_all(settlers.iter().map(|settler| settler.finish())).await;
        self.logs.finish().await;
        self.closed.cancel();
        join_all(links().map(|link| link.close())).await;
        std::iter::once(unconfirmed).chain(settled).collect()
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
