//! Subscribing: the consumer, its start position, and the stream of the messages that its thread
//! takes.

pub(crate) mod assignment;
pub(crate) mod commit;
pub(crate) mod delivery;
pub(crate) mod member;
pub(crate) mod partitions;
pub(crate) mod poller;
pub(crate) mod start;
pub(crate) mod window;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec;

use futures_core::Stream;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::mpsc;

use self::assignment::Assignment;
use self::delivery::Item;
use self::delivery::Taken;
use self::member::Member;
use self::poller::{Control, Poller};
use self::window::Window;
use super::config::{GROUP_PROTOCOL, KafkaBuilder, default};
use crate::adapters::kafka::{error, topology};
use crate::driver::{Destination, Inbound, Source};
use crate::error::Result;
use crate::message::{Guarantee, Start, Subscription};

/// The group name under which readers without a group fetch. They neither join it nor commit to it.
const READERS: &str = "traced-broker-reader";

/// Places in the channel for error items, beside those for deliveries.
const ERROR_ITEMS: usize = 8;

/// Starts a subscription: ensures that the topic exists, determines the start position, and starts
/// the thread. Blocks.
pub(super) fn open(
    client: &Client<impl ClientContext>,
    settings: &KafkaBuilder,
    subscription: &Subscription,
) -> Result<(Source, Arc<Control>)> {
    let partitions = topology::ensure(client, settings, subscription.topic())?;
    let assignment = Arc::new(Assignment::new(subscription.prefetch_limit()));
    let settled = subscription.guarantee() == Guarantee::AtMostOnce;
    let member = Member::new(Arc::clone(&assignment), subscription.group_name().is_some() && !settled);
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
    let (sender, receiver) = mpsc::channel(subscription.prefetch_limit() + ERROR_ITEMS);
    let window = Arc::clone(&assignment.window);
    let control = Poller::start(consumer, assignment, sender, subscription)?;
    let ending = Ending(Arc::clone(&control));
    let deliveries = Deliveries { receiver, batch: Vec::new().into_iter(), settled, window, _ending: ending };
    Ok((Source::new(Destination::new(), deliveries), control))
}

/// Moves the position of the subscription's group. Blocks.
pub(super) fn reposition(
    client: &Client<impl ClientContext>,
    settings: &KafkaBuilder,
    subscription: &Subscription,
    start: Start,
) -> Result<()> {
    let partitions = topology::existing(client, settings, subscription.topic())?;
    let member = Member::new(Arc::new(Assignment::new(0)), false);
    let consumer = configuration(settings, subscription).create_with_context(member).map_err(error::from_client)?;
    start::reposition_group(&consumer, subscription.topic(), partitions, start, settings.connect_timeout)
}

fn configuration(settings: &KafkaBuilder, subscription: &Subscription) -> ClientConfig {
    let mut client = settings.shared_client();
    let grouped = subscription.group_name().is_some();
    client
        .set("group.id", subscription.group_name().unwrap_or(READERS))
        // Only positions that the poller stores are committed: in intervals, on revocation and on
        // leaving the group.
        .set("enable.auto.commit", grouped.to_string())
        .set("auto.commit.interval.ms", settings.commit_interval.as_millis().to_string())
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
    /// Receives batches. Its capacity is that of the window, so that the poller never waits for it.
    receiver: mpsc::Receiver<Vec<Item>>,
    batch: vec::IntoIter<Item>,
    /// `true` with the guarantee at most once: messages that arrive here are committed.
    settled: bool,
    window: Arc<Window>,
    _ending: Ending,
}

impl Deliveries {
    fn hand_out(&self, taken: Taken) -> Option<Inbound> {
        if self.settled {
            self.window.release();
        } else if taken.partition.is_ended() {
            // Revoked before it was handed out: the member that has the partition now receives it.
            return None;
        }
        Some(taken.into_inbound(self.settled))
    }
}

impl Stream for Deliveries {
    type Item = Result<Inbound>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.batch.next() {
                Some(Ok(taken)) => {
                    if let Some(inbound) = self.hand_out(taken) {
                        return Poll::Ready(Some(Ok(inbound)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => match ready!(self.receiver.poll_recv(cx)) {
                    Some(batch) => self.batch = batch.into_iter(),
                    None => return Poll::Ready(None),
                },
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
