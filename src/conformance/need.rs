//! What a broker without a capability must do in its place: say so, before anything is lost.

use std::time::{Duration, SystemTime};

use super::case::Need;
use super::failure::{Checked, check, check_eq};
use super::world::{World, refused};
use crate::address::{Start, Subscription};
use crate::broker::TracedBroker;
use crate::capability::{Capabilities, Confirm};
use crate::error::ErrorKind;
use crate::message::{Message, PublishOutcome};

impl Need {
    /// Whether a broker can do it.
    pub fn is_met(self, capabilities: &Capabilities) -> bool {
        match self {
            Self::AtLeastOnce => capabilities.at_least_once,
            Self::Groups => capabilities.groups,
            Self::Backlog => capabilities.backlog,
            Self::Tombstones => capabilities.tombstones,
            Self::DelayedPublish => capabilities.delayed_publish,
            Self::StartAtTime => capabilities.start_at_time,
            Self::StartAtOffset => capabilities.start_at_offset,
            Self::Reposition => capabilities.reposition,
            Self::Durable => capabilities.confirm == Confirm::Broker,
        }
    }

    /// What the broker cannot do, in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "it forgets a message once it is handed out: nothing comes again",
            Self::Groups => "it has no consumer groups",
            Self::Backlog => "it keeps no messages for groups to come",
            Self::Tombstones => "it has no messages without a payload",
            Self::DelayedPublish => "it cannot keep a message for later",
            Self::StartAtTime => "no group or reader can begin at a time",
            Self::StartAtOffset => "no group or reader can begin at an offset",
            Self::Reposition => "groups cannot be moved: nothing is replayed",
            Self::Durable => "what it confirms does not outlive its process",
        }
    }

    /// Checks that a broker that cannot do it says so at the earliest moment.
    pub(super) async fn check_unsupported(self, world: &World) -> Checked {
        match self {
            Self::AtLeastOnce => {
                check_subscribing(world, world.group("g"), "with a group").await?;
                let kept = Subscription::new(&world.topic);
                check_unsupported_subscription(world, kept, "at least once").await
            }
            Self::Groups => {
                let group = Subscription::new(&world.topic).group("g").at_most_once();
                check_unsupported_subscription(world, group, "with a group").await
            }
            Self::Backlog => check_new_groups_begin_at_the_latest(world).await,
            Self::Tombstones => check_unsupported_message(world, Message::tombstone()).await,
            Self::DelayedPublish => {
                check_unsupported_message(world, Message::new("later").delay(Duration::from_secs(60))).await
            }
            Self::StartAtTime => {
                let start = Start::Time(SystemTime::now() - Duration::from_secs(60));
                check_unsupported_subscription(world, world.group("g").start(start), "from a time").await?;
                check_unsupported_subscription(world, world.reader().start(start), "from a time").await
            }
            Self::StartAtOffset => {
                let start = Start::Offset(0);
                check_unsupported_subscription(world, world.group("g").start(start), "from an offset").await?;
                check_unsupported_subscription(world, world.reader().start(start), "from an offset").await
            }
            Self::Reposition => {
                let broker = world.broker().await?;
                let error = refused("moving a group", broker.reposition(&world.group("g"), Start::Earliest).await)?;
                check_eq!(error.kind(), ErrorKind::Unsupported, "the kind of {error}");
                Ok(())
            }
            Self::Durable => check_receipts(world).await,
        }
    }
}

/// A subscription that is supported, so that the refusal of the other has one reason only.
async fn check_subscribing(world: &World, subscription: Subscription, how: &str) -> Checked {
    let broker = world.broker().await?;
    let result = broker.subscribe(subscription).await;
    result.map(drop).map_err(|error| super::Failure::from(error).during(how))
}

async fn check_unsupported_subscription(world: &World, subscription: Subscription, how: &str) -> Checked {
    let broker = world.broker().await?;
    let error = refused(&format!("subscribing {how}"), broker.subscribe(subscription).await)?;
    check_eq!(error.kind(), ErrorKind::Unsupported, "the kind of {error}");
    Ok(())
}

async fn check_unsupported_message(world: &World, message: Message) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let error = refused("the message", broker.publish(&world.topic, message).await)?;
    check_eq!(error.kind(), ErrorKind::Unsupported, "the kind of {error}");
    check_eq!(error.publish_outcome(), PublishOutcome::NotSent, "the outcome");
    world.nothing_comes(&mut deliveries).await
}

async fn check_new_groups_begin_at_the_latest(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut first = broker.subscribe(world.group("first")).await?;
    broker.publish(&world.topic, Message::new("before").key("one")).await?;
    check_eq!(world.drain(&mut first, 1).await?, ["before"], "the group that was there");
    let mut group = broker.subscribe(world.group("new")).await?;
    broker.publish(&world.topic, Message::new("after").key("one")).await?;
    check_eq!(world.drain(&mut group, 1).await?, ["after"], "the new group");
    Ok(())
}

/// A broker that does not keep what it confirms neither says that it does nor confirms what it never confirms.
async fn check_receipts(world: &World) -> Checked {
    let broker = world.broker().await?;
    let receipt = broker.publish(&world.topic, Message::new("x")).await?;
    world.check_receipt(&receipt)?;
    check!(
        world.harness.start_mortal().await?.is_none(),
        "what it confirms does not outlive it, so that there is nothing to kill"
    );
    Ok(())
}
