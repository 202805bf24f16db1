//! The way in: subscriptions, each with a task and connections of its own.

mod delivery;
mod group;
mod outlet;
mod pending;
mod reader;
mod settle;
mod source;
mod window;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::{Guarantee, Subscription};
use crate::driver::{Destination, Source};
use crate::error::Result;

use super::backoff::random;
use super::commands::Member;
use super::config::Config;
use super::connection::Connection;
use super::topology;

use group::GroupTask;
use outlet::Outlet;
use reader::{Position, ReaderTask};
use source::Deliveries;
use window::Window;

/// What the names of our consumers begin with. No name is the beginning of another: all end in 16 digits.
pub(super) const CONSUMER_PREFIX: &str = "traced-broker-";

/// For how long consumers must have been silent to count as gone, in `claim_idle`s.
const TIDY_AFTER: u32 = 10;

/// How long a read waits at the server for something to come.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How many reports of trouble may wait to be handed out; further ones are only logged.
const MAX_REPORTS: usize = 16;

/// Starts a subscription.
pub(super) async fn subscribe(
    config: &Arc<Config>,
    subscription: &Subscription,
    closing: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Source> {
    let window = Arc::new(Window::new(subscription.max_unsettled()));
    let (events, receiver) = mpsc::channel(subscription.max_unsettled() + MAX_REPORTS);
    let outlet = Outlet::new(events, closing.clone(), Arc::clone(&window), subscription.topic());
    let stream = subscription.topic();
    let mut reader = Connection::open(config, LONGEST_WAIT).await?;
    let start = topology::start(&mut reader, config.topology, stream, subscription.start_position()).await?;
    let destination = match subscription.group_name() {
        None => {
            let task = ReaderTask::new(Arc::clone(config), outlet, Position::after(stream, start));
            tasks.spawn(task.run(reader));
            Destination::new()
        }
        Some(group) => {
            let member = Member { stream: stream.to_owned(), group: group.to_owned(), consumer: consumer_name() };
            topology::ensure_group(&mut reader, config.topology, &member, start).await?;
            let destination = Destination::new().with_attribute("messaging.redis.consumer.name", &*member.consumer);
            topology::tidy(&mut reader, &member, CONSUMER_PREFIX, config.claim_idle * TIDY_AFTER).await?;
            if subscription.guarantee() == Guarantee::AtMostOnce {
                let task = ReaderTask::new(Arc::clone(config), outlet, Position::of_group(member, start));
                tasks.spawn(task.run(reader));
            } else {
                let task = GroupTask::new(Arc::clone(config), outlet, member, start);
                let links = task.complete(reader).await?;
                tasks.spawn(task.run(links));
            }
            destination
        }
    };
    Ok(Source::new(destination, Deliveries::new(receiver)))
}

/// A name that no other subscription has, here or elsewhere, kept for as long as the subscription lives.
fn consumer_name() -> String {
    format!("{CONSUMER_PREFIX}{}-{:016x}", std::process::id(), random())
}
