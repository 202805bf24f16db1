//! The exchanges, queues and bindings of one subscription.

use std::collections::BTreeSet;
use std::fmt;

use lapin::Channel;
use lapin::types::ShortString;
use parking_lot::Mutex;

use super::super::connection::Live;
use super::super::error::During;
use super::{PARKED, bind, declare_group, declare_reader, declare_topic};
use crate::driver::Topology;
use crate::error::Result;
use crate::message::Subscription;

/// The objects at the broker that one subscription needs.
pub(in super::super) struct Bindings {
    topic: String,
    group: Option<String>,
    dead_letters: Option<String>,
    topology: Topology,
}

impl Bindings {
    pub(in super::super) fn of(subscription: &Subscription, topology: Topology) -> Self {
        Self {
            topic: subscription.topic().to_owned(),
            group: subscription.group_name().map(str::to_owned),
            dead_letters: subscription.dead_letter_topic().map(str::to_owned),
            topology,
        }
    }

    /// Declares the objects, or only checks that they exist. Returns the name of the queue.
    pub(in super::super) async fn declare(&self, live: &Live, channel: &Channel) -> Result<ShortString> {
        self.declare_topics(live, channel).await?;
        match &self.group {
            Some(group) => declare_group(live, channel, &self.topic, group, self.topology).await,
            None => declare_reader(live, channel, &self.topic).await,
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
        bind(live, &channel, &self.topic, queue).await?;
        let closed = channel.close(200, "done".into());
        live.request(During::Declare, closed).await
    }

    async fn declare_topics(&self, live: &Live, channel: &Channel) -> Result<()> {
        declare_topic(live, channel, &self.topic, self.topology).await?;
        match &self.dead_letters {
            Some(dead) => declare_dead_letters(live, channel, dead, self.topology).await,
            None => Ok(()),
        }
    }
}

/// Declares a dead-letter topic with the group that keeps its messages.
async fn declare_dead_letters(live: &Live, channel: &Channel, dead: &str, topology: Topology) -> Result<()> {
    declare_topic(live, channel, dead, topology).await?;
    if topology == Topology::Create {
        declare_group(live, channel, dead, PARKED, topology).await?;
    }
    Ok(())
}

/// The dead-letter topics of a driver's subscriptions. They have a queue that keeps their messages,
/// which a publisher that makes one of them again has to make, too.
#[derive(Debug, Default)]
pub(in super::super) struct DeadLetterTopics(Mutex<BTreeSet<String>>);

impl DeadLetterTopics {
    pub(in super::super) fn add(&self, subscription: &Subscription) {
        let dead = subscription.dead_letter_topic().map(str::to_owned);
        self.0.lock().extend(dead);
    }

    /// Declares a topic that is published to.
    pub(in super::super) async fn declare(
        &self,
        live: &Live,
        channel: &Channel,
        topic: &str,
        topology: Topology,
    ) -> Result<()> {
        let is_dead = self.0.lock().contains(topic);
        match is_dead {
            true => declare_dead_letters(live, channel, topic, topology).await,
            false => declare_topic(live, channel, topic, topology).await,
        }
    }
}

impl fmt::Debug for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bindings").field("topic", &self.topic).field("group", &self.group).finish_non_exhaustive()
    }
}
