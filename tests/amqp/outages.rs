//! Lost connections: what waits for them, what may be missing after them, and hosts that are gone.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use traced_broker::adapters::amqp::Amqp;
use traced_broker::driver::{Disposition, Driver, DriverExt};
use traced_broker::{Error, ErrorKind, PublishOutcome, Subscription, Topic};

use crate::driving::*;
use crate::faults::{REGISTRATION, start, with};
use crate::support::{Kind, Server};

/// Returns the first error of a publish that was certainly not sent.
async fn not_sent(amqp: &Amqp, topic: &Topic) -> (Error, Duration) {
    loop {
        let begin = Instant::now();
        match confirmed(amqp.enqueue(topic, outbound("lost"))).await {
            Err(error) if error.publish_outcome() == PublishOutcome::NotSent => return (error, begin.elapsed()),
            _ => sleep(Duration::from_millis(10)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_waits_for_the_connection_up_to_its_limit() {
    let server = start().await;
    let topic = Topic::new("patience").unwrap();
    let patient = connect_to(&server.url()).await.unwrap();
    let hasty = connect_to(&format!("{}?delivery_timeout=1500", server.url())).await.unwrap();
    let mut source = subscribe(&patient, group(&topic, "g")).await;
    sleep(REGISTRATION).await;
    with(&server, Server::kill).await;
    let (error, waited) = not_sent(&hasty, &topic).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(waited > Duration::from_secs(1) && waited < Duration::from_secs(8), "{waited:?}");
    let waiting: Vec<_> = (0..5).map(|number| patient.enqueue(&topic, outbound(number.to_string()))).collect();
    with(&server, Server::restart).await;
    for confirmation in waiting {
        timeout(Duration::from_secs(60), confirmation).await.expect("in time").expect("it waited");
    }
    for number in 0..5 {
        assert_eq!(next_text(&mut source).await, number.to_string(), "in order");
    }
    with(&server, Server::kill).await;
    let _ = not_sent(&hasty, &topic).await;
    let kept = patient.enqueue(&topic, outbound("kept"));
    let begin = Instant::now();
    let _ = patient.close().await;
    assert!(begin.elapsed() < Duration::from_secs(11), "{:?}", begin.elapsed());
    let error = confirmed(kept).await.unwrap_err();
    assert_eq!(error.publish_outcome(), PublishOutcome::NotSent, "{error}");
}

/// The queue of a reader goes with its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_says_that_messages_may_be_missing_and_leaves_the_server_little() {
    let server = start().await;
    let topic = Topic::new("gap").unwrap();
    let amqp = connect_to(&server.url()).await.unwrap();
    let mut reader = subscribe(&amqp, Subscription::new(topic.as_str())).await;
    let mut workers = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("before"))).await.unwrap();
    assert_eq!(next_text(&mut reader).await, "before");
    assert_eq!(next_text(&mut workers).await, "before");
    let listed = spawn_blocking({
        let server = std::sync::Arc::clone(&server);
        move || server.rabbitmqctl(&["list_queues", "name", "arguments"]).unwrap()
    });
    let queues = listed.await.unwrap();
    let of_reader = queues.lines().find(|line| line.starts_with("amq.gen")).unwrap();
    assert!(of_reader.contains("x-max-length-bytes"), "{of_reader}");

    with(&server, |server| drop(server.rabbitmqctl(&["close_all_connections", "upgrade"]).unwrap())).await;
    let item = timeout(PATIENCE, poll_fn(|cx| reader.poll_next(cx))).await.expect("an item").unwrap();
    let error = item.expect_err("there may be a gap");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("may be missing"), "{error}");
    confirmed(amqp.enqueue(&topic, outbound("after"))).await.unwrap();
    assert_eq!(next_text(&mut reader).await, "after");
    assert_eq!(next_text(&mut workers).await, "after", "a group misses nothing and says nothing");
}

/// Of hosts that swallow everything, each would cost a whole time-out.
#[tokio::test]
async fn hosts_that_do_not_answer_cost_little() {
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let names: Vec<_> = silent.iter().map(|silent| silent.local_addr().unwrap().to_string()).collect();
    let url = format!("amqp://{},{}", names.join(","), server().strip_prefix("amqp://").unwrap());
    let begin = Instant::now();
    for connected in join_all((0..4).map(|_| connect_to(&url))).await {
        connected.unwrap().ping().await.unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn the_hosts_share_the_connections() {
    let port = server().rsplit_once(':').unwrap().1;
    let url = format!("amqp://127.0.0.1:{port},localhost:{port}");
    let mut seen = std::collections::HashSet::new();
    let begin = Instant::now();
    while seen.len() < 2 {
        assert!(begin.elapsed() < PATIENCE, "{seen:?}");
        seen.insert(connect_to(&url).await.unwrap().identity().server_address.clone());
    }
}

/// A server with a shorter time limit than it was said to have costs one channel, not each again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_limit_of_the_server_is_learned_from_its_refusal() {
    let environment = vec![("RABBITMQ_CONSUMER_TIMEOUT", "6000".to_owned())];
    let kind = Kind::RabbitMq.of_generation();
    let start = move || Server::start_at(kind, Server::free_port(kind), environment);
    let server = spawn_blocking(start).await.unwrap();
    let topic = Topic::new("learned").unwrap();
    let amqp = connect_to(&server.url()).await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g").prefetch(8)).await;
    confirmed(amqp.enqueue(&topic, outbound("slow"))).await.unwrap();
    let slow = next(&mut source).await;
    timeout(3 * PATIENCE, slow.tenure.over()).await.expect("the server ends the channel");
    let slow = next(&mut source).await;
    let mut young = None;
    while !slow.tenure.is_over() {
        confirmed(amqp.enqueue(&topic, outbound("young"))).await.unwrap();
        if let Some(young) = young.replace(next(&mut source).await) {
            settle(young, Disposition::Ack).await.expect("a slow message costs no other its settlement");
        }
        sleep(Duration::from_millis(300)).await;
    }
    settle(young.unwrap(), Disposition::Ack).await.expect("the channel goes on");
}
