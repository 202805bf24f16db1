//! Refusals of the broker: of commits, of membership, of an assignor. The mock cluster of
//! librdkafka stands for a broker that cannot be brought to refuse.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::time::timeout;
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Driver, Source};
use traced_broker::{Error, ErrorKind, Subscription, Topic};

use crate::harness::*;
use crate::support::{Kind, Server};

/// Returns the next error that the source reports. Messages are acknowledged.
async fn next_error(source: &mut Source) -> Error {
    let error = async {
        loop {
            match next_item(source).await.expect("the stream ended") {
                Ok(inbound) => drop(inbound.handle.settle(traced_broker::driver::Disposition::Ack).await),
                Err(error) => return error,
            }
        }
    };
    timeout(LONG, error).await.expect("nothing is reported")
}

async fn mocked(cluster: &MockCluster<'_, impl rdkafka::ClientContext>, options: &str) -> Kafka {
    connect(&format!("kafka://{}?{options}", cluster.bootstrap_servers())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_are_refused_are_told_once() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("commits", 1, 1).unwrap();
    let kafka = mocked(&cluster, "commit_interval=50").await;
    let topic = Topic::new("commits").unwrap();
    publish_numbers(&kafka, &topic, 0..10).await;
    let mut source = subscribe(&kafka, &topic, "refused").await;
    let first = next(&mut source).await;
    let denied = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 20];
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &denied);
    ack(first).await;
    let error = next_error(&mut source).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("commit"), "{error}");
    // Twenty commits are refused within a second, and the streak is told once.
    while let Ok(item) = timeout(Duration::from_secs(2), next_item(&mut source)).await {
        ack(item.unwrap().expect("told again")).await;
    }
    cluster.clear_request_errors(RDKafkaApiKey::OffsetCommit);
    publish_numbers(&kafka, &topic, 10..11).await;
    assert_eq!(drain(&mut source, 1).await, [10]);
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_once_says_why_nothing_comes() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("ahead", 1, 1).unwrap();
    let kafka = mocked(&cluster, "").await;
    let topic = Topic::new("ahead").unwrap();
    publish_numbers(&kafka, &topic, 0..10).await;
    let denied = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 20];
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &denied);
    let subscription = Subscription::new(&*topic).group("ahead").at_most_once();
    let mut source = kafka.subscribe(&subscription).await.unwrap();
    let error = next_item(&mut source).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    cluster.clear_request_errors(RDKafkaApiKey::OffsetCommit);
    assert_eq!(drain(&mut source, 10).await, (0..10).collect::<Vec<_>>());
    kafka.close().await.unwrap();
}

/// The member was removed from its group, and learns of it from the answer to its last commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_commit_that_is_not_stored_is_an_error_of_close() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("last", 1, 1).unwrap();
    let kafka = mocked(&cluster, "commit_interval=3600000").await;
    let topic = Topic::new("last").unwrap();
    publish_numbers(&kafka, &topic, 0..5).await;
    let mut source = subscribe(&kafka, &topic, "removed").await;
    drain(&mut source, 5).await;
    let unknown = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID; 500];
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &unknown);
    cluster.request_errors(RDKafkaApiKey::Heartbeat, &unknown);
    let error = kafka.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SettlementLost, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_instance_ends_its_subscription_with_a_clear_error() {
    let instance = || Kafka::builder(servers()).partitions(1).property("group.instance.id", "one");
    let (kafka, other) = (instance().connect().await.unwrap(), instance().connect().await.unwrap());
    let topic = topic(&kafka, "fenced").await;
    publish_numbers(&kafka, &topic, 0..1).await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    ack(next(&mut source).await).await;
    while committed(&topic, &topic, 1) != [Some(1)] {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let _second = subscribe(&other, &topic, &topic).await;
    let error = next_error(&mut source).await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("group.instance.id"), "{error}");
    assert!(next_item(&mut source).await.is_none(), "a consumer that cannot go on ends");
    kafka.close().await.unwrap();
    other.close().await.unwrap();
}

/// The protocol in which the broker assigns needs Kafka 4.0, or is switched off there.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_the_new_group_protocol_is_told() {
    let server = tokio::task::spawn_blocking(|| {
        let protocols = ("KAFKA_PROPERTIES", "group.coordinator.rebalance.protocols=classic".to_owned());
        Server::start_at(Kind::Kafka, Server::free_port(Kind::Kafka), vec![protocols])
    });
    let server = server.await.unwrap();
    let kafka = connect(&format!("{}?group_protocol=consumer", server.url())).await.unwrap();
    let topic = topic(&kafka, "older").await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    let error = next_error(&mut source).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("group_protocol=consumer"), "{error}");
    kafka.close().await.unwrap();
}

/// In the protocol in which the broker assigns, the client takes a full group for the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_the_client_has_given_up_is_made_anew() {
    let server = tokio::task::spawn_blocking(|| {
        let limit = ("KAFKA_PROPERTIES", "group.consumer.max.size=1".to_owned());
        Server::start_at(Kind::Kafka, Server::free_port(Kind::Kafka), vec![limit])
    });
    let server = server.await.unwrap();
    let kafka = connect(&format!("{}?group_protocol=consumer", server.url())).await.unwrap();
    let topic = topic(&kafka, "full").await;
    publish_numbers(&kafka, &topic, 0..5).await;
    let mut first = subscribe(&kafka, &topic, &topic).await;
    drain(&mut first, 5).await;
    let mut second = subscribe(&kafka, &topic, &topic).await;
    let error = next_error(&mut second).await;
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    drop(first);
    publish_numbers(&kafka, &topic, 5..10).await;
    let mut missing = as_set(5..10);
    while !missing.is_empty() {
        if let Ok(inbound) = next_item(&mut second).await.expect("the stream ended") {
            missing.remove(&number(&inbound));
            ack(inbound).await;
        }
    }
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_clients_with_another_assignor_is_a_conflict_that_an_option_ends() {
    let kafka = connect(&url_with("partitions=2")).await.unwrap();
    let topic = topic(&kafka, "mixed").await;
    let foreign: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers())
        .set("group.id", &*topic)
        .set("partition.assignment.strategy", "range,roundrobin")
        .create()
        .unwrap();
    foreign.subscribe(&[&topic]).unwrap();
    let member = std::thread::spawn(move || {
        let begun = std::time::Instant::now();
        let mut had = false;
        while begun.elapsed() < LONG {
            drop(foreign.poll(Duration::from_millis(50)));
            let count = foreign.assignment().unwrap().count();
            had |= count == 2;
            if had && count == 1 {
                return true;
            }
        }
        false
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    let error = next_error(&mut source).await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("assignor"), "{error}");
    drop(source);

    let alike = connect(&url_with("assignor=range")).await.unwrap();
    let source = subscribe(&alike, &topic, &topic).await;
    assert!(tokio::task::spawn_blocking(move || member.join().unwrap()).await.unwrap(), "it does not share");
    drop(source);
    kafka.close().await.unwrap();
    alike.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_subscriptions_of_one_group_do_not_share_an_instance_id() {
    let kafka = Kafka::builder(servers()).property("group.instance.id", "one").connect().await.unwrap();
    let topic = topic(&kafka, "static").await;
    let group = Subscription::new(&*topic).group(&*topic);
    let first = kafka.subscribe(&group).await.unwrap();
    let error = kafka.subscribe(&group).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("group.instance.id"), "{error}");
    // Readers are no members.
    kafka.subscribe(&Subscription::new(&*topic)).await.unwrap();
    drop(first);
    kafka.subscribe(&group).await.unwrap();
    kafka.close().await.unwrap();
}
