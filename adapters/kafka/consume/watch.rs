//! The watch over a consumer to which nothing comes.
//!
//! librdkafka restores lost connections by itself. A client that took the answer of a server that
//! starts or stops for the whole cluster may have no broker left to ask, and stays silent for good.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::{Offset, TopicPartitionList};

use super::super::connection::log::Listener;
use super::partitions::add;
use super::recipe::Recipe;
use super::start;

/// Interval of the looks.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// Maximum time of a question to the broker.
pub(crate) const ASK: Duration = Duration::from_secs(1);
/// Maximum time that another client has to receive a message.
const RECEIVE: Duration = Duration::from_secs(3);
/// The number of looks in a row after which a consumer is silent: one may come while it is
/// reconnecting.
const ENOUGH: u32 = 2;
/// Time for which it is believed that there is nothing to receive before the end of a partition.
const BELIEVED: Duration = Duration::from_secs(60);

/// The state of the watch.
pub(crate) struct Watch {
    looked: Instant,
    /// `true` if a message came since the last look, or none was wanted.
    is_well: bool,
    suspicions: u32,
    /// The ends of partitions before which another client received nothing, and the time of that.
    /// The last entry of a topic with transactions is a marker, which no client receives.
    nothing_before: Vec<(i32, i64)>,
    asked: Instant,
}

impl Watch {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { looked: now, is_well: true, suspicions: 0, nothing_before: Vec::new(), asked: now }
    }

    /// Notes that a message came, or that none is wanted now.
    pub(crate) fn note(&mut self) {
        self.is_well = true;
    }

    /// Returns `true` if it is time for a look.
    pub(crate) fn is_due(&self) -> bool {
        self.looked.elapsed() >= INTERVAL
    }

    /// Looks at a consumer. Returns `true` if it is silent: another client receives what it does
    /// not. Messages of some partitions wait to be taken.
    pub(crate) fn look(
        &mut self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        recipe: &Recipe,
        waiting: &[i32],
    ) -> bool {
        let is_suspect = !std::mem::take(&mut self.is_well) && self.is_left_out(consumer, recipe, waiting);
        self.suspicions = if is_suspect { self.suspicions + 1 } else { 0 };
        self.looked = Instant::now();
        let is_silent = self.suspicions >= ENOUGH;
        if is_silent {
            *self = Self::new();
        }
        is_silent
    }

    /// Returns `true` if the consumer reaches no broker, or has messages to receive, and another
    /// client does reach one, or receives them.
    fn is_left_out(&mut self, consumer: &BaseConsumer<impl ConsumerContext>, recipe: &Recipe, waiting: &[i32]) -> bool {
        let mut positions = recipe.assignment.positions();
        positions.retain(|(partition, _)| !waiting.contains(partition));
        let numbers: Vec<i32> = positions.iter().map(|(partition, _)| *partition).collect();
        let other = || recipe.configuration.create_with_context::<_, BaseConsumer<Listener>>(Listener::default()).ok();
        let reaches = |answer: Result<_, _>| answer.is_ok();
        match start::offsets(consumer, &recipe.topic, &numbers, Offset::End, ASK) {
            Ok(ends) if !ends.is_empty() => {
                let behind = self.behind(positions, &ends);
                let is_left =
                    !behind.is_empty() && other().is_some_and(|other| receives(&other, &recipe.topic, &behind));
                if !behind.is_empty() && !is_left {
                    (self.nothing_before, self.asked) = (ends, Instant::now());
                }
                is_left
            }
            // No partition is assigned, or one has no leader, which is not the consumer's fault.
            _ => {
                !reaches(consumer.fetch_metadata(Some(&recipe.topic), ASK))
                    && other().is_some_and(|other| reaches(other.fetch_metadata(Some(&recipe.topic), ASK)))
            }
        }
    }

    /// Returns the positions at which there may be messages before these ends.
    fn behind(&mut self, mut positions: Vec<(i32, i64)>, ends: &[(i32, i64)]) -> Vec<(i32, i64)> {
        if self.asked.elapsed() > BELIEVED {
            self.nothing_before.clear();
        }
        positions.retain(|(partition, next)| {
            let end = ends.iter().find(|(of, end)| of == partition && end > next);
            end.is_some_and(|end| !self.nothing_before.contains(end))
        });
        positions
    }
}

/// Returns `true` if a consumer receives a message at one of these positions.
fn receives(consumer: &BaseConsumer<Listener>, topic: &str, positions: &[(i32, i64)]) -> bool {
    let mut assigned = TopicPartitionList::new();
    positions.iter().for_each(|(partition, next)| add(&mut assigned, topic, *partition, *next));
    let deadline = Instant::now() + RECEIVE;
    let left = || deadline.saturating_duration_since(Instant::now());
    if consumer.assign(&assigned).is_err() {
        return false;
    }
    while !left().is_zero() {
        if let Some(Ok(_)) = consumer.poll(left()) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;

    use super::super::assignment::Assignment;
    use super::super::control::Control;
    use super::super::member::Policy;
    use super::*;

    /// Looks twice at a consumer of the first address, while another client would use the second.
    fn are_silent(consumer: &str, other: &str) -> [bool; 2] {
        let client = |servers: &str| {
            let mut client = ClientConfig::new();
            client.set("bootstrap.servers", servers).set("group.id", "group").to_owned()
        };
        let assignment = Arc::new(Assignment::new(8));
        let recipe = Recipe {
            configuration: client(other),
            topic: "topic".into(),
            is_grouped: true,
            policy: Policy { commits: true, positions: false, patience: Duration::ZERO },
            control: Control::new(Arc::clone(&assignment.window), None).0,
            assignment,
            queue: Arc::default(),
        };
        let consumer: BaseConsumer = client(consumer).create().unwrap();
        let mut watch = Watch::new();
        assert!(!watch.look(&consumer, &recipe, &[]), "it has just begun");
        [watch.look(&consumer, &recipe, &[]), watch.look(&consumer, &recipe, &[])]
    }

    #[test]
    fn what_no_client_receives_is_not_asked_for_again_before_the_end_moves() {
        let mut watch = Watch::new();
        let (positions, ends) = (vec![(0, 5), (1, 7)], [(0, 6), (1, 7)]);
        assert_eq!(watch.behind(positions.clone(), &ends), [(0, 5)]);
        watch.nothing_before = ends.to_vec();
        assert_eq!(watch.behind(positions.clone(), &ends), []);
        assert_eq!(watch.behind(positions.clone(), &[(0, 8), (1, 7)]), [(0, 5)]);
        watch.asked = Instant::now().checked_sub(2 * BELIEVED).unwrap();
        assert_eq!(watch.behind(positions, &ends), [(0, 5)], "it is asked for again after a while");
    }

    #[test]
    fn a_consumer_is_silent_that_reaches_no_broker_while_others_do() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("topic", 1, 1).unwrap();
        // Only root may listen on port 1, and no server does.
        let (alive, dead) = (cluster.bootstrap_servers(), "127.0.0.1:1");
        assert_eq!(are_silent(dead, &alive), [false, true]);
        assert_eq!(are_silent(dead, dead), [false, false], "the cluster is down");
        assert_eq!(are_silent(&alive, &alive), [false, false], "nothing is there to receive");
    }
}
