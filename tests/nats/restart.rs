//! The server is killed, restarted or stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::spawn_blocking;
use traced_broker::driver::{Disposition, Driver, DriverExt, Outbound};
use traced_broker::{ErrorKind, PublishOutcome, Start, Subscription, Topic};

use crate::kit::{
    self, ack, assert_quiet, connect_to, message, next, next_message, publish, settle, subscribe, text, topic,
};
use crate::support::{Kind, Server};

async fn start() -> Arc<Server> {
    Arc::new(spawn_blocking(|| Server::start(Kind::Nats)).await.unwrap())
}

async fn kill(server: &Arc<Server>) {
    let server = Arc::clone(server);
    spawn_blocking(move || server.kill()).await.unwrap();
}

async fn restart(server: &Arc<Server>) {
    let server = Arc::clone(server);
    spawn_blocking(move || server.restart()).await.unwrap();
}

async fn pause(server: &Arc<Server>) {
    server.pause();
    // The signal takes a moment to reach every thread of the server.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settling_after_a_kill_takes_effect_or_is_lost_and_touches_nothing() {
    let server = start().await;
    for option in ["", "?ack=confirm"] {
        let nats = connect_to(&format!("{}{option}", server.url())).await.unwrap();
        let topic = topic("stale");
        kit::publish_numbers(&nats, &topic, 0..3).await;
        let mut source = subscribe(&nats, &topic, "workers").await;
        let held = [next(&mut source).await, next(&mut source).await, next(&mut source).await];
        kill(&server).await;
        // The client notices it a moment later; until then it still sends acknowledgements.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let [first, second, third] = held;
        let (name, early) = (text(&first).to_owned(), first.handle.settle(Disposition::Ack));
        restart(&server).await;
        kit::publish_numbers(&connect_to(&server.url()).await.unwrap(), &topic, 3..4).await;
        // A killed server may have forgotten that it handed these out, and hands them out again.
        let mut again = BTreeMap::new();
        while !again.contains_key("3") {
            let inbound = next_message(&mut source).await;
            again.insert(text(&inbound).to_owned(), inbound);
        }
        let expect = |name: &str, settled: traced_broker::Result<()>| match settled {
            Ok(()) => assert!(!again.contains_key(name), "{name} was handed out again"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::SettlementLost),
        };
        expect(&name, tokio::time::timeout(kit::SOON * 2, early).await.expect("an answer"));
        for inbound in [second, third] {
            let name = text(&inbound).to_owned();
            expect(&name, settle(inbound, Disposition::Ack).await);
        }
        for (_, inbound) in again {
            ack(inbound).await;
        }
        // What was lost comes again.
        while let Some(inbound) = kit::next_within(&mut source, Duration::from_secs(12)).await {
            ack(inbound.unwrap()).await;
        }
        drop(source);
        let mut source = subscribe(&nats, &topic, "workers").await;
        assert_quiet(&mut source).await;
        nats.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_without_an_answer_are_unknown_and_later_ones_not_sent() {
    let server = start().await;
    let nats = connect_to(&server.url()).await.unwrap();
    let topic = topic("unknown");
    nats.declare(&topic).await.unwrap();
    pause(&server).await;
    let unanswered = nats.enqueue(&topic, message("x"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    kill(&server).await;
    let start = Instant::now();
    let error = unanswered.await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::Unknown));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let error = publish(&nats, &topic, message("y")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::NotSent));
    assert_eq!(nats.ping().await.unwrap_err().kind(), ErrorKind::Unavailable);
    restart(&server).await;
    let start = Instant::now();
    while publish(&nats, &topic, message("z")).await.is_err() {
        assert!(start.elapsed() < kit::SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_makes_publishes_time_out_as_unknown() {
    let server = start().await;
    let nats = connect_to(&format!("{}?confirm_timeout=300", server.url())).await.unwrap();
    let topic = topic("still");
    nats.declare(&topic).await.unwrap();
    let mut source = subscribe(&nats, &topic, "workers").await;
    pause(&server).await;
    let begun = Instant::now();
    let error = publish(&nats, &topic, message("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Timeout, PublishOutcome::Unknown));
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(1));
    assert_eq!(nats.ping().await.unwrap_err().kind(), ErrorKind::Timeout);
    server.resume();
    let inbound = next_message(&mut source).await;
    assert_eq!(text(&inbound), "x", "it was stored after all");
    ack(inbound).await;
    assert!(publish(&nats, &topic, message("y")).await.unwrap().confirmed);
    let inbound = next_message(&mut source).await;
    assert_eq!(text(&inbound), "y", "and the late answer was not taken for another's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_go_on_where_they_were() {
    let server = start().await;
    let nats = connect_to(&server.url()).await.unwrap();
    let topic = topic("reader");
    nats.declare(&topic).await.unwrap();
    let mut source = nats.subscribe(&Subscription::new(&*topic)).await.unwrap();
    kit::publish_numbers(&nats, &topic, 0..3).await;
    for number in 0..3 {
        let inbound = next(&mut source).await;
        assert_eq!(text(&inbound), number.to_string());
        ack(inbound).await;
    }
    // A killed server loses the deliveries and settlements that it has not written yet.
    tokio::time::sleep(Duration::from_secs(1)).await;
    kill(&server).await;
    restart(&server).await;
    let other = connect_to(&server.url()).await.unwrap();
    kit::publish_numbers(&other, &topic, 3..6).await;
    let mut numbers = BTreeSet::new();
    while numbers.len() < 3 {
        let inbound = next_message(&mut source).await;
        let number: u32 = text(&inbound).parse().unwrap();
        // Earlier messages may be redelivered: a killed server loses the last acknowledgements.
        assert!(number >= 3 || inbound.deliveries > Some(1), "{number} is new to the reader");
        numbers.extend((number >= 3).then_some(number));
        ack(inbound).await;
    }
    assert_eq!(numbers, BTreeSet::from([3, 4, 5]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn core_listeners_listen_again() {
    let server = start().await;
    let url = format!("{}?mode=core", server.url());
    let nats = connect_to(&url).await.unwrap();
    let topic = topic("core");
    let mut source = nats.subscribe(&Subscription::new(&*topic).at_most_once()).await.unwrap();
    kill(&server).await;
    // Until the client notices the server's death, it accepts messages without a confirmation.
    // After that, publishing fails and sends none.
    let begun = Instant::now();
    let error = loop {
        assert!(begun.elapsed() < kit::SOON, "the client hears of the death");
        match publish(&nats, &topic, message("x")).await {
            Ok(receipt) => assert_eq!(receipt.outcome(), PublishOutcome::Unknown),
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::NotSent));
    restart(&server).await;
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < kit::SOON);
        let _ = publish(&nats, &topic, message("y")).await;
        if let Some(Ok(inbound)) = kit::next_within(&mut source, Duration::from_millis(50)).await {
            assert_eq!(text(&inbound), "y");
            return;
        }
    }
}

/// The outcomes of a run's publishes.
#[derive(Default)]
struct Attempts {
    confirmed: BTreeSet<String>,
    unknown: BTreeSet<String>,
    not_sent: BTreeSet<String>,
}

/// Publishes until it is told to stop, with 64 in flight at a time, and each message once.
async fn produce(url: String, topic: Topic, stop: Arc<AtomicBool>) -> Attempts {
    let nats = connect_to(&url).await.unwrap();
    nats.declare(&topic).await.unwrap();
    let mut attempts = Attempts::default();
    for burst in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let names: Vec<String> = (0..64).map(|number| format!("{burst}-{number}")).collect();
        let confirmations: Vec<_> = names.iter().map(|name| nats.enqueue(&topic, message(name.clone()))).collect();
        for (name, confirmation) in names.into_iter().zip(confirmations) {
            let kept = match confirmation.await {
                Ok(_) => &mut attempts.confirmed,
                Err(error) if error.publish_outcome() == PublishOutcome::Unknown => &mut attempts.unknown,
                Err(_) => &mut attempts.not_sent,
            };
            kept.insert(name);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    attempts
}

#[derive(Default)]
struct Consumed {
    seen: BTreeMap<String, u32>,
    settled: BTreeMap<String, u32>,
}

/// Consumes until no message has arrived for a while after the stop.
async fn consume(url: String, topic: Topic, stop: Arc<AtomicBool>) -> Consumed {
    let nats = connect_to(&url).await.unwrap();
    nats.declare(&topic).await.unwrap();
    let mut source = nats.subscribe(&Subscription::new(&*topic).group("workers")).await.unwrap();
    let mut consumed = Consumed::default();
    let mut quiet = Instant::now();
    while !stop.load(Ordering::Relaxed) || quiet.elapsed() < Duration::from_secs(4) {
        if let Some(Ok(inbound)) = kit::next_within(&mut source, Duration::from_millis(100)).await {
            quiet = Instant::now();
            let name = text(&inbound).to_owned();
            *consumed.seen.entry(name.clone()).or_default() += 1;
            if settle(inbound, Disposition::Ack).await.is_ok() {
                *consumed.settled.entry(name).or_default() += 1;
            }
        }
    }
    nats.close().await.unwrap();
    consumed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_confirmed_is_lost_when_the_server_is_killed() {
    let server = start().await;
    let topic = topic("killed");
    let stop = Arc::new(AtomicBool::new(false));
    let url = format!("{}?ack=confirm&ack_wait=2000", server.url());
    let producer = tokio::spawn(produce(url.clone(), topic.clone(), Arc::clone(&stop)));
    let consumer = tokio::spawn(consume(url, topic, Arc::clone(&stop)));
    const KILLS: u32 = 3;
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(700)).await;
        kill(&server).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        restart(&server).await;
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    stop.store(true, Ordering::Relaxed);
    let (attempts, consumed) = (producer.await.unwrap(), consumer.await.unwrap());

    assert!(attempts.confirmed.len() > 3000, "{} confirmed", attempts.confirmed.len());
    let lost: Vec<_> = attempts.confirmed.iter().filter(|name| !consumed.seen.contains_key(*name)).collect();
    assert!(lost.is_empty(), "confirmed and not delivered: {lost:?}");
    let ghosts: Vec<_> = attempts.not_sent.iter().filter(|name| consumed.seen.contains_key(*name)).collect();
    assert!(ghosts.is_empty(), "not sent and yet delivered: {ghosts:?}");
    let strangers =
        consumed.seen.keys().filter(|name| !attempts.confirmed.contains(*name) && !attempts.unknown.contains(*name));
    assert_eq!(strangers.count(), 0);
    assert!(consumed.seen.values().all(|times| *times <= 1 + KILLS), "delivered too often");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_for_later_outlives_the_server() {
    let server = start().await;
    let nats = connect_to(&server.url()).await.unwrap();
    let topic = topic("kept");
    nats.declare(&topic).await.unwrap();
    let now = SystemTime::now();
    // The first is due while the server is down, the other long after.
    for seconds in [1, 6] {
        let deliver_at = Some(now + Duration::from_secs(seconds));
        let sent = Outbound { deliver_at, id: Some(format!("id-{seconds}")), ..message(seconds.to_string()) };
        assert!(publish(&nats, &topic, sent).await.unwrap().confirmed);
    }
    kill(&server).await;
    drop(nats);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    restart(&server).await;
    let nats = connect_to(&server.url()).await.unwrap();
    let mut source = subscribe(&nats, &topic, "workers").await;
    for seconds in [1, 6] {
        let inbound = next_message(&mut source).await;
        let id = format!("id-{seconds}");
        assert_eq!((text(&inbound), inbound.id.as_deref()), (seconds.to_string().as_str(), Some(id.as_str())));
        assert!(SystemTime::now() >= now + Duration::from_secs(seconds));
        ack(inbound).await;
    }
    assert_quiet(&mut source).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_outlives_the_server() {
    let server = start().await;
    let nats = connect_to(&server.url()).await.unwrap();
    let topic = topic("moved");
    kit::publish_numbers(&nats, &topic, 0..5).await;
    let workers = Subscription::new(&*topic).group("workers");
    let mut source = nats.subscribe(&workers).await.unwrap();
    for _ in 0..5 {
        ack(next(&mut source).await).await;
    }
    drop(source);
    nats.reposition(&workers, Start::Offset(3)).await.unwrap();
    // A killed server loses data that it has not written yet.
    tokio::time::sleep(Duration::from_secs(1)).await;
    kill(&server).await;
    restart(&server).await;
    let nats = connect_to(&server.url()).await.unwrap();
    let mut source = nats.subscribe(&workers).await.unwrap();
    for number in 2..5 {
        let inbound = next_message(&mut source).await;
        assert_eq!(text(&inbound), number.to_string());
        ack(inbound).await;
    }
    assert_quiet(&mut source).await;
}
