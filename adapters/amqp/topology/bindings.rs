//! The exchanges, queues and bindings of one subscription.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use lapin::Channel;
use lapin::types::ShortString;
use parking_lot::Mutex;

use super::super::config::{Parked, Settings};
use super::super::connection::Live;
use super::super::error::During;
use super::{ANY, PARKED, bind, declare_group, declare_reader, declare_topic, declare_unread, name};
use crate::driver::Topology;
use crate::error::Result;
use crate::message::Subscription;

/// Number of dead letters in a group that nobody may read, from which on there are warnings.
const MANY_PARKED: u32 = 1000;

/// The objects at the broker that one subscription needs.
pub(in super::super) struct Bindings {
    topic: String,
    group: Option<String>,
    dead_letters: Option<String>,
    topology: Topology,
    /// The binding keys of the queue.
    keys: Vec<String>,
    parked: Parked,
    letters: Letters,
}

impl Bindings {
    pub(in super::super) fn of(subscription: &Subscription, settings: &Settings) -> Self {
        let keys = match (subscription.group_name(), &settings.binding_key) {
            (Some(PARKED), _) if settings.parked == Parked::Unread => Vec::new(),
            (Some(_), _) => vec![ANY.to_owned()],
            (None, Some(keys)) => keys.split(',').map(str::to_owned).collect(),
            // A direct exchange has no key for all messages. These are the ones of this library,
            // and the usual one of others.
            (None, None) => [ANY, "", subscription.topic()].map(str::to_owned).into(),
        };
        Self {
            keys,
            parked: settings.parked,
            letters: Letters::default(),
            topic: subscription.topic().to_owned(),
            group: subscription.group_name().map(str::to_owned),
            dead_letters: subscription.dead_letter_topic().map(str::to_owned),
            topology: settings.topology,
        }
    }

    /// Declares the objects, or only checks that they exist. Returns the name of the queue.
    pub(in super::super) async fn declare(&self, live: &Live, channel: &Channel) -> Result<ShortString> {
        self.declare_topics(live, channel).await?;
        match &self.group {
            Some(_) if self.is_of_unread() => {
                declare_unread(live, channel, &self.topic, self.topology).await.map(|(queue, _)| queue)
            }
            Some(group) => {
                declare_group(live, channel, &self.topic, group, self.topology).await.map(|(queue, _)| queue)
            }
            None => declare_reader(live, channel, &self.topic, &self.keys).await,
        }
    }

    /// Returns `true` if what is missing may be made again.
    pub(in super::super) fn may_restore(&self) -> bool {
        self.topology == Topology::Create
    }

    /// Makes again what was deleted while the subscription lives. A publisher that makes the
    /// exchange again does not know the queues that were bound to it.
    pub(in super::super) async fn restore(&self, live: &Live, queue: &ShortString) -> Result<()> {
        let channel = live.channel(During::Declare).await?;
        self.declare_topics(live, &channel).await?;
        if self.is_of_unread() {
            declare_unread(live, &channel, &self.topic, self.topology).await?;
        }
        for key in &self.keys {
            bind(live, &channel, &self.topic, queue, key).await?;
        }
        let closed = channel.close(200, "done".into());
        live.request(During::Declare, closed).await
    }

    /// Returns `true` if the queue keeps the dead letters that no other queue takes.
    fn is_of_unread(&self) -> bool {
        self.parked == Parked::Unread && self.group.as_deref() == Some(PARKED)
    }

    async fn declare_topics(&self, live: &Live, channel: &Channel) -> Result<()> {
        declare_topic(live, channel, &self.topic, self.topology).await?;
        match &self.dead_letters {
            Some(dead) => {
                let parked = declare_dead_letters(live, channel, dead, self.topology, self.parked).await?;
                self.letters.see(dead, parked);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Declares a dead-letter topic with the group that keeps its messages. Returns their number.
async fn declare_dead_letters(
    live: &Live,
    channel: &Channel,
    dead: &str,
    topology: Topology,
    parked: Parked,
) -> Result<u32> {
    declare_topic(live, channel, dead, topology).await?;
    let declared = match (topology, parked) {
        (Topology::Create, Parked::All) => declare_group(live, channel, dead, PARKED, topology).await?,
        (Topology::Create, Parked::Unread) => declare_unread(live, channel, dead, topology).await?,
        _ => return Ok(0),
    };
    Ok(declared.1)
}

/// The number of messages in the queue that keeps all dead letters, as last warned of.
#[derive(Default)]
struct Letters(AtomicU32);

impl Letters {
    /// Warns of a queue that grows, each time that it has doubled.
    fn see(&self, dead: &str, parked: u32) {
        let told = self.0.load(Ordering::Relaxed);
        if parked < MANY_PARKED {
            self.0.store(0, Ordering::Relaxed);
        } else if parked / 2 >= told {
            self.0.store(parked, Ordering::Relaxed);
            let message = "dead letters are kept in the group parked until it is read, also if other groups handle \
                           them unless parked=unread is set: consume or purge its queue";
            tracing::warn!(topic = dead, parked, message);
        }
    }
}

/// The dead-letter topics of a driver's subscriptions. They have a queue that keeps their messages,
/// which a publisher that makes one of them again has to make, too.
#[derive(Debug)]
pub(in super::super) struct DeadLetterTopics {
    topics: Mutex<BTreeSet<String>>,
    parked: Parked,
}

impl DeadLetterTopics {
    pub(in super::super) fn new(parked: Parked) -> Self {
        Self { topics: Mutex::default(), parked }
    }

    pub(in super::super) fn add(&self, subscription: &Subscription) {
        let dead = subscription.dead_letter_topic().map(str::to_owned);
        self.topics.lock().extend(dead);
    }

    /// Declares a topic that is published to.
    pub(in super::super) async fn declare(
        &self,
        live: &Live,
        channel: &Channel,
        topic: &str,
        topology: Topology,
    ) -> Result<()> {
        match self.contains(topic) {
            true => declare_dead_letters(live, channel, topic, topology, self.parked).await.map(drop),
            false => declare_topic(live, channel, topic, topology).await,
        }
    }

    /// Returns the exchange for messages of this topic that no queue takes, if they are parked.
    pub(in super::super) fn parking(&self, topic: &str) -> Option<ShortString> {
        let is_parked = self.parked == Parked::Unread && self.contains(topic);
        is_parked.then(|| name(&format!("{topic}.{PARKED}")).ok()).flatten()
    }

    fn contains(&self, topic: &str) -> bool {
        self.topics.lock().contains(topic)
    }
}

impl fmt::Debug for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bindings").field("topic", &self.topic).field("group", &self.group).finish_non_exhaustive()
    }
}
