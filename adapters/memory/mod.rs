//! The embedded broker: topics, groups and redelivery inside the process, for tests, small programs
//! and development.
//!
//! # URLs
//! `memory://name` is one broker per name and process. Parts of a program that connect to the same
//! name share it; `memory://` is the broker named `default`. A broker lives as long as a connection
//! to it is open.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `capacity` | messages that a topic keeps, at least 1 | 65536 |
//! | `max_in_flight` | publishes that may wait for room at the same time | 1024 |
//! | `delivery_timeout` | maximum time that a publish waits for room, in ms | 30000 |
//! | `topology` | `create` missing topics, or only `check` | `create` |
//! | `max_bytes` | bytes of the messages that a topic keeps | 268435456 |
//! | `group_expiry` | time without a member after which a group may end if its topic is full, in ms | 600000 |
//!
//! # Delivery semantics
//!
//! ## Confirms
//! A confirmed message is stored in memory: it survives any consumer, and is lost when the process
//! ends. Messages stay when the connection that published them is closed, delayed or not. They are
//! dropped with the last connection to the broker. The timestamp is this machine's clock at the
//! moment when the message became visible.
//!
//! ## Groups
//! Every group gets every message at least once, and its members share the messages. A new group
//! starts at the oldest message kept. Attempts are counted per group. Deliveries that are unsettled
//! when their connection is closed go back to the group, and their handles are stale.
//!
//! ## Order
//! Messages are ordered by when they became visible, which for most of them is when they were
//! published. A retried message is redelivered after its delay, and later messages pass it
//! meanwhile.
//!
//! ## Delays
//! A delayed message is stored, and therefore confirmed, at once. At its time it becomes visible as
//! if it were published then: behind the messages published meanwhile, and also to groups that are
//! new since. Its timestamp is that time, so the time in the queue does not include the delay. It
//! gets its offset only then; the receipt has none. Timers have a resolution of one millisecond.
//!
//! ## Start positions
//! [`Start::Time`] is the first message that became visible at that time or later. If there is
//! none, also for a time in the future, it is the next message. [`Start::Offset`] is the message
//! with that offset, or the oldest message kept if it is gone. An offset in the future is waited
//! for, and the messages before it are passed over.
//!
//! ## Repositioning
//! A group can be moved while members are connected; they continue from the new position. A missing
//! group is created. All state of the group starts anew: attempts count from 1, and waiting retries
//! are forgotten. Settling a delivery from before the move fails with
//! [`SettlementLost`](crate::ErrorKind::SettlementLost), even if the message is not delivered
//! again.
//!
//! ## Back-pressure
//! A topic keeps up to `capacity` messages of up to `max_bytes`, delayed messages included. To make
//! room it drops the oldest message that every group has settled, also from between others, so that
//! one that is held takes up one place. A delayed message, and one that some group has not settled,
//! is not dropped: publishing waits for room instead, which is the back-pressure of this broker. It
//! fails after `delivery_timeout`, certainly not sent. A topic that no group reads drops its oldest
//! message.
//!
//! A group without a member keeps its messages while there is room. If the topic is full, it ends
//! once it has had no member for `group_expiry`, which a warning says, and **the messages that only
//! this group has not settled are dropped**: otherwise a group that was renamed would block all
//! publishers for ever. A member that comes later begins as in a new group.
//!
//! # Headers
//! Names and values are carried unchanged.
//!
//! # Escape hatch
//! There is no client below. [`Memory::new`] creates a broker that no URL reaches.
//! [`Memory::messages`] and [`Memory::unfinished`] show the contents of a broker.
//!
//! # Permissions and settings at the server
//! None: the broker is part of the process.

mod delayed;
mod group;
mod hub;
mod log;
mod source;
mod topic;
mod unfinished;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::driver::capability::Capabilities;
use crate::driver::{BrokerUrl, Confirmer, Destination, Driver, Identity, Outbound, Source, Topology};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Start, Subscription, Topic};

use hub::{Connection, Hub, Settings};
use log::Bounds;
use source::MemorySource;
use topic::TopicLog;

pub use unfinished::{Pending, Unfinished};

/// Default number of messages that a topic keeps.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// Default number of bytes that the messages of a topic may have.
pub const DEFAULT_MAX_BYTES: usize = 256 * 1024 * 1024;

/// Default time without a member after which a group may end if its topic is full.
pub const DEFAULT_GROUP_EXPIRY: Duration = Duration::from_secs(600);

const DEFAULTS: Settings = Settings {
    bounds: Bounds { messages: DEFAULT_CAPACITY, bytes: DEFAULT_MAX_BYTES },
    group_expiry: DEFAULT_GROUP_EXPIRY,
};

/// A connection to an embedded broker; see the [module](self).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::adapters::memory::Memory;
/// use traced_broker::{BrokerUrl, ErrorKind, Message, Traced, TracedBroker};
///
/// let url = BrokerUrl::parse("memory://memory-example?capacity=100")?;
/// let broker = Traced::new(Memory::connect(&url)?);
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
///
/// // A second connection to the same name reaches the same broker.
/// let stored = Memory::named("memory-example").messages("orders");
/// assert_eq!(stored.len(), 1);
/// assert_eq!(stored[0].payload.as_deref(), Some(&b"one pair of shoes"[..]));
///
/// let error = Memory::connect(&BrokerUrl::parse("memory://other?capacity=0")?).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// let smaller = BrokerUrl::parse("memory://memory-example?capacity=5")?;
/// let error = Memory::connect(&smaller).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Conflict); // It exists with another capacity.
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Memory {
    identity: Identity,
    capabilities: Capabilities,
    topology: Topology,
    connection: Arc<Connection>,
}

impl Memory {
    /// Creates a broker with default options that no URL reaches.
    pub fn new() -> Self {
        Self::over(Hub::private(DEFAULTS), Identity::new("memory"), Topology::Create)
    }

    /// Connects to the broker of `memory://name`; creates it with default options if it is missing.
    pub fn named(name: &str) -> Self {
        Self::over(Hub::named(name, DEFAULTS), Identity::new("memory"), Topology::Create)
    }

    /// Connects to the broker that the URL names; creates it if it is missing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an unknown or invalid option; [`ErrorKind::Conflict`] if
    /// the broker exists with another capacity, other bounds or another expiry of groups.
    pub fn connect(url: &BrokerUrl) -> Result<Self> {
        let mut options = url.options();
        let capacity = options.take::<usize>("capacity")?;
        let max_in_flight = options.take::<usize>("max_in_flight")?;
        let delivery_timeout = options.take("delivery_timeout")?.map(Duration::from_millis);
        let topology = options.take("topology")?.unwrap_or_default();
        let max_bytes = options.take::<usize>("max_bytes")?;
        let group_expiry = options.take("group_expiry")?.map(Duration::from_millis);
        options.finish()?;
        if capacity == Some(0) || max_bytes == Some(0) {
            return Err(Error::new(ErrorKind::InvalidConfig, "capacity and max_bytes of a topic are at least 1"));
        }
        let hub = shared(url.name().unwrap_or("default"), capacity, max_bytes, group_expiry)?;
        let mut identity = Identity::new("memory");
        identity = identity.with_max_in_flight(max_in_flight.unwrap_or(Identity::DEFAULT_MAX_IN_FLIGHT));
        identity = identity.with_delivery_timeout(delivery_timeout.unwrap_or(Identity::DEFAULT_DELIVERY_TIMEOUT));
        Ok(Self::over(hub, identity, topology))
    }

    /// Returns the messages that a topic keeps, oldest first, whether they were read or not; empty
    /// if the topic does not exist.
    pub fn messages(&self, topic: &str) -> Vec<Outbound> {
        self.connection.hub().existing_topic(topic).map(|topic| topic.messages()).unwrap_or_default()
    }

    /// Returns the messages that are still pending, by topic: not settled by some group, delayed,
    /// not read by any group, or waiting for room. Empty when the broker is at rest.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        self.connection.hub().unfinished()
    }

    /// Completes at the next change in the broker after the call, on any connection: a message is
    /// published, delivered or settled, or a subscription begins or ends.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.connection.hub().changed()
    }

    fn over(hub: Arc<Hub>, identity: Identity, topology: Topology) -> Self {
        let capabilities = Capabilities {
            sets_aside: true,
            notes_trials: true,
            delayed_publish: true,
            start_at_time: true,
            start_at_offset: true,
            reposition: true,
            ..Capabilities::new()
        };
        Self { identity, capabilities, topology, connection: Arc::new(Connection::new(hub)) }
    }

    fn topic(&self, name: &str) -> Result<Arc<TopicLog>> {
        match self.existing_topic(name) {
            Err(error) if error.kind() == ErrorKind::NotFound && self.topology == Topology::Create => {
                Ok(self.connection.hub().topic(name))
            }
            found => found,
        }
    }

    fn existing_topic(&self, name: &str) -> Result<Arc<TopicLog>> {
        if self.connection.is_closed() {
            return Err(Error::new(ErrorKind::Closed, "the connection is closed"));
        }
        self.connection.hub().existing_topic(name).ok_or_else(|| {
            let message =
                "the topic does not exist: publishing and subscribing create it, unless topology=check forbids it";
            Error::new(ErrorKind::NotFound, message)
        })
    }
}

/// Returns the broker with this name, created if it is missing. Fails if it exists with settings
/// other than the given ones.
fn shared(
    name: &str,
    capacity: Option<usize>,
    max_bytes: Option<usize>,
    group_expiry: Option<Duration>,
) -> Result<Arc<Hub>> {
    let over = |settings: Settings| Settings {
        bounds: Bounds {
            messages: capacity.unwrap_or(settings.bounds.messages),
            bytes: max_bytes.unwrap_or(settings.bounds.bytes),
        },
        group_expiry: group_expiry.unwrap_or(settings.group_expiry),
    };
    let hub = Hub::named(name, over(DEFAULTS));
    let settings = hub.settings();
    if over(settings) == settings {
        return Ok(hub);
    }
    let message = "the broker of that name exists with another capacity, other max_bytes or another group_expiry";
    Err(Error::new(ErrorKind::Conflict, message)
        .with_context("name", name)
        .with_context("capacity", settings.bounds.messages)
        .with_context("max_bytes", settings.bounds.bytes)
        .with_context("group_expiry", settings.group_expiry.as_millis()))
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Driver for Memory {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.topic(topic).map(|_| Destination::new())
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        match self.topic(topic) {
            Ok(topic) => {
                let is_closed = || self.connection.is_closed();
                topic.publish(self.connection.id(), is_closed, message, self.identity.delivery_timeout, confirmer);
            }
            Err(error) => confirmer.confirm(Err(error)),
        }
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let topic = self.topic(subscription.topic())?;
        let source = MemorySource::open(Arc::clone(&self.connection), topic, subscription);
        let stop = source.stop();
        Ok(Source::new(Destination::new(), source).on_stop(stop))
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        let Some(group) = subscription.group_name() else {
            return Err(Error::new(ErrorKind::InvalidConfig, "a reader without a group has no position to move"));
        };
        self.existing_topic(subscription.topic())?.reposition(group, start);
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        if self.connection.is_closed() {
            return Err(Error::new(ErrorKind::Closed, "the connection is closed"));
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.connection.close();
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.connection.close();
    }
}
