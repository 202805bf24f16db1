//! The server of a cluster whose death hurts most.

use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::operator::{Done, Operator, PATIENCE, object, queue};
use crate::scenario::Broker;
use crate::site::{Site, blocking};
use crate::support::Server;

/// Returns the number of the server that leads the topic, or on RabbitMQ the queue of the group.
/// The replica of Redis stands for it, because a client of its primary has no other address.
///
/// # Errors
/// The cluster does not name one.
pub(crate) async fn find(broker: Broker, site: &Site, topic: &str, group: &str) -> Result<usize, String> {
    let operator = Operator { broker, url: site.direct.clone() };
    let found = match broker {
        Broker::Kafka => of_partition(operator, topic.to_owned()).await,
        Broker::Nats => of_stream(operator, site, topic).await,
        Broker::Amqp => of_queue(site, queue(topic, group)).await,
        Broker::Redis => Ok(1),
        Broker::Memory => Err("the embedded broker has no servers".into()),
    };
    found.map_err(|error| format!("no leader of {topic}: {error}"))
}

/// Returns the leader of the first partition. The ids of the servers count from 1.
async fn of_partition(operator: Operator, topic: String) -> Done<usize> {
    let consumer: BaseConsumer = operator.kafka().create()?;
    let asked = blocking(move || {
        let metadata = consumer.fetch_metadata(Some(&topic), PATIENCE)?;
        let partitions = metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
        Ok::<_, rdkafka::error::KafkaError>(partitions.first().map(|partition| partition.leader()))
    });
    let leader = asked.await??.ok_or("it has no partitions")?;
    Ok(usize::try_from(leader - 1)?)
}

async fn of_stream(operator: Operator, site: &Site, topic: &str) -> Done<usize> {
    let mut stream = operator.nats().await?.get_stream(object(topic)).await?;
    let cluster = stream.info().await?.cluster.clone();
    named(site, &cluster.and_then(|cluster| cluster.leader).ok_or("it has no leader")?)
}

/// Asks the servers in turn, because one that was cut off needs a while to work again.
async fn of_queue(site: &Site, queue: String) -> Done<usize> {
    let servers: Vec<Arc<Server>> = site.servers().to_vec();
    let ask = |server: &Arc<Server>| server.rabbitmqctl(&["list_queues", "name", "leader"]);
    let listed = blocking(move || servers.iter().find_map(|server| ask(server).ok())).await?;
    let listed = listed.ok_or("no server lists its queues")?;
    let line = listed.lines().find_map(|line| line.strip_prefix(&queue)?.strip_prefix('\t'));
    let node = line.ok_or("it is not listed")?;
    named(site, node.split_once('@').map_or(node, |(name, _)| name))
}

/// Returns the number of the server with this name, which ends with its port.
fn named(site: &Site, name: &str) -> Done<usize> {
    let port = name.rsplit('-').next().unwrap_or_default();
    Ok(site.number_at(port.parse()?).ok_or_else(|| format!("there is no server {name}"))?)
}
