//! Queues that refuse messages, for good or while they have no leader.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use traced_broker::adapters::amqp::Amqp;
use traced_broker::driver::{Driver, DriverExt, Outbound};
use traced_broker::{ErrorKind, PublishOutcome, Topic};

use crate::driving::*;
use crate::faults::{REGISTRATION, start, with};
use crate::support::{Cluster, Kind, Server};

/// Maximum time after the death of a server until the others do its work.
const RECOVERY: Duration = Duration::from_secs(10);

/// Binds queues of another program to a topic.
async fn bind(server: &Server, topic: &Topic, queues: impl IntoIterator<Item = String>, arguments: FieldTable) {
    let connection =
        Connection::connect(&format!("{}/%2f", server.url()), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (exchange, durable) = (topic.as_str(), ExchangeDeclareOptions { durable: true, ..Default::default() });
    channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default()).await.unwrap();
    for queue in queues {
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(queue.as_str().into(), durable, arguments.clone()).await.unwrap();
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(queue.into(), exchange.into(), "#".into(), options, none).await.unwrap();
    }
    connection.close(200, "".into()).await.unwrap();
}

/// Returns the arguments of a queue that keeps one message.
fn of_one() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments
}

/// Returns the arguments of a queue that takes one message and refuses all others.
fn refusing() -> FieldTable {
    let mut arguments = of_one();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    arguments
}

/// Returns the numbers of the channels that confirm.
fn confirming(server: &Server) -> Vec<u32> {
    let listed = server.rabbitmqctl(&["list_channels", "number", "confirm"]).unwrap();
    listed.lines().filter_map(|line| line.strip_suffix("\ttrue")?.parse().ok()).collect()
}

/// The broker does not say why it refuses. A channel may be at fault, so it is replaced, which
/// costs other topics neither a message nor their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_takes_neither_order_nor_confirms_from_others() {
    let server = start().await;
    let (full, good) = (Topic::new("full").unwrap(), Topic::new("good").unwrap());
    bind(&server, &full, ["full".to_owned()], refusing()).await;
    // Many queues make the channel slow, so that another one would overtake it.
    bind(&server, &good, (0..40).map(|number| format!("good {number}")), of_one()).await;
    let amqp = connect_to(&format!("{}?max_in_flight=10000", server.url())).await.unwrap();
    let mut source = subscribe(&amqp, group(&good, "g")).await;
    let (mut refused, mut taken, mut count) = (Vec::new(), VecDeque::new(), 0);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        refused.push(amqp.enqueue(&full, outbound("")));
        for _ in 0..50 {
            taken.push_back(amqp.enqueue(&good, outbound(count.to_string())));
            count += 1;
        }
        // Always so many that some are on their way when the channel is replaced.
        while taken.len() > 1000 {
            confirmed(taken.pop_front().unwrap()).await.unwrap();
        }
    }
    let mut outcomes = HashSet::new();
    for confirmation in refused {
        let Err(error) = confirmed(confirmation).await else { continue };
        assert_eq!(error.publish_outcome(), PublishOutcome::Unknown, "{error}");
        outcomes.insert(error.kind());
    }
    assert_eq!(outcomes, HashSet::from([ErrorKind::Busy]), "it may pass");
    for confirmation in taken {
        confirmed(confirmation).await.unwrap();
    }
    for number in 0..count {
        assert_eq!(next_text(&mut source).await, number.to_string());
    }
    let channels = spawn_blocking({
        let server = Arc::clone(&server);
        move || confirming(&server)
    });
    let channels = channels.await.unwrap();
    assert!(channels.len() == 1 && channels[0] > 1, "one channel, which was replaced: {channels:?}");
    amqp.close().await.unwrap();
}

/// Publishes now and for later, until both are confirmed, and returns the errors before.
async fn publish_until_confirmed(amqp: &Amqp, topic: &Topic) -> Vec<String> {
    let mut errors = Vec::new();
    for delay in [None, Some(Duration::from_millis(500))] {
        loop {
            let deliver_at = delay.map(|delay| SystemTime::now() + delay);
            let text = if delay.is_none() { "now" } else { "later" };
            let message = Outbound { deliver_at, ..outbound(text) };
            match confirmed(amqp.enqueue(topic, message)).await {
                Ok(_) => break,
                Err(error) => errors.push(error.to_string()),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    errors
}

/// The first server leads all queues, because they are declared over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_and_delays_go_on_without_the_server_that_led() {
    let cluster = spawn_blocking(|| Cluster::try_start(Kind::RabbitMq)).await.unwrap().unwrap();
    let topic = Topic::new("led").unwrap();
    let first = connect_to(&cluster.nodes()[0].url()).await.unwrap();
    drop(subscribe(&first, group(&topic, "g")).await);
    assert_eq!(publish_until_confirmed(&first, &topic).await, [""; 0]);
    first.close().await.unwrap();
    let amqp = connect_to(&cluster.url()).await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    assert_eq!([next_text(&mut source).await, next_text(&mut source).await], ["now", "later"]);
    sleep(REGISTRATION).await;
    with(&cluster.nodes()[0], Server::kill).await;
    timeout(RECOVERY, publish_until_confirmed(&amqp, &topic)).await.expect("the others do its work");
    let mut texts = HashSet::new();
    while texts.len() < 2 {
        texts.insert(next_text(&mut source).await);
    }
    amqp.close().await.unwrap();
}
