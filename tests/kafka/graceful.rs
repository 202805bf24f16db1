//! Members that join, leave and are deployed in an orderly way.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Disposition, Driver, DriverExt, Inbound, Source};
use traced_broker::{Subscription, Topic};

use crate::harness::*;

/// Duration of a handler: shorter than the patience, and long enough to be under way whenever the
/// group rebalances.
const HANDLER: Duration = Duration::from_millis(300);
/// Handlers of one member at a time, all that it may have unsettled.
const WINDOW: usize = 32;

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_join_and_leave_under_load_handles_nothing_twice() {
    join_and_leave("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_join_and_leave_handles_nothing_twice_in_the_new_group_protocol() {
    join_and_leave("group_protocol=consumer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_join_and_leave_handles_nothing_twice_after_range_assignment() {
    let builder = || Kafka::builder(servers()).property("partition.assignment.strategy", "range");
    join_and_leave_as(builder().connect().await.unwrap(), builder().connect().await.unwrap()).await;
}

async fn join_and_leave(options: &str) {
    let url = url_with(options);
    join_and_leave_as(connect(&url).await.unwrap(), connect(&url).await.unwrap()).await;
}

async fn join_and_leave_as(kafka: Kafka, other: Kafka) {
    let (kafka, topic) = (Arc::new(kafka), topic(&other, "graceful").await);
    let (enough, load) = under_load(&kafka, &topic);
    let (begun, mut handled) = mpsc::channel(100_000);
    let mut times: BTreeMap<u32, u32> = BTreeMap::new();
    let mut wait_for = async |of: &str, count: u32| {
        let mut seen = 0;
        while seen < count {
            let begun = timeout(LONG, handled.recv()).await;
            let (member, number) = begun.unwrap_or_else(|_| panic!("{of}: nothing is handled")).unwrap();
            *times.entry(number).or_default() += 1;
            seen += u32::from(member == of || of == "all");
        }
        u32::try_from(times.len()).unwrap()
    };

    let one = Worker::start(&kafka, &topic, "one", &begun).await;
    wait_for("one", 100).await;
    let two = Worker::start(&other, &topic, "two", &begun).await;
    wait_for("two", 100).await;
    let three = Worker::start(&other, &topic, "three", &begun).await;
    wait_for("three", 50).await;
    two.leave().await;
    wait_for("one", 50).await;
    one.leave().await;
    let mut distinct = wait_for("three", 50).await;
    enough.send(()).unwrap();
    let published = load.await.unwrap();
    while distinct < published {
        distinct = wait_for("all", 1).await;
    }
    three.leave().await;
    drop(begun);
    while let Some((_, number)) = handled.recv().await {
        *times.entry(number).or_default() += 1;
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "handled more than once: {twice:?}");
    kafka.close().await.unwrap();
    other.close().await.unwrap();
    let all: i64 = committed(&topic, &topic, 6).into_iter().flatten().sum();
    assert_eq!(all, i64::from(published));
}

/// Publishes until told that it is enough, somewhat faster than one member handles. Returns the
/// number of messages.
fn under_load(kafka: &Arc<Kafka>, topic: &Topic) -> (oneshot::Sender<()>, JoinHandle<u32>) {
    let (enough, mut told) = oneshot::channel();
    let (kafka, topic) = (Arc::clone(kafka), topic.clone());
    let load = tokio::spawn(async move {
        let (mut published, mut ticks) = (0, tokio::time::interval(Duration::from_millis(100)));
        while told.try_recv().is_err() {
            ticks.tick().await;
            let some = published..published + 12;
            let sent: Vec<_> = some.map(|n| kafka.enqueue(&topic, keyed(&n.to_string(), n.to_string()))).collect();
            for confirmation in sent {
                confirmation.await.unwrap();
                published += 1;
            }
        }
        published
    });
    (enough, load)
}

/// A member that handles several messages at a time.
struct Worker {
    leave: oneshot::Sender<()>,
    work: JoinHandle<()>,
}

impl Worker {
    async fn start(
        kafka: &Kafka,
        topic: &Topic,
        name: &'static str,
        begun: &mpsc::Sender<(&'static str, u32)>,
    ) -> Self {
        let subscription = Subscription::new(&**topic).group(&**topic).prefetch(WINDOW);
        let source = kafka.subscribe(&subscription).await.unwrap();
        let (leave, left) = oneshot::channel();
        let begun = begun.clone();
        let begin = move |inbound: &Inbound| begun.try_send((name, number(inbound))).unwrap();
        Self { leave, work: tokio::spawn(work(source, begin, left)) }
    }

    /// Stops the intake, finishes what has begun, and leaves.
    async fn leave(self) {
        self.leave.send(()).unwrap();
        self.work.await.unwrap();
    }
}

async fn work(mut source: Source, begin: impl Fn(&Inbound), mut left: oneshot::Receiver<()>) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut left => break,
            Some(()) = running.next(), if !running.is_empty() => {}
            item = poll_fn(|cx| source.poll_next(cx)) => {
                let inbound = item.expect("the stream ended").unwrap();
                begin(&inbound);
                running.push(handle(inbound));
            }
        }
    }
    source.stop();
    while running.next().await.is_some() {}
}

async fn handle(inbound: Inbound) {
    sleep(HANDLER).await;
    ack(inbound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_wait_for_deliveries_in_hand_no_longer_than_the_patience() {
    let url = url_with("partitions=2&revoke_patience=1500");
    let (kafka, other) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
    let topic = topic(&kafka, "patience").await;
    for (key, partition) in [("21", 0), ("abc", 1)] {
        assert_eq!(kafka.enqueue(&topic, keyed(key, "0")).await.unwrap().partition, Some(partition));
    }
    let mut one = subscribe(&kafka, &topic, &topic).await;
    let held = [next(&mut one).await, next(&mut one).await];
    let mut two = subscribe(&other, &topic, &topic).await;
    let winding_down = held.each_ref().map(|inbound| Box::pin(inbound.tenure.winding_down()));
    timeout(LONG, futures_util::future::select_all(winding_down)).await.expect("no partition moves");
    let begun = Instant::now();
    let (moving, staying): (Vec<_>, Vec<_>) = held.into_iter().partition(|inbound| !inbound.tenure.may_begin());
    let ([moving], [staying]) = (&moving[..], &staying[..]) else { panic!("one partition of two moves") };
    assert!(!moving.tenure.is_over(), "it can still be settled");
    timeout(LONG, moving.tenure.over()).await.expect("the partition is never let go");
    let waited = begun.elapsed();
    assert!((Duration::from_millis(1400)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
    assert_eq!(next(&mut two).await.partition, moving.partition);
    assert!(staying.tenure.may_begin());
    kafka.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_delivery_ends_the_wait_and_moves_the_position() {
    let url = url_with("partitions=2&revoke_patience=60000");
    let (kafka, other) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
    let topic = topic(&kafka, "settled").await;
    for (key, partition) in [("21", 0), ("abc", 1)] {
        for number in ["0", "1"] {
            assert_eq!(kafka.enqueue(&topic, keyed(key, number)).await.unwrap().partition, Some(partition));
        }
    }
    let subscription = Subscription::new(&*topic).group(&*topic).prefetch(4);
    let mut one = kafka.subscribe(&subscription).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(next(&mut one).await);
    }
    let mut two = other.subscribe(&subscription).await.unwrap();
    let winding_down = held.iter().map(|inbound| Box::pin(inbound.tenure.winding_down()));
    timeout(LONG, futures_util::future::select_all(winding_down)).await.expect("no partition moves");
    // Of the partition that moves, one message is handled and one is dropped.
    let moving = held.extract_if(.., |inbound| !inbound.tenure.may_begin());
    for inbound in moving.collect::<Vec<_>>() {
        if number(&inbound) == 1 {
            ack(inbound).await;
        }
    }
    let inbound = next(&mut two).await;
    assert_eq!((number(&inbound), inbound.attempt), (0, 1));
    assert!(is_quiet(&mut two).await, "the other one was handled");
    drop(held);
    kafka.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_source_takes_nothing_and_settles_what_is_in_hand() {
    let url = url_with("partitions=1&commit_interval=50");
    let (kafka, other) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
    let topic = topic(&kafka, "stopped").await;
    publish_numbers(&kafka, &topic, 0..20).await;
    let subscription = Subscription::new(&*topic).group(&*topic).prefetch(10);
    let mut one = kafka.subscribe(&subscription).await.unwrap();
    let [zero, first, second] = [next(&mut one).await, next(&mut one).await, next(&mut one).await];
    one.stop();
    ack(zero).await;
    let mut two = other.subscribe(&subscription).await.unwrap();
    assert!(is_quiet(&mut two).await, "the stopped member keeps its partition");
    assert!(is_quiet(&mut one).await, "nothing more is handed out");
    // The acknowledgement is committed while the source is stopped.
    let deadline = Instant::now() + LONG;
    while committed(&topic, &topic, 1) != [Some(1)] {
        assert!(Instant::now() < deadline, "never committed");
        sleep(Duration::from_millis(50)).await;
    }
    ack(second).await;
    first.handle.settle(Disposition::Ack).await.unwrap();
    drop(one);
    assert_eq!(drain(&mut two, 17).await, (3..20).collect::<Vec<_>>());
    kafka.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patience_that_gets_the_member_expelled_is_refused() {
    let error = connect(&url_with("revoke_patience=150001")).await.unwrap_err();
    assert_eq!(error.kind(), traced_broker::ErrorKind::InvalidConfig);
    let builder = Kafka::builder(servers()).property("max.poll.interval.ms", "60000");
    let error = builder.clone().revoke_patience(Duration::from_secs(31)).connect().await.unwrap_err();
    assert!(error.to_string().contains("max.poll.interval.ms"), "{error}");
    builder.revoke_patience(Duration::from_secs(30)).connect().await.unwrap();
}
