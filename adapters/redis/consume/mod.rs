//! Consuming: subscriptions, each with its own task and connections.

mod attempts;
mod channel;
mod delivery;
mod group;
mod holdings;
mod pending;
mod reader;
mod settle;
mod source;
mod thread;
mod trials;
mod trim;
mod window;

use crate::names::attribute;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::driver::{Destination, Source};
use crate::error::Result;
use crate::message::{Guarantee, Subscription};

use super::config::Config;
use super::connection::Connection;
use super::connection::backoff::random;
use super::connection::commands::Member;
use super::topology::{self, Begin};

use channel::EntryChannel;
use group::GroupTask;
use reader::{Position, ReaderTask};
use source::Deliveries;
use window::Window;

pub(super) use delivery::Memberships;
pub(super) use thread::MemberThread;

/// The prefix of the names of this library's consumers. No name is the prefix of another: all end
/// in 16 digits.
pub(super) const CONSUMER_PREFIX: &str = "traced-broker-";

/// Duration of silence after which a consumer counts as gone, in `claim_idle`s.
const TIDY_AFTER: u32 = 10;

/// Maximum time for which a read waits at the server for entries.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Maximum number of reports of trouble that wait to be delivered; further ones are only logged.
const MAX_REPORTS: usize = 16;

/// Returns `true` if the subscription must renew its entries.
pub(super) fn renews(subscription: &Subscription) -> bool {
    subscription.group_name().is_some() && subscription.guarantee() == Guarantee::AtLeastOnce
}

/// Starts a subscription, whose tasks run on the current runtime.
pub(super) async fn subscribe(
    config: Arc<Config>,
    subscription: Subscription,
    closing: CancellationToken,
    tasks: TaskTracker,
    memberships: Memberships,
) -> Result<Source> {
    let window = Arc::new(Window::new(subscription.prefetch_limit(), subscription.waiting_limit()));
    let (events, receiver) = mpsc::channel(subscription.prefetch_limit() + MAX_REPORTS);
    let channel = EntryChannel::new(events, closing, Arc::clone(&window), subscription.topic());
    let (stop, stream) = (channel.stop(), subscription.topic());
    let mut reader = Connection::open(&config, LONGEST_WAIT).await?;
    let start = topology::start(&mut reader, config.topology, stream, subscription.start_position()).await?;
    let destination = match subscription.group_name() {
        None => {
            let task = ReaderTask::new(config, channel, Position::after(stream, start));
            tasks.spawn(task.run(reader));
            Destination::new()
        }
        Some(group) => {
            let member = Member { stream: stream.to_owned(), group: group.to_owned(), consumer: consumer_name() };
            let begin = Begin { start, seen: None };
            topology::ensure_group(&mut reader, config.topology, &member, begin).await?;
            let destination = Destination::new().with_attribute(attribute::REDIS_CONSUMER_NAME, &*member.consumer);
            topology::tidy(&mut reader, &member, CONSUMER_PREFIX, config.claim_idle * TIDY_AFTER).await?;
            if renews(&subscription) {
                let task = GroupTask::new(config, channel, member, start, memberships);
                let links = task.complete(reader).await?;
                tasks.spawn(task.run(links));
            } else {
                let task = ReaderTask::new(config, channel, Position::of_group(member, start));
                tasks.spawn(task.run(reader));
            }
            destination
        }
    };
    Ok(Source::new(destination, Deliveries::new(receiver)).on_stop(stop))
}

/// Returns a name that no other subscription has, here or elsewhere, kept for as long as the
/// subscription lives.
fn consumer_name() -> String {
    format!("{CONSUMER_PREFIX}{}-{:016x}", std::process::id(), random())
}
