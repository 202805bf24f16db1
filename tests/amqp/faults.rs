//! Servers that die, hang and return.

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use traced_broker::adapters::amqp::Amqp;
use traced_broker::driver::{Disposition, Driver, DriverExt, Inbound, Outbound, Source};
use traced_broker::{ErrorKind, Message, PublishOutcome, Topic, Traced, TracedBroker};

use crate::driving::*;
use crate::support::{Kind, Server};

/// Maximum duration of a restart and the recovery after it.
const RECOVERY: Duration = Duration::from_secs(60);
/// RabbitMQ enters a new queue in a register that it writes to disk only every five seconds. If the
/// server is killed before that, the queue comes back without its messages.
pub(crate) const REGISTRATION: Duration = Duration::from_secs(6);

pub(crate) async fn start() -> Arc<Server> {
    spawn_blocking(|| Arc::new(Server::start(Kind::RabbitMq.of_generation()))).await.unwrap()
}

/// Runs an operation on a server that blocks until it is done.
pub(crate) async fn with(server: &Arc<Server>, act: impl FnOnce(&Server) + Send + 'static) {
    let server = Arc::clone(server);
    spawn_blocking(move || act(&server)).await.unwrap();
}

/// Publishes numbered messages until stopped; records the confirmed ones and those with an unknown
/// outcome.
struct Sender {
    confirmed: HashSet<u32>,
    unknown: HashSet<u32>,
}

/// Keeps 64 publishes in flight and never reuses a number. Continues until it is told to stop and a
/// few thousand are confirmed.
async fn send(amqp: Arc<Amqp>, topic: Topic, stop: Arc<AtomicBool>) -> Sender {
    let mut sender = Sender { confirmed: HashSet::new(), unknown: HashSet::new() };
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) || sender.confirmed.len() < 3000 {
        let batch: Vec<_> = (next..next + 64).map(|n| (n, amqp.enqueue(&topic, outbound(n.to_string())))).collect();
        next += 64;
        let mut sent = true;
        for (n, confirmation) in batch {
            match tokio::time::timeout(RECOVERY, confirmation).await.expect("an answer") {
                Ok(receipt) => {
                    assert!(receipt.confirmed && sender.confirmed.insert(n));
                }
                Err(error) if error.publish_outcome() == PublishOutcome::Unknown => {
                    assert!(sender.unknown.insert(n));
                }
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    sent = false;
                }
            }
        }
        if !sent {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    sender
}

/// Receives and acknowledges until all `confirmed` messages, once they are known, have arrived and
/// no more follow; or until no message has arrived for longer than a recovery may take.
async fn drain(mut source: Source, confirmed: watch::Receiver<Option<HashSet<u32>>>) -> HashSet<u32> {
    let mut received = HashSet::new();
    let mut last = Instant::now();
    loop {
        let item = poll_fn(|cx| source.poll_next(cx));
        match tokio::time::timeout(Duration::from_secs(2), item).await {
            Ok(item) => {
                let inbound = item.expect("the source goes on").unwrap();
                received.insert(text(&inbound).parse().unwrap());
                match settle(inbound, Disposition::Ack).await {
                    Ok(()) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::SettlementLost),
                }
                last = Instant::now();
            }
            Err(_) => {
                let all = confirmed.borrow().as_ref().is_some_and(|confirmed| confirmed.is_subset(&received));
                if all || last.elapsed() > RECOVERY {
                    return received;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_survives_the_death_of_the_server() {
    let server = start().await;
    let topic = Topic::new("survivors").unwrap();
    let amqp = Arc::new(connect_to(&server.url()).await.unwrap());
    let source = subscribe(&amqp, group(&topic, "g")).await;
    tokio::time::sleep(REGISTRATION).await;
    let stop = Arc::new(AtomicBool::new(false));
    let sending = tokio::spawn(send(Arc::clone(&amqp), topic.clone(), Arc::clone(&stop)));
    let (confirmed, known) = watch::channel(None);
    let receiving = tokio::spawn(drain(source, known));
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        with(&server, Server::kill).await;
        with(&server, Server::restart).await;
    }
    stop.store(true, Ordering::Relaxed);
    let sent = tokio::time::timeout(2 * RECOVERY, sending).await.expect("the sender makes progress").unwrap();
    confirmed.send_replace(Some(sent.confirmed.clone()));
    let received = receiving.await.unwrap();
    let lost: Vec<_> = sent.confirmed.difference(&received).collect();
    assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
    let invented: Vec<_> =
        received.iter().filter(|n| !sent.confirmed.contains(n) && !sent.unknown.contains(n)).collect();
    assert!(invented.is_empty(), "certainly not sent, but there: {invented:?}");
    assert!(!sent.unknown.is_empty(), "the kills hit publishes under way, or this test proves nothing");
    amqp.close().await.unwrap();
}

/// Delivery tags begin at 1 on every connection: old tags must not settle messages of the new
/// connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reconnection_old_deliveries_settle_nothing() {
    let server = start().await;
    let topic = Topic::new("stale").unwrap();
    let amqp = connect_to(&server.url()).await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g").prefetch(20)).await;
    for n in 0..20 {
        confirmed(amqp.enqueue(&topic, outbound(n.to_string()))).await.unwrap();
    }
    let mut old: Vec<Inbound> = Vec::new();
    for _ in 0..10 {
        old.push(next(&mut source).await);
    }
    tokio::time::sleep(REGISTRATION).await;
    with(&server, Server::kill).await;
    let stale = old.split_off(5);
    let over = stale[0].tenure.over();
    tokio::time::timeout(PATIENCE, over).await.expect("the end is noticed although nobody polls");
    let gone = Instant::now();
    while settle_first(&mut old).await != Some(ErrorKind::SettlementLost) {
        assert!(gone.elapsed() < PATIENCE && !old.is_empty(), "the loss of the connection is noticed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    with(&server, Server::restart).await;

    let first = tokio::time::timeout(RECOVERY, next(&mut source)).await.unwrap();
    let mut new = vec![first];
    for inbound in stale {
        assert_eq!(settle(inbound, Disposition::Ack).await.unwrap_err().kind(), ErrorKind::SettlementLost);
    }
    for _ in 1..20 {
        new.push(next(&mut source).await);
    }
    let texts: HashSet<_> = new.iter().map(text).collect();
    assert_eq!(texts.len(), 20, "all of them came back: {texts:?}");
    drop(new);
    amqp.close().await.unwrap();

    let amqp = connect_to(&server.url()).await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let mut still_there = HashSet::new();
    for _ in 0..20 {
        still_there.insert(next_text(&mut source).await);
    }
    assert_eq!(still_there, texts, "no old acknowledgement took one of them away");
}

async fn settle_first(held: &mut Vec<Inbound>) -> Option<ErrorKind> {
    settle(held.remove(0), Disposition::Ack).await.err().map(|error| error.kind())
}

/// Missing heartbeats reveal a server that hangs; messages in flight are unknown, and later both
/// sides continue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_given_up_and_found_again() {
    let server = start().await;
    let topic = Topic::new("hanging").unwrap();
    let url = format!("{}?heartbeat=1&connect_timeout=1000&delivery_timeout=10000", server.url());
    let amqp = connect_to(&url).await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("before"))).await.unwrap();
    assert_eq!(next_text(&mut source).await, "before");

    with(&server, Server::pause).await;
    let error = confirmed(amqp.enqueue(&topic, outbound("meanwhile"))).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::Unknown), "{error:?}");
    let error = confirmed(amqp.enqueue(&topic, outbound("too late"))).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::NotSent), "{error:?}");
    assert!(error.is_retryable());
    amqp.ping().await.unwrap_err();
    with(&server, Server::resume).await;

    let begin = Instant::now();
    while let Err(error) = confirmed(amqp.enqueue(&topic, outbound("after"))).await {
        assert!(error.is_retryable() && begin.elapsed() < RECOVERY, "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let received = async { while next_text(&mut source).await != "after" {} };
    tokio::time::timeout(RECOVERY, received).await.unwrap();
}

/// The server dies while one queue hands messages to the next: waiting messages and those in flight
/// all arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_survives_the_death_of_the_server() {
    const COUNT: u32 = 600;
    let server = start().await;
    let topic = Topic::new("waiting").unwrap();
    let amqp = connect_to(&server.url()).await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g").prefetch(1000)).await;
    let due = SystemTime::now() + Duration::from_secs(25);
    let time = |n: u32| due + Duration::from_millis(u64::from(n) * 4);
    // Even numbers are delayed, odd numbers are retried later.
    let publish = |n: u32| {
        let deliver_at = n.is_multiple_of(2).then(|| time(n));
        amqp.enqueue(&topic, Outbound { deliver_at, ..outbound(n.to_string()) })
    };
    for confirmation in (0..COUNT).map(publish).collect::<Vec<_>>() {
        confirmed(confirmation).await.unwrap();
    }
    let mut retries = Vec::new();
    for _ in 0..COUNT / 2 {
        let inbound = next(&mut source).await;
        let delay = time(text(&inbound).parse().unwrap()).duration_since(SystemTime::now()).unwrap();
        retries.push(settle(inbound, Disposition::Retry(delay)));
    }
    for retry in join_all(retries).await {
        retry.unwrap();
    }
    let begun = due.duration_since(SystemTime::now()).expect("all wait before the first is due");
    assert!(begun > REGISTRATION, "the queues have to be registered when the server dies");
    tokio::time::sleep(begun + Duration::from_millis(1200)).await;
    with(&server, Server::kill).await;
    with(&server, Server::restart).await;

    let mut missing: HashSet<u32> = (0..COUNT).collect();
    let (mut early, mut again) = (0, 0);
    while !missing.is_empty() {
        let item = tokio::time::timeout(RECOVERY, poll_fn(|cx| source.poll_next(cx))).await;
        let inbound =
            item.unwrap_or_else(|_| panic!("what waited comes: {missing:?}")).expect("the source goes on").unwrap();
        let n: u32 = text(&inbound).parse().unwrap();
        assert!(SystemTime::now() >= time(n), "{n} before its time");
        early += u32::from(inbound.attempt == 1 + n % 2);
        again += u32::from(!missing.remove(&n));
        let _ = settle(inbound, Disposition::Ack).await;
    }
    eprintln!("{early} as if nothing had happened, {again} again");
}

/// In an alarm the server reads nothing from connections that publish, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_ends_in_time_in_an_alarm_and_so_does_closing() {
    let share = vec![("RABBITMQ_MEMORY_SHARE", "0.000001".to_owned())];
    let kind = Kind::RabbitMq.of_generation();
    let start = move || Server::start_at(kind, Server::free_port(kind), share);
    let server = spawn_blocking(start).await.unwrap();
    let broker = Traced::new(connect_to(&format!("{}?delivery_timeout=2000", server.url())).await.unwrap());
    let topic = Topic::new("alarm").unwrap();
    let workers = broker.subscribe(group(&topic, "g")).await.unwrap();
    let begun = Instant::now();
    let publishes = (0..6).map(|number| broker.publish(&topic, Message::new(number.to_string())));
    let results = timeout(RECOVERY, join_all(publishes)).await.expect("all end");
    assert!(begun.elapsed() >= Duration::from_secs(2), "not in an alarm: {results:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    for error in results.into_iter().map(|result| result.unwrap_err()) {
        assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Timeout, PublishOutcome::Unknown), "{error}");
    }
    drop(workers);
    let begun = Instant::now();
    let _ = broker.close().await;
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
}

/// A publish ends in time although the connection stays up, and closing too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_is_not_confirmed_ends_in_time_and_so_does_closing() {
    let server = start().await;
    let topic = Topic::new("late").unwrap();
    let url = format!("{}?heartbeat=60&delivery_timeout=500&max_in_flight=2", server.url());
    let broker = Traced::new(connect_to(&url).await.unwrap());
    broker.publish(&topic, Message::new("before")).await.unwrap();

    with(&server, Server::pause).await;
    let begun = Instant::now();
    // More than have a place in flight: the places of the first are free again.
    let publishes = (0..6).map(|number| broker.publish(&topic, Message::new(number.to_string())));
    let results = timeout(RECOVERY, join_all(publishes)).await.expect("all end");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let errors: Vec<_> = results.into_iter().map(|result| result.unwrap_err()).collect();
    let unknown = errors.iter().filter(|error| error.publish_outcome() == PublishOutcome::Unknown);
    assert!(unknown.clone().all(|error| error.kind() == ErrorKind::Timeout), "{errors:?}");
    assert!(unknown.count() >= 2, "{errors:?}");

    let begun = Instant::now();
    let _ = broker.close().await;
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    with(&server, Server::resume).await;
}
