//! Subscribing: the consumer, its start position, and the stream of the messages that its thread
//! takes.

pub(crate) mod assignment;
pub(crate) mod commit;
pub(crate) mod control;
pub(crate) mod delivery;
pub(crate) mod intake;
pub(crate) mod member;
pub(crate) mod notes;
pub(crate) mod offsets;
pub(crate) mod opening;
pub(crate) mod partition;
pub(crate) mod partitions;
pub(crate) mod poller;
pub(crate) mod progress;
pub(crate) mod queue;
pub(crate) mod recipe;
pub(crate) mod renewals;
pub(crate) mod start;
pub(crate) mod suspects;
pub(crate) mod watch;
pub(crate) mod window;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use self::assignment::Assignment;
use self::control::Control;
use self::delivery::{Item, Taken};
use self::member::Policy;
use self::poller::Poller;
use self::queue::Queue;
use self::recipe::Recipe;
use self::window::Window;
use super::choices::OffsetReset;
use super::config::{ASSIGNOR, GROUP_PROTOCOL, KafkaBuilder, default};
use crate::adapters::kafka::topology;
use crate::driver::{Destination, Inbound, Source};
use crate::error::Result;
use crate::message::{Guarantee, Start, Subscription};
use futures_core::Stream;
use rdkafka::client::Client;
use rdkafka::consumer::Consumer as _;
use rdkafka::{ClientConfig, ClientContext};

/// Bound of the messages that are fetched ahead, in KiB: of a subscription that has all partitions
/// of its topic, and of each partition at least.
const AHEAD: i32 = 16_384;
const LEAST_AHEAD: i32 = 1024;

/// Starts a subscription: ensures that the topic exists, determines the start position, and starts
/// the thread. Blocks.
pub(super) fn open(
    client: &Client<impl ClientContext>,
    settings: &KafkaBuilder,
    subscription: &Subscription,
    destination: Destination,
) -> Result<(Source, Arc<Control>)> {
    let partitions = topology::ensure(client, settings, subscription.topic())?;
    let assignment = Arc::new(Assignment::new(subscription.prefetch_limit()));
    let window = Arc::clone(&assignment.window);
    let (control, answer) = Control::new(Arc::clone(&window), subscription.group_name());
    let recipe = recipe(settings, subscription, partitions, assignment, Arc::clone(&control));
    let consumer = recipe.make()?;
    let limit = settings.connect_timeout;
    match (subscription.group_name(), subscription.start_position()) {
        (Some(_), Start::Earliest) if !recipe.policy.positions => {}
        (Some(_), begin) => {
            let begin_at = |positions| consumer.context().begin_at(positions);
            start::position_group(&consumer, subscription.topic(), partitions, begin, limit, begin_at)?;
        }
        (None, begin) => {
            start::grant_reader(&consumer, &recipe.assignment, subscription.topic(), partitions, begin, limit)?;
        }
    }
    recipe.begin(&consumer)?;
    let queue = Arc::clone(&recipe.queue);
    Poller::new(consumer, recipe, subscription, settings.commit_interval).start(answer)?;
    let (stop, ending) = (Arc::clone(&control), Ending(Arc::clone(&control)));
    let deliveries = Deliveries { queue, batch: VecDeque::new(), window, ending };
    Ok((Source::new(destination, deliveries).on_stop(move || stop.stop()), control))
}

fn recipe(
    settings: &KafkaBuilder,
    subscription: &Subscription,
    partitions: i32,
    assignment: Arc<Assignment>,
    control: Arc<Control>,
) -> Recipe {
    let is_grouped = subscription.group_name().is_some();
    let policy = Policy {
        commits: is_grouped && subscription.guarantee() == Guarantee::AtLeastOnce,
        positions: is_grouped && settings.offset_reset != OffsetReset::Earliest,
        patience: settings.revoke_patience,
    };
    let (configuration, topic) = (configuration(settings, subscription, partitions), subscription.topic().into());
    Recipe { configuration, topic, is_grouped, policy, assignment, control, queue: Arc::default() }
}

/// Moves the position of the subscription's group. Blocks.
pub(super) fn reposition(
    client: &Client<impl ClientContext>,
    settings: &KafkaBuilder,
    subscription: &Subscription,
    start: Start,
) -> Result<()> {
    let partitions = topology::existing(client, settings, subscription.topic())?;
    let assignment = Arc::new(Assignment::new(0));
    let control = Control::new(Arc::clone(&assignment.window), None).0;
    let consumer = recipe(settings, subscription, partitions, assignment, control).make()?;
    start::reposition_group(&consumer, subscription.topic(), partitions, start, settings.connect_timeout)
}

fn configuration(settings: &KafkaBuilder, subscription: &Subscription, partitions: i32) -> ClientConfig {
    let mut client = settings.shared_client();
    let grouped = subscription.group_name().is_some();
    client
        .set("group.id", subscription.group_name().unwrap_or(&settings.reader_group))
        // The adapter commits, because librdkafka leaves out positions that have not advanced, with
        // the progress beyond them: in intervals, on revocation and on leaving the group.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // For positions that are gone. The start position of a group is committed, unless it is the
        // same: see `start`.
        .set("auto.offset.reset", settings.offset_reset.as_str());
    // Members that stay keep their partitions, with the messages in process, when other members
    // join or leave.
    if grouped && settings.assigned_by_broker() {
        // The broker decides the settings below, and the client refuses them with this protocol.
        client.set(GROUP_PROTOCOL, "consumer");
    } else {
        default(&mut client, ASSIGNOR, "cooperative-sticky");
        default(&mut client, "session.timeout.ms", "20000");
        default(&mut client, "heartbeat.interval.ms", "1000");
    }
    // The bound of messages fetched ahead, of each partition. After it was reached, fetching
    // continues soon and not after a second.
    let ahead = (AHEAD / partitions.max(1)).max(LEAST_AHEAD);
    default(&mut client, "queued.max.messages.kbytes", ahead.to_string());
    default(&mut client, "fetch.queue.backoff.ms", "20");
    client
}

/// The stream of the messages that the poller took.
struct Deliveries {
    queue: Arc<Queue>,
    batch: VecDeque<Item>,
    window: Arc<Window>,
    ending: Ending,
}

impl Deliveries {
    fn hand_out(&self, taken: Taken) -> Option<Inbound> {
        if taken.settled {
            self.window.release();
        } else if self.ending.0.is_stopping() {
            // Stays unsettled: the next member of the group receives it.
            return None;
        }
        taken.hand_out()
    }
}

impl Stream for Deliveries {
    type Item = Result<Inbound>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match this.batch.pop_front() {
                Some(Ok(taken)) => {
                    if let Some(inbound) = this.hand_out(taken) {
                        return Poll::Ready(Some(Ok(inbound)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if ready!(this.queue.poll_take(cx, &mut this.batch)) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Ends the subscription when the stream is dropped.
struct Ending(Arc<Control>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kafka;
    use super::*;

    #[test]
    fn the_partitions_of_a_topic_share_what_is_fetched_ahead() {
        let settings = Kafka::builder("localhost:9092");
        for (partitions, kilobytes) in [(1, "16384"), (6, "2730"), (600, "1024")] {
            let member = configuration(&settings, &Subscription::new("orders").group("workers"), partitions);
            assert_eq!(member.get("queued.max.messages.kbytes"), Some(kilobytes));
        }
    }

    #[test]
    fn readers_name_the_group_that_the_user_has_chosen() {
        let settings = Kafka::builder("localhost:9092");
        let named = settings.clone().reader_group("acl-readers");
        for (settings, name) in [(settings, "traced-broker-reader"), (named, "acl-readers")] {
            let reader = configuration(&settings, &Subscription::new("orders"), 6);
            assert_eq!(reader.get("group.id"), Some(name));
            let member = configuration(&settings, &Subscription::new("orders").group("workers"), 6);
            assert_eq!(member.get("group.id"), Some("workers"));
        }
    }
}
