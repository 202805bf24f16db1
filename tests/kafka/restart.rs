//! A broker that dies, restarts, or does not answer. Each test has its own server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Disposition, Driver, DriverExt};
use traced_broker::{ErrorKind, PublishOutcome, Subscription};

use crate::harness::*;
use crate::support::{Kind, Server};

async fn server() -> Arc<Server> {
    spawn_blocking(|| Arc::new(Server::start(Kind::Kafka))).await.unwrap()
}

/// Runs a blocking operation on the server.
async fn on(server: &Arc<Server>, act: impl FnOnce(&Server) + Send + 'static) {
    let server = Arc::clone(server);
    spawn_blocking(move || act(&server)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_confirmed_is_lost_when_the_server_is_killed() {
    const MESSAGES: u32 = 6000;
    let server = server().await;
    let kafka = Arc::new(connect(&format!("{}?max_in_flight=64", server.url())).await.unwrap());
    let topic = topic(&kafka, "killed").await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    let publishing = tokio::spawn({
        let (kafka, topic) = (Arc::clone(&kafka), topic.clone());
        async move {
            let (mut confirmed, mut waiting) = (BTreeSet::new(), std::collections::VecDeque::new());
            for number in 0..MESSAGES + 64 {
                if waiting.len() == 64 || number >= MESSAGES {
                    let (number, confirmation): (u32, traced_broker::driver::Confirmation<_>) =
                        waiting.pop_front().unwrap();
                    if confirmation.await.is_ok() {
                        confirmed.insert(number);
                    }
                    // Slow enough that the server dies in the middle.
                    if number % 20 == 0 {
                        sleep(Duration::from_millis(10)).await;
                    }
                }
                if number < MESSAGES {
                    waiting.push_back((number, kafka.enqueue(&topic, keyed(&number.to_string(), number.to_string()))));
                }
            }
            confirmed
        }
    });
    let killing = tokio::spawn({
        let server = Arc::clone(&server);
        async move {
            for _ in 0..2 {
                sleep(Duration::from_millis(800)).await;
                on(&server, Server::kill).await;
                sleep(Duration::from_millis(200)).await;
                on(&server, Server::restart).await;
            }
        }
    });
    let mut received = BTreeSet::new();
    let mut confirmed = None;
    let mut publishing = std::pin::pin!(publishing);
    // Until everything confirmed is there: a member may join for long while the server starts.
    while confirmed.as_ref().is_none_or(|confirmed| !received.is_superset(confirmed)) {
        tokio::select! {
            done = &mut publishing, if confirmed.is_none() => confirmed = Some(done.unwrap()),
            item = timeout(LONG, next_item(&mut source)) => {
                let Ok(item) = item else { break };
                let inbound = item.unwrap().unwrap();
                received.insert(number(&inbound));
                // It is lost if the assignment is; then the message is redelivered.
                let _ = inbound.handle.settle(Disposition::Ack).await;
            }
        }
    }
    killing.await.unwrap();
    let confirmed = confirmed.expect("publishing ends");
    assert!(confirmed.len() > 5000, "{} of {MESSAGES} confirmed", confirmed.len());
    let lost: Vec<_> = confirmed.difference(&received).take(20).collect();
    assert!(lost.is_empty(), "confirmed and never delivered: {lost:?}…");
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_unsettled_before_the_restart_settles_itself_or_nothing() {
    let server = server().await;
    let kafka = connect(&format!("{}?partitions=1&commit_interval=50", server.url())).await.unwrap();
    let topic = topic(&kafka, "unsettled").await;
    publish_numbers(&kafka, &topic, 0..10).await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    let mut reader = kafka.subscribe(&Subscription::new(&*topic)).await.unwrap();
    let first = next(&mut source).await;
    drain(&mut source, 9).await;
    on(&server, |server| {
        server.kill();
        server.restart();
    })
    .await;
    publish_numbers(&kafka, &topic, 10..12).await;
    assert_eq!(drain(&mut reader, 2).await, [10, 11], "a reader without a group goes on where it was");

    let settled = first.handle.settle(Disposition::Ack).await;
    let mut expected: BTreeSet<u32> = as_set(10..12);
    if let Err(error) = settled {
        assert_eq!(error.kind(), ErrorKind::SettlementLost);
        // The others were settled; they come again only if that was not committed in time.
        expected.insert(0);
    }
    let mut received = BTreeSet::new();
    while !received.is_superset(&expected) {
        let inbound = next(&mut source).await;
        received.insert(number(&inbound));
        ack(inbound).await;
    }
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_says_whether_bytes_had_left() {
    let server = server().await;
    // A topic takes longer than these limits on a busy machine.
    let patient = connect(&format!("{}?partitions=1", server.url())).await.unwrap();
    let topic = topic(&patient, "outcome").await;
    publish_numbers(&patient, &topic, 0..2).await;
    let url = format!("{}?partitions=1&delivery_timeout=1500&connect_timeout=2000", server.url());
    let kafka = connect(&url).await.unwrap();
    let deadline = Instant::now() + LONG;
    while kafka.enqueue(&topic, outbound("2")).await.is_err() {
        assert!(Instant::now() < deadline, "it never begins");
    }

    // The server accepts the bytes and does not answer.
    on(&server, Server::pause).await;
    let error = kafka.enqueue(&topic, outbound("3")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Timeout, PublishOutcome::Unknown), "{error}");
    let begun = Instant::now();
    let error = kafka.ping().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(6));
    on(&server, Server::resume).await;

    // The outcome is unknown indeed: the message may be stored. Later messages are sent again.
    let deadline = Instant::now() + LONG;
    while kafka.enqueue(&topic, outbound("4")).await.is_err() {
        assert!(Instant::now() < deadline, "it never recovers");
    }

    on(&server, Server::kill).await;
    sleep(Duration::from_millis(300)).await;
    let error = kafka.enqueue(&topic, outbound("5")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::NotSent), "{error}");

    on(&server, Server::restart).await;
    let mut source = subscribe(&patient, &topic, &topic).await;
    let mut received = Vec::new();
    while received.last() != Some(&4) {
        received.push(number(&next(&mut source).await));
    }
    assert!(is_quiet(&mut source).await, "what was not sent is there");
    kafka.close().await.unwrap();
    patient.close().await.unwrap();
}

/// The server restarts in order while a member is idle. What it has committed is not repeated.
async fn restarts_without_a_repeat(options: &str) {
    let server = server().await;
    let kafka = connect(&format!("{}?commit_interval=50&{options}", server.url())).await.unwrap();
    let topic = topic(&kafka, "restarted").await;
    publish_numbers(&kafka, &topic, 0..20).await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    drain(&mut source, 20).await;
    let deadline = Instant::now() + LONG;
    let is_committed = |server: &Server| {
        let servers = format!("127.0.0.1:{}", server.port());
        let committed = committed_at(&servers, &topic, &topic, 6);
        committed
            .elements()
            .iter()
            .filter_map(|partition| partition.offset().to_raw())
            .filter(|at| *at > 0)
            .sum::<i64>()
    };
    while is_committed(&server) < 20 {
        assert!(Instant::now() < deadline, "not committed");
        sleep(Duration::from_millis(100)).await;
    }
    on(&server, Server::restart).await;
    publish_numbers(&kafka, &topic, 20..30).await;
    assert_eq!(as_set(drain(&mut source, 10).await), as_set(20..30));
    assert!(is_quiet(&mut source).await);
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_repeats_nothing() {
    restarts_without_a_repeat("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_repeats_nothing_in_the_new_group_protocol() {
    restarts_without_a_repeat("group_protocol=consumer").await;
}

/// A member acknowledges ten messages, and loses its partition before they are committed: the
/// server does not answer for longer than its session. Then it settles so many of the redelivered
/// ones.
async fn loses_its_session(settled_again: usize) -> traced_broker::Result<()> {
    let server = server().await;
    let builder = Kafka::builder(format!("127.0.0.1:{}", server.port())).partitions(1);
    // Only the close commits, and the least session that the server permits.
    let builder = builder.commit_interval(Duration::from_secs(3600)).property("session.timeout.ms", "6000");
    let kafka = builder.connect().await.unwrap();
    let topic = topic(&kafka, "session").await;
    publish_numbers(&kafka, &topic, 0..10).await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    let first = next(&mut source).await;
    let tenure = first.tenure.clone();
    ack(first).await;
    drain(&mut source, 9).await;
    on(&server, Server::pause).await;
    let deadline = Instant::now() + LONG;
    while !tenure.is_over() {
        assert!(Instant::now() < deadline, "the session does not end");
        sleep(Duration::from_millis(100)).await;
    }
    on(&server, Server::resume).await;
    assert_eq!(drain(&mut source, settled_again).await, (0..settled_again as u32).collect::<Vec<_>>());
    let _in_hand = if settled_again < 10 { Some(next(&mut source).await) } else { None };
    kafka.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_that_were_lost_with_the_session_are_an_error_of_close() {
    let error = loses_its_session(3).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SettlementLost, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_was_made_good_before_the_close_is_none() {
    loses_its_session(10).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_without_a_server_ends_in_time() {
    let server = server().await;
    // Only the close commits.
    let url = format!("{}?connect_timeout=3000&commit_interval=3600000", server.url());
    let kafka = connect(&url).await.unwrap();
    let topic = topic(&kafka, "gone").await;
    publish_numbers(&kafka, &topic, 0..10).await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    drain(&mut source, 10).await;
    on(&server, Server::kill).await;
    let begun = Instant::now();
    // The last acknowledgements cannot be delivered, and `close` reports it.
    let error = kafka.close().await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(error.is_retryable(), "{error}");
    assert!(next_item(&mut source).await.is_none());
}
