//! Bridges between two memory brokers: the messages that cross, those that do not, and the end of a
//! bridge.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use traced_broker::names::header;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use traced_broker::adapters::memory::Memory;
use traced_broker::bridge::{MAX_HOPS, Progress};
use traced_broker::{
    Bridge, Bridged, Deliveries, ErrorKind, HandlerError, Message, Received, Retry, Subscription, Traced, TracedBroker,
    TracedBrokerExt, Verdict,
};

use crate::shop::{DEAD, TOPIC, broker, publish, text, workers};

const FAR: &str = "orders.copied";
const SOON: Duration = Duration::from_secs(20);

fn bridged() -> Subscription {
    Subscription::new(TOPIC).group("bridge").dead_letter(DEAD)
}

/// Runs a bridge until this many copies have crossed.
async fn run(from: &Traced<Arc<Memory>>, to: &Traced<Arc<Memory>>, copies: u64) -> Bridged {
    until(from.bridge(bridged(), to, FAR), |now| now.copied >= copies).await
}

/// Runs a bridge until its progress satisfies `done`.
async fn until(
    bridge: Bridge<'_, Traced<Arc<Memory>>, Traced<Arc<Memory>>>,
    done: impl Fn(Progress) -> bool + Send + Sync,
) -> Bridged {
    let enough = Notify::new();
    let enough = &enough;
    let bridge = bridge.progress_every(Duration::from_millis(5)).on_progress(move |now| {
        if done(now) {
            enough.notify_one();
        }
    });
    timeout(SOON, bridge.run_until(enough.notified())).await.expect("it comes so far").unwrap()
}

async fn next(deliveries: &mut Deliveries) -> Received {
    let delivery = timeout(SOON, deliveries.next()).await.expect("a message").unwrap().unwrap();
    let message = delivery.message().clone();
    delivery.ack().await.unwrap();
    message
}

async fn first_letter(broker: &Traced<Arc<Memory>>) -> Received {
    let mut dead = broker.subscribe(Subscription::new(DEAD).group("desk")).await.unwrap();
    next(&mut dead).await
}

async fn all(broker: &Traced<Arc<Memory>>, topic: &str, count: usize) -> Vec<String> {
    let mut deliveries = broker.subscribe(Subscription::new(topic).group("end")).await.unwrap();
    let mut payloads = Vec::new();
    for _ in 0..count {
        payloads.push(text(&next(&mut deliveries).await));
    }
    payloads
}

#[tokio::test]
async fn everything_of_a_message_crosses() {
    let (here, there) = (broker(), broker());
    let message = Message::json("shoes").unwrap().key("k").id("id-1").header("tenant", "acme").header("raw", b"\xff\n");
    here.publish(TOPIC, message.header("CC", "a").header("Nats-Rollup", "all").header("", "x")).await.unwrap();
    here.publish(TOPIC, Message::tombstone().key("gone")).await.unwrap();
    let done = run(&here, &there, 2).await;
    assert_eq!((done.progress.copied, done.consumed.handled, done.progress.failed), (2, 2, 0), "{done}");
    assert_eq!((done.progress.headers_renamed, done.progress.headers_dropped), (1, 1));
    assert_eq!(done.progress.bytes, 7);

    let mut far = there.subscribe(Subscription::new(FAR).group("end")).await.unwrap();
    let copy = next(&mut far).await;
    assert_eq!(
        (text(&copy).as_str(), copy.key().map(|key| &key[..]), copy.id()),
        ("\"shoes\"", Some(&b"k"[..]), Some("id-1"))
    );
    let headers = copy.headers();
    for (name, value) in [
        ("content-type", &b"application/json"[..]),
        ("tenant", b"acme"),
        ("raw", b"\xff\n"),
        ("bridged-CC", b"a"),
        (header::BRIDGE_HOPS, b"1"),
    ] {
        assert_eq!(headers.get_all(name).collect::<Vec<_>>(), [value], "{name}");
    }
    assert!(!headers.contains("nats-rollup") && !headers.contains("cc"), "{headers:?}");
    assert!(next(&mut far).await.is_tombstone());
}

#[tokio::test]
async fn copies_arrive_in_order_however_many_are_on_their_way() {
    let (here, there) = (broker(), broker());
    let numbers: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    publish(&here, &numbers).await;
    run(&here, &there, 500).await;
    assert_eq!(all(&there, FAR, 500).await, numbers);
}

#[tokio::test]
async fn what_cannot_cross_goes_to_the_dead_letters_and_the_rest_crosses() {
    let (here, there) = (broker(), broker());
    publish(&here, ["1", "bad", "2"]).await;
    let refuse = |message: Message, received: &Received| match text(received).as_str() {
        "bad" => Err(HandlerError::reject("of no use there")),
        _ => Ok(message.header("seen", "yes")),
    };
    let bridge = here.bridge(bridged(), &there, FAR).prepare(refuse);
    let (mut letter, mut copies) = (None, Vec::new());
    let arriving = async {
        letter = Some(first_letter(&here).await);
        copies = all(&there, FAR, 2).await;
    };
    let done = bridge.run_until(arriving).await.unwrap();
    assert_eq!((done.progress.copied, done.progress.failed, done.consumed.rejected), (2, 1, 1), "{done}");
    assert_eq!(copies, ["1", "2"]);
    assert_eq!(letter.unwrap().headers().get_str(header::DEAD_LETTER_REASON), Some("of no use there"));
}

#[tokio::test]
async fn what_fails_for_now_is_tried_again_in_place() {
    let (here, there) = (broker(), broker());
    publish(&here, ["k:1", "k:2"]).await;
    let failures = Mutex::new(3);
    let fail = |message: Message, _: &Received| {
        let mut left = failures.lock();
        if *left == 0 {
            return Ok(message);
        }
        *left -= 1;
        Err(HandlerError::retry("not yet"))
    };
    let bridge = here.bridge(bridged(), &there, FAR).prepare(fail).ordered_by_key();
    let bridge = bridge.retry(Retry::fixed(4, Duration::from_millis(1)));
    let done = until(bridge, |now| now.copied == 2).await;
    assert_eq!((done.progress.copied, done.progress.failed), (2, 3), "{done}");
    assert_eq!((done.consumed.handled, done.consumed.retried), (2, 0), "the source heard nothing of it");
    assert_eq!(all(&there, FAR, 2).await, ["1", "2"]);
}

#[tokio::test]
async fn the_policy_gives_up() {
    let (here, there) = (broker(), broker());
    publish(&here, ["1"]).await;
    let fail = |_: Message, _: &Received| Err(HandlerError::retry("never"));
    let bridge = here.bridge(bridged(), &there, FAR).prepare(fail).retry(Retry::immediate(3));
    let done = bridge.run_until(first_letter(&here)).await.unwrap();
    assert_eq!((done.progress.copied, done.progress.failed, done.consumed.rejected), (0, 3, 1), "{done}");
}

#[tokio::test]
async fn a_panic_is_a_failed_attempt() {
    let (here, there) = (broker(), broker());
    publish(&here, ["bad", "good"]).await;
    let panic = |message: Message, received: &Received| match text(received).as_str() {
        "bad" => panic!("cannot prepare this"),
        _ => Ok(message),
    };
    let bridge = here.bridge(bridged(), &there, FAR).prepare(panic).retry(Retry::immediate(2));
    let mut letter = None;
    let arriving = async {
        letter = Some(first_letter(&here).await);
        all(&there, FAR, 1).await
    };
    let done = bridge.run_until(arriving).await.unwrap();
    assert_eq!((done.progress.copied, done.progress.failed, done.consumed.rejected), (1, 2, 1), "{done}");
    assert_eq!(letter.unwrap().headers().get_str(header::DEAD_LETTER_ERROR_TYPE), Some("panic"));
}

#[tokio::test]
async fn what_waits_goes_back_when_the_bridge_stops() {
    let (here, there) = (broker(), broker());
    publish(&here, ["1"]).await;
    let fail = |_: Message, _: &Received| Err(HandlerError::retry_after("much later", Duration::from_secs(3600)));
    let bridge = here.bridge(bridged(), &there, FAR).prepare(fail);
    let stopped = until(bridge, |now| now.failed == 1).await;
    assert_eq!(stopped.progress.failed, 1, "it does not wait: {stopped}");
    let done = run(&here, &there, 1).await;
    assert_eq!(done.progress.copied, 1, "{done}");
}

#[tokio::test]
async fn it_ends_when_the_target_is_closed_and_keeps_what_did_not_arrive() {
    let (here, there) = (broker(), broker());
    let bridge = here.bridge(bridged(), &there, FAR).run();
    let closing = async {
        publish(&here, ["1"]).await;
        there.close().await.unwrap();
        publish(&here, ["2"]).await;
        pending::<()>().await;
    };
    let done = tokio::select! {
        done = timeout(SOON, bridge) => done.expect("it ends").unwrap(),
        () = closing => unreachable!(),
    };
    assert_eq!(done.consumed.rejected, 0, "{done}");
    let elsewhere = broker();
    let rest = run(&here, &elsewhere, 2 - done.progress.copied).await;
    assert_eq!(done.progress.copied + rest.progress.copied, 2, "{done}; {rest}");
}

#[tokio::test]
async fn it_ends_when_the_source_is_closed() {
    let (here, there) = (broker(), broker());
    let closing = async {
        sleep(Duration::from_millis(50)).await;
        here.close().await.unwrap();
    };
    let (done, ()) = tokio::join!(here.bridge(bridged(), &there, FAR).run(), closing);
    assert_eq!(done.unwrap().progress.copied, 0);
}

#[tokio::test]
async fn messages_do_not_go_in_circles() {
    let (here, there) = (broker(), broker());
    publish(&here, ["round"]).await;
    let stop = CancellationToken::new();
    let out = here.bridge(bridged(), &there, FAR).run_until(stop.cancelled());
    let back = there.bridge(Subscription::new(FAR).group("bridge").dead_letter(DEAD), &here, TOPIC);
    let watching = async {
        let letter = tokio::select! { letter = first_letter(&here) => letter, letter = first_letter(&there) => letter };
        stop.cancel();
        letter
    };
    let (gone, home, letter) = tokio::join!(out, back.run_until(stop.cancelled()), watching);
    let copies = gone.unwrap().progress.copied + home.unwrap().progress.copied;
    assert_eq!(copies, u64::from(MAX_HOPS));
    let reason = letter.headers().get_str(header::DEAD_LETTER_REASON).unwrap();
    assert!(reason.contains("form a loop"), "{reason}");
}

#[tokio::test]
async fn progress_is_reported() {
    let (here, there) = (broker(), broker());
    publish(&here, ["1", "2", "3"]).await;
    let reports = Mutex::new(Vec::<Progress>::new());
    let enough = Notify::new();
    let bridge = here.bridge(bridged(), &there, FAR).progress_every(Duration::from_millis(20));
    let bridge = bridge.on_progress(|progress| {
        reports.lock().push(progress);
        let all_known = |at: &Progress| at.copied == 3;
        if reports.lock().iter().filter(|at| all_known(at)).count() == 2 {
            enough.notify_one();
        }
    });
    let done = timeout(SOON, bridge.run_until(enough.notified())).await.expect("two reports").unwrap();
    let reports = reports.into_inner();
    let last = reports.len() - 1;
    let (first, second) = (reports[last - 2], reports[last - 1]);
    assert!((first.copied, first.bytes) == (3, 3) && first.rate > 0.0, "{reports:?}");
    assert_eq!((second.copied, second.rate), (3, 0.0), "nothing came since the report before");
    assert!(
        reports[last].copied == done.progress.copied && reports[last].rate > 0.0,
        "the last one is of the whole: {reports:?}"
    );
    assert!(reports.windows(2).all(|pair| pair[0].elapsed < pair[1].elapsed), "{reports:?}");
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_once() {
    let (here, there) = (broker(), broker());
    let to_itself = here.bridge(bridged(), &here, TOPIC).run().await.unwrap_err();
    assert_eq!(to_itself.kind(), ErrorKind::InvalidConfig, "{to_itself}");
    let no_topic = here.bridge(bridged(), &there, "a/b").run().await.unwrap_err();
    assert_eq!(no_topic.kind(), ErrorKind::InvalidConfig, "{no_topic}");
    let none = here.bridge(bridged(), &there, FAR).in_flight(0).run().await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::InvalidConfig, "{none}");
    let bad = here.bridge(workers().prefetch(0), &there, FAR).run().await.unwrap_err();
    assert_eq!(bad.kind(), ErrorKind::InvalidConfig, "{bad}");
}

#[tokio::test]
async fn the_policy_may_choose_by_the_error() {
    let (here, there) = (broker(), broker());
    publish(&here, ["1"]).await;
    let fail = |_: Message, _: &Received| Err(HandlerError::retry("hopeless"));
    let give_up = Retry::default().choose(|error| error.to_string().contains("hopeless").then_some(Verdict::Reject));
    let bridge = here.bridge(bridged(), &there, FAR).prepare(fail).retry(give_up);
    let done = bridge.run_until(first_letter(&here)).await.unwrap();
    assert_eq!((done.progress.failed, done.consumed.rejected), (1, 1), "{done}");
}

/// A message that cannot cross takes no place from those that can, even while those wait.
#[tokio::test]
async fn no_more_cross_than_are_asked_for() {
    let (here, there) = (broker(), broker());
    publish(&here, (0..20).map(|number| number.to_string())).await;
    let choosy = |message: Message, _: &Received| match message.payload() {
        b"3" => Err(HandlerError::reject("not this one")),
        _ => Ok(message),
    };
    let bridge = here.bridge(bridged(), &there, FAR).in_flight(16).at_most(7).prepare(choosy);
    let done = timeout(SOON, bridge.run()).await.expect("it ends by itself").unwrap();
    assert_eq!((done.progress.copied, done.progress.under_way, done.consumed.rejected), (7, 0, 1), "{done}");
    let done = until(here.bridge(bridged(), &there, FAR), |now| now.copied >= 12).await;
    assert_eq!(done.progress.copied, 12, "the rest, each once: {done}");
    let mut arrived = all(&there, FAR, 19).await;
    arrived.sort_by_key(|payload| payload.parse::<u32>().unwrap());
    let expected: Vec<String> = (0..20).filter(|number| *number != 3).map(|number| number.to_string()).collect();
    assert_eq!(arrived, expected);
}

#[tokio::test]
async fn what_waits_for_the_target_is_under_way() {
    let (here, there) = (broker(), broker());
    publish(&here, ["1", "2", "3"]).await;
    let fail = |_: Message, _: &Received| Err(HandlerError::retry("not now"));
    let bridge = here.bridge(bridged(), &there, FAR).prepare(fail);
    let done = until(bridge, |now| now.under_way == 3 && now.failed >= 6).await;
    assert_eq!((done.progress.copied, done.progress.under_way), (0, 0), "{done}");
}
