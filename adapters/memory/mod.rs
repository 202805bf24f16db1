//! The embedded broker: topics, groups and redelivery in this process, for tests, small programs and development.
//!
//! # URLs
//! `memory://name` is one broker per name and process, so that parts of a program that connect by URL meet; `memory://` is the
//! one named `default`. A broker lives as long as something is connected to it.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `capacity` | messages a topic keeps, at least 1 | 65536 |
//! | `max_in_flight` | publishes that may wait for room at a time | 1024 |
//! | `topology` | `create` missing topics, or only `check` | `create` |
//!
//! # Delivery semantics
//! A confirmed message is stored in memory: it survives any consumer and dies with the process. Every group gets every message
//! at least once, members share; a new group starts at the oldest message kept. Order is that of becoming visible, for most messages
//! when they are published; a message that is retried comes again after its delay while later ones pass it.
//! The attempt is counted per group. The timestamp is this machine's clock when the message became visible.
//!
//! **Delayed messages** are stored, and so confirmed, at once, and become visible at their time as if they were published then: behind
//! those published meanwhile, with that time as timestamp (so that the time in the queue does not hold the delay), for
//! groups that are new since, too. Only then do they have an offset; the receipt has none. Timers have a resolution of a millisecond.
//!
//! **Where to begin.** [`Start::Time`] is the first message that became visible at that time or later, and where there is none, also for a
//! time that is still to come, the next message. [`Start::Offset`] is the message of that offset, or the oldest kept if
//! it is gone; one that is still to come is waited for, and what comes before it is passed over.
//!
//! **Moving a group** is possible with members connected, who go on from there. It makes the group if there is none of that name. All
//! begins anew: messages count their attempts from 1, retries that wait are forgotten, and what members hold is
//! [`SettlementLost`](crate::ErrorKind::SettlementLost), whether or not it comes again.
//!
//! A topic keeps its last `capacity` messages, delayed ones among them. A delayed one, and one that some group has not settled, is never
//! dropped: publishing waits for room instead, which is the back-pressure of this broker. A topic that no group reads forgets its
//! oldest message.
//! Deliveries that are unsettled when their connection is closed go back to the group, and their handles are stale. What the connection
//! published stays with the broker, delayed or not, and is gone when the last connection is.
//!
//! # Headers
//! Names and values are carried as they are.
//!
//! # Escape hatch
//! There is no client below: [`Memory::new`] makes a broker that no URL reaches. [`Memory::messages`] and [`Memory::unfinished`] show
//! what is in it.

mod delayed;
mod group;
mod hub;
mod source;
mod topic;
mod unfinished;

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use crate::address::{Start, Subscription, Topic};
use crate::broker_url::{BrokerUrl, Topology};
use crate::capability::Capabilities;
use crate::driver::{Confirmation, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

use hub::{Connection, Hub};
use source::MemorySource;
use topic::TopicLog;

pub use unfinished::{Pending, Unfinished};

/// How many messages a topic keeps unless the URL says otherwise.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// A connection to an embedded broker; see the [module](self).
#[derive(Debug)]
pub struct Memory {
    identity: Identity,
    capabilities: Capabilities,
    topology: Topology,
    connection: Arc<Connection>,
}

impl Memory {
    /// A broker of its own, with default options, that no URL reaches.
    pub fn new() -> Self {
        Self::over(Hub::private(DEFAULT_CAPACITY), None, Topology::Create)
    }

    /// Connects to the broker that `memory://name` names, made with default options if it is not there.
    pub fn named(name: &str) -> Self {
        Self::over(Hub::named(name, DEFAULT_CAPACITY), None, Topology::Create)
    }

    /// Connects to the broker that the URL names, made if it is not there.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an unknown or invalid option, [`ErrorKind::Conflict`] when the broker is there with another capacity.
    pub fn connect(url: &BrokerUrl) -> Result<Self> {
        let mut options = url.options();
        let capacity = options.take::<usize>("capacity")?;
        let max_in_flight = options.take::<usize>("max_in_flight")?;
        let topology = options.take("topology")?.unwrap_or_default();
        options.finish()?;
        if capacity == Some(0) {
            return Err(Error::new(ErrorKind::InvalidConfig, "the capacity of a topic is at least 1"));
        }
        let hub = Hub::shared(url.name().unwrap_or("default"), capacity)?;
        Ok(Self::over(hub, max_in_flight, topology))
    }

    /// The messages that a topic keeps, oldest first, whether they were read or not; empty where there is no such topic.
    pub fn messages(&self, topic: &str) -> Vec<Outbound> {
        self.connection.hub().existing_topic(topic).map(|topic| topic.messages()).unwrap_or_default()
    }

    /// What is not done with, by topic: messages that some group has not settled, that are delayed, that nobody reads, or that
    /// there is no room for. Empty when the broker is at rest.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        self.connection.hub().unfinished()
    }

    /// Completes when something has happened in the broker after the call: a message was published, handed out or settled, a
    /// subscription began or ended, on whatever connection.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.connection.hub().changed()
    }

    fn over(hub: Arc<Hub>, max_in_flight: Option<usize>, topology: Topology) -> Self {
        let mut identity = Identity::new("memory");
        if let Some(publishes) = max_in_flight {
            identity = identity.with_max_in_flight(publishes);
        }
        let capabilities = Capabilities {
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
                "the topic does not exist: publishing and subscribing create it, unless topology=check forbids to";
            Error::new(ErrorKind::NotFound, message)
        })
    }
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

    fn publish(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        match self.topic(topic) {
            Ok(topic) => topic.publish(self.connection.id(), message),
            Err(error) => Confirmation::ready(Err(error)),
        }
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let topic = self.topic(subscription.topic())?;
        let source = MemorySource::open(Arc::clone(&self.connection), topic, subscription);
        Ok(Source::new(Destination::new(), source))
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
