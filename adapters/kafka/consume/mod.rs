//! Subscribing: the consumer, its start position, and the stream of the messages that its thread
//! takes.

pub(crate) mod assignment;
pub(crate) mod commit;
pub(crate) mod control;
pub(crate) mod delivery;
pub(crate) mod flow;
pub(crate) mod member;
pub(crate) mod notes;
pub(crate) mod offsets;
pub(crate) mod opening;
pub(crate) mod partitions;
pub(crate) mod poller;
pub(crate) mod progress;
pub(crate) mod queue;
pub(crate) mod start;
pub(crate) mod suspects;
pub(crate) mod window;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use self::assignment::Assignment;
use self::control::Control;
use self::delivery::{Item, Taken};
use self::member::Member;
use self::poller::Poller;
use self::queue::Queue;
use self::window::Window;
use super::config::{GROUP_PROTOCOL, KafkaBuilder, default};
use crate::adapters::kafka::{error, topology};
use crate::driver::{Destination, Inbound, Source};
use crate::error::Result;
use crate::message::{Guarantee, Start, Subscription};
use futures_core::Stream;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, ClientContext};

/// The group name under which readers without a group fetch. They neither join it nor commit to it.
const READERS: &str = "traced-broker-reader";

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
    let (control, answer) = Control::new(Arc::clone(&window));
    let queue = Arc::new(Queue::default());
    let commits = subscription.group_name().is_some() && subscription.guarantee() == Guarantee::AtLeastOnce;
    let member = Member::new(&assignment, &control, &queue, commits, settings.revoke_patience);
    let configuration = configuration(settings, subscription);
    let consumer: BaseConsumer<Member> = configuration.create_with_context(member).map_err(error::from_client)?;
    let limit = settings.connect_timeout;
    match (subscription.group_name(), subscription.start_position()) {
        (Some(_), Start::Earliest) => {}
        (Some(_), begin) => {
            let begin_at = |positions| consumer.context().begin_at(positions);
            start::position_group(&consumer, subscription.topic(), partitions, begin, limit, begin_at)?;
        }
        (None, begin) => {
            start::assign_reader(&consumer, &assignment, subscription.topic(), partitions, begin, limit)?;
        }
    }
    if subscription.group_name().is_some() {
        consumer.subscribe(&[subscription.topic()]).map_err(error::from_client)?;
    }
    let (ours, stop) = (Arc::clone(&queue), Arc::clone(&control));
    Poller::new(consumer, assignment, Arc::clone(&control), queue, subscription, settings.commit_interval)
        .start(answer)?;
    let ending = Ending(Arc::clone(&control));
    let deliveries = Deliveries { queue: ours, batch: VecDeque::new(), window, ending };
    Ok((Source::new(destination, deliveries).on_stop(move || stop.stop()), control))
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
    let control = Control::new(Arc::clone(&assignment.window)).0;
    let member = Member::new(&assignment, &control, &Arc::default(), false, settings.revoke_patience);
    let consumer = configuration(settings, subscription).create_with_context(member).map_err(error::from_client)?;
    start::reposition_group(&consumer, subscription.topic(), partitions, start, settings.connect_timeout)
}

fn configuration(settings: &KafkaBuilder, subscription: &Subscription) -> ClientConfig {
    let mut client = settings.shared_client();
    let grouped = subscription.group_name().is_some();
    client
        .set("group.id", subscription.group_name().unwrap_or(READERS))
        // The adapter commits, because librdkafka leaves out positions that have not advanced, with
        // the progress beyond them: in intervals, on revocation and on leaving the group.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // The start position of a group that begins at the latest message is committed: see
        // `start`.
        .set("auto.offset.reset", "earliest");
    // Members that stay keep their partitions, with the messages in process, when other members
    // join or leave.
    if grouped && settings.assigned_by_broker() {
        // The broker decides the settings below, and the client refuses them with this protocol.
        client.set(GROUP_PROTOCOL, "consumer");
    } else {
        default(&mut client, "partition.assignment.strategy", "cooperative-sticky");
        default(&mut client, "session.timeout.ms", "20000");
        default(&mut client, "heartbeat.interval.ms", "1000");
    }
    // The bound of messages fetched ahead. After it was reached, fetching continues soon and not
    // after a second.
    default(&mut client, "queued.max.messages.kbytes", "16384");
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
