//! Makes the consumer of a subscription, at first and each time that it is made anew.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::super::error;
use super::assignment::Assignment;
use super::control::Control;
use super::member::{Member, Policy};
use super::offsets::Offsets;
use super::partitions::{add, note};
use super::progress::Progress;
use super::queue::Queue;
use crate::error::Result;

/// The settings of a subscription, and its parts that outlive a consumer.
pub(crate) struct Recipe {
    pub(crate) configuration: ClientConfig,
    pub(crate) topic: Arc<str>,
    pub(crate) is_grouped: bool,
    pub(crate) policy: Policy,
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) control: Arc<Control>,
    pub(crate) queue: Arc<Queue>,
}

/// A consumer, whose queues end with it.
pub(crate) struct Client(Arc<BaseConsumer<Member>>);

impl Deref for Client {
    type Target = BaseConsumer<Member>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The queues hold the consumer, which has to leave its group.
        self.0.context().intake.clear();
    }
}

impl Recipe {
    /// Makes a consumer that takes part in nothing yet.
    pub(crate) fn make(&self) -> Result<Client> {
        let member = Member::new(&self.assignment, &self.control, &self.queue, self.policy);
        let made = self.configuration.create_with_context(member);
        let mut consumer: BaseConsumer<Member> = made.map_err(error::from_client)?;
        let window = Arc::clone(&self.assignment.window);
        consumer.set_nonempty_callback(move || window.wake());
        let consumer = Arc::new(consumer);
        consumer.context().intake.belong_to(&consumer);
        Ok(Client(consumer))
    }

    /// Lets a consumer begin: as a member of the group, or in the partitions that are granted.
    pub(crate) fn begin(&self, consumer: &BaseConsumer<Member>) -> Result<()> {
        if self.is_grouped {
            return consumer.subscribe(&[&self.topic]).map_err(error::from_client);
        }
        let mut all = TopicPartitionList::new();
        self.assignment.each_next().into_iter().for_each(|(partition, next)| {
            add(&mut all, &self.topic, partition, next);
        });
        let numbers: Vec<i32> = all.elements().iter().map(|partition| partition.partition()).collect();
        consumer.context().intake.open(&self.topic, &numbers, &self.assignment.window);
        consumer.assign(&all).map_err(error::from_client)
    }

    /// Lets a reader without a group read the partitions that the topic got since it began. Nobody
    /// assigns them to it.
    pub(crate) fn add_partitions(&self, consumer: &BaseConsumer<Member>, limit: Duration) {
        note("partitions", self.try_to_add_partitions(consumer, limit));
    }

    fn try_to_add_partitions(&self, consumer: &BaseConsumer<Member>, limit: Duration) -> KafkaResult<()> {
        let metadata = consumer.fetch_metadata(Some(&self.topic), limit)?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        let new = partitions.map(|partition| partition.id()).filter(|id| self.assignment.get(*id).is_none());
        let mut added = TopicPartitionList::new();
        for partition in new {
            added.add_partition_offset(&self.topic, partition, Offset::Beginning)?;
        }
        if added.count() == 0 {
            return Ok(());
        }
        for partition in added.elements() {
            consumer.context().intake.open(&self.topic, &[partition.partition()], &self.assignment.window);
            self.assignment.grant(partition.partition(), Offsets::resume(0, Progress::default()));
        }
        consumer.incremental_assign(&added)
    }
}
