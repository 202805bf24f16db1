//! Topics: looks them up and creates missing ones. All functions here block.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::util::Timeout;
use tokio::runtime::Handle;

use super::config::KafkaBuilder;
use super::connection::log::Listener;
use super::error;
use crate::driver::{Destination, Topology};
use crate::error::{Error, ErrorKind, Result};
use crate::names::attribute;

/// A topic that exists on most clusters. A request for one topic is cheaper than one for all
/// topics, and a request for no topic is not possible.
const PROBE: &str = "__consumer_offsets";

const PAUSE: Duration = Duration::from_millis(20);

/// Makes a round trip to the broker.
pub(super) fn ping(client: &Client<impl ClientContext>, limit: Duration) -> Result<()> {
    client.fetch_metadata(Some(PROBE), limit).map(drop).map_err(error::from_client)
}

/// Returns the destination of every topic: the id of the cluster, if the client knows it already.
pub(super) fn destination(client: &Client<impl ClientContext>) -> Destination {
    match client.fetch_cluster_id(Duration::ZERO) {
        Some(id) => Destination::new().with_attribute(attribute::KAFKA_CLUSTER_ID, id.as_str()),
        None => Destination::new(),
    }
}

/// Creates the topic if it is missing and may be created. Returns its number of partitions.
pub(super) fn ensure(client: &Client<impl ClientContext>, settings: &KafkaBuilder, topic: &str) -> Result<i32> {
    let deadline = Instant::now() + settings.connect_timeout;
    if let Some(partitions) = look_up(client, topic, deadline)? {
        return Ok(partitions);
    }
    if settings.topology == Topology::Check {
        return Err(missing("the topic does not exist and topology=check forbids creating it", topic));
    }
    create(settings, topic, deadline)?;
    loop {
        // The broker that answers may not know the new topic yet.
        if let Some(partitions) = look_up(client, topic, deadline)? {
            await_leaders(client, topic, partitions, deadline);
            return Ok(partitions);
        }
        if Instant::now() > deadline {
            let message = "the topic was created and is not available yet; try again";
            return Err(Error::new(ErrorKind::Unavailable, message).with_context("topic", topic));
        }
        thread::sleep(PAUSE);
    }
}

/// Returns the number of partitions of a topic that must exist.
pub(super) fn existing(client: &Client<impl ClientContext>, settings: &KafkaBuilder, topic: &str) -> Result<i32> {
    let found = look_up(client, topic, Instant::now() + settings.connect_timeout)?;
    found.ok_or_else(|| missing("the topic does not exist", topic))
}

fn missing(message: &'static str, topic: &str) -> Error {
    Error::new(ErrorKind::NotFound, message).with_context("topic", topic)
}

/// Returns the number of partitions of the topic; `None` if it does not exist. Some of them may
/// have no leader now: the client waits for it, and the others go on.
fn look_up(client: &Client<impl ClientContext>, topic: &str, deadline: Instant) -> Result<Option<i32>> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
        let metadata = client.fetch_metadata(Some(topic), left).map_err(error::from_client)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let code = found.and_then(|found| found.error()).map(Code::from);
        match (found, code) {
            (_, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic)) => return Ok(None),
            (Some(found), None) => return Ok(i32::try_from(found.partitions().len()).ok().filter(|count| *count > 0)),
            // Not known yet to the broker that answers.
            (_, None | Some(Code::LeaderNotAvailable)) if Instant::now() < deadline => thread::sleep(PAUSE),
            (_, code) => {
                return Err(error::from_code(code.unwrap_or(Code::LeaderNotAvailable)).with_context("topic", topic));
            }
        }
    }
}

/// Waits until the leader of each partition of a new topic serves it. A leader that does not serve
/// it yet refuses the first batch of messages, and may take the second one, which is sent at once.
fn await_leaders(client: &Client<impl ClientContext>, topic: &str, partitions: i32, deadline: Instant) {
    for partition in 0..partitions {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
            let answer = client.fetch_watermarks(topic, partition, left);
            let code = answer.err().and_then(|error| error.rdkafka_error_code());
            let is_early = matches!(
                code,
                Some(Code::UnknownTopicOrPartition | Code::NotLeaderForPartition | Code::LeaderNotAvailable)
            );
            if !is_early || Instant::now() > deadline {
                break;
            }
            thread::sleep(PAUSE);
        }
    }
}

fn create(settings: &KafkaBuilder, topic: &str, deadline: Instant) -> Result<()> {
    let client = settings.shared_client();
    let admin: AdminClient<Listener> = client.create_with_context(Listener::default()).map_err(error::from_client)?;
    let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
    let options =
        AdminOptions::new().request_timeout(Some(Timeout::After(left))).operation_timeout(Some(Timeout::After(left)));
    let new = NewTopic::new(topic, settings.partitions, TopicReplication::Fixed(settings.replication));
    let results = Handle::current().block_on(admin.create_topics([&new], &options)).map_err(error::from_client)?;
    match results.into_iter().next() {
        None | Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => Ok(()),
        Some(Err((name, code))) => Err(error::from_code(code).with_source(code).with_context("topic", name)),
    }
}
