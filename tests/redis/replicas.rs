//! Messages that are confirmed only when replicas have them, on a primary and its replica.

use traced_broker::driver::{Driver, DriverExt};
use traced_broker::{ErrorKind, PublishOutcome, Topic};

use crate::harness::*;
use crate::support::Cluster;
use crate::support::Kind;

async fn cluster() -> Cluster {
    blocking(|| Cluster::try_start(Kind::Redis).unwrap()).await
}

/// Promotes the replica, and returns the messages that it has.
async fn promote(url: &str, topic: &Topic) -> Vec<String> {
    let mut raw = Raw::at(url).await;
    let _: () = raw.run(&["REPLICAOF", "NO", "ONE"]).await;
    let entries: Vec<(String, Vec<(String, String)>)> = raw.run(&["XRANGE", topic, "-", "+"]).await;
    entries.into_iter().map(|(_, fields)| fields[0].1.clone()).collect()
}

/// The replica is promoted while the primary is away. It has every message that was confirmed, and
/// one that it may not have was not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_confirmed_survives_a_failover_if_replicas_are_waited_for() {
    for (options, survives) in [("", false), ("?wait_replicas=1&wait_timeout=500", true)] {
        let cluster = cluster().await;
        let (broker, topic) = (connect(&format!("{}{options}", cluster.url())).await.unwrap(), topic("copies"));
        publish_numbers(&broker, &topic, 0..500).await;
        let nodes = cluster.nodes().to_vec();
        let [primary, replica] = nodes.try_into().map_err(|_| "two nodes").unwrap();
        let stopped = replica.clone();
        blocking(move || stopped.pause()).await;
        let last = publish(&broker, &topic, message("last")).await;
        blocking(move || primary.kill()).await;
        replica.resume();
        let kept = promote(&replica.url(), &topic).await;
        if !survives {
            // Confirmed by the primary alone. The replica may have it or not.
            assert!(last.is_ok(), "{last:?}");
            continue;
        }
        assert_eq!(kept[..500.min(kept.len())], numbers(0..500));
        let error = last.unwrap_err();
        assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Timeout, PublishOutcome::Unknown), "{error}");
        assert!(error.to_string().contains("wait_replicas=1"), "{error}");
        let _ = broker.close().await;
    }
}

/// A replica that is away for a while costs the publishes of that time, and the connection stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_are_confirmed_again_when_the_replica_is_back() {
    let cluster = cluster().await;
    let options = "?wait_replicas=1&wait_timeout=300&response_timeout=1000";
    let (broker, topic) = (connect(&format!("{}{options}", cluster.url())).await.unwrap(), topic("back"));
    let replica = cluster.nodes()[1].clone();
    blocking(move || replica.pause()).await;
    let confirmations: Vec<_> = (0..1000).map(|_| broker.enqueue(&topic, message("x"))).collect();
    for confirmation in confirmations {
        let error = confirmation.await.unwrap_err();
        assert!(error.to_string().contains("too few replicas"), "{error}");
    }
    cluster.nodes()[1].resume();
    let began = std::time::Instant::now();
    while publish(&broker, &topic, message("x")).await.is_err() {
        assert!(began.elapsed() < SOON);
    }
    publish_numbers(&broker, &topic, 0..1000).await;
    let unknown = connect(&format!("{}?wait_replicas=2&wait_timeout=200", cluster.url())).await.unwrap();
    let error = publish(&unknown, &topic, message("x")).await.unwrap_err();
    assert!(error.to_string().contains("replicas=1, wait_replicas=2"), "{error}");
    for broker in [broker, unknown] {
        broker.close().await.unwrap();
    }
}
