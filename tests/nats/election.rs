//! Publishing while a cluster elects the leader of a stream.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use traced_broker::driver::{Driver, DriverExt};
use traced_broker::{PublishOutcome, Receipt, Result};

use crate::kit::{SOON, ack, connect_to, message, next, subscribe, text, topic};
use crate::support::{Cluster, Kind};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_wait_for_the_leader_of_a_stream_and_keep_their_order() {
    const COUNT: u32 = 1500;
    let cluster = spawn_blocking(|| Cluster::try_start(Kind::Nats).unwrap()).await.unwrap();
    let nats = connect_to(&format!("{}?replicas=3", cluster.url())).await.unwrap();
    let topic = topic("election");
    nats.declare(&topic).await.unwrap();
    let publishing = async {
        let mut answers = Vec::new();
        for number in 0..COUNT {
            answers.push(nats.enqueue(&topic, message(number.to_string())));
            sleep(Duration::from_millis(1)).await;
        }
        timeout(SOON * 3, join_all(answers)).await.expect("answers")
    };
    let step_down = format!("$JS.API.STREAM.LEADER.STEPDOWN.{}", topic.replace('.', "~"));
    let electing = async {
        for _ in 0..4 {
            sleep(Duration::from_millis(400)).await;
            nats.as_client().request(step_down.clone(), "".into()).await.unwrap();
        }
    };
    let (answers, ()) = tokio::join!(publishing, electing);
    // A leader that steps down may forget what it has read, without an answer.
    let not_sent = |answer: &&Result<Receipt>| {
        answer.as_ref().is_err_and(|error| error.publish_outcome() == PublishOutcome::NotSent)
    };
    let failed: Vec<_> = answers.iter().filter(not_sent).collect();
    assert!(failed.is_empty(), "{} of {COUNT} failed: {:?}", failed.len(), failed[0]);
    let confirmed: Vec<usize> = (0..answers.len()).filter(|number| answers[*number].is_ok()).collect();
    assert!(confirmed.len() > COUNT as usize / 2, "{} of {COUNT} are confirmed", confirmed.len());
    let mut source = subscribe(&nats, &topic, "workers").await;
    let mut received: Vec<usize> = Vec::new();
    while received.last() < confirmed.last() {
        let inbound = next(&mut source).await;
        received.push(text(&inbound).parse().unwrap());
        ack(inbound).await;
    }
    assert!(received.is_sorted(), "{received:?}");
    let missing: Vec<_> = confirmed.iter().filter(|number| !received.contains(number)).collect();
    assert!(missing.is_empty(), "confirmed and not stored: {missing:?}");
}
