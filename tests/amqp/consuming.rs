//! Groups, readers, settlement.

use std::collections::HashSet;
use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use traced_broker::driver::{Disposition, Driver, DriverExt, Inbound, Source};
use traced_broker::{ErrorKind, Start, Subscription, Topic};

use crate::driving::*;

const NOW: Disposition = Disposition::Retry(Duration::ZERO);

async fn publish_all(amqp: &impl Driver, topic: &Topic, texts: impl IntoIterator<Item = String>) {
    let confirmations: Vec<_> = texts.into_iter().map(|text| amqp.enqueue(topic, outbound(text))).collect();
    for confirmation in confirmations {
        confirmed(confirmation).await.unwrap();
    }
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|n| n.to_string())
}

/// Returns the number of messages waiting in the queue and the number of its consumers.
async fn queue(topic: &Topic, group: &str) -> (u32, u32) {
    let channel = raw().await.create_channel().await.unwrap();
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(format!("{topic}.{group}").into(), passive, FieldTable::default()).await.unwrap();
    (queue.message_count(), queue.consumer_count())
}

#[tokio::test]
async fn members_of_a_group_share_and_groups_each_get_all() {
    let topic = unique("share");
    let amqp = connect("").await.unwrap();
    let mut first = subscribe(&amqp, group(&topic, "a").prefetch(5)).await;
    let mut second = subscribe(&amqp, group(&topic, "a").prefetch(5)).await;
    let mut other = subscribe(&amqp, group(&topic, "b")).await;
    publish_all(&amqp, &topic, numbers(0..20)).await;
    let mut shared: [HashSet<String>; 2] = Default::default();
    while shared[0].len() + shared[1].len() < 20 {
        let (member, text) = tokio::select! {
            text = next_text(&mut first) => (0, text),
            text = next_text(&mut second) => (1, text),
        };
        assert!(shared[member].insert(text));
    }
    assert!(shared.iter().all(|share| share.len() >= 5), "both take part: {shared:?}");
    assert!(shared[0].is_disjoint(&shared[1]), "each message goes to one member: {shared:?}");
    for n in numbers(0..20) {
        assert_eq!(next_text(&mut other).await, n);
    }
    for source in [&mut first, &mut second, &mut other] {
        silent(source).await;
    }
}

/// Hundreds of prefetched messages are given back, and the next subscription begins immediately.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_just_before_the_end_does_not_come_again() {
    for _ in 0..10 {
        let topic = unique("end");
        let amqp = connect("").await.unwrap();
        make_group(&topic, "g").await;
        publish_all(&amqp, &topic, numbers(0..300)).await;
        let mut source = subscribe(&amqp, group(&topic, "g").prefetch(256)).await;
        let mut handled = Vec::new();
        for _ in 0..54 {
            handled.push(next(&mut source).await);
        }
        let last = handled.split_off(38);
        for inbound in handled {
            settle(inbound, Disposition::Ack).await.unwrap();
        }
        // Gives these time to arrive, and as many others time to be fetched.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for inbound in last {
            settle(inbound, Disposition::Ack).await.unwrap();
        }
        drop(source);
        let mut source = subscribe(&amqp, group(&topic, "g").prefetch(256)).await;
        let mut rest = HashSet::new();
        for _ in 54..300 {
            rest.insert(next_text(&mut source).await);
        }
        let again: Vec<String> = numbers(0..54).filter(|text| rest.contains(text)).collect();
        assert!(again.is_empty(), "{again:?} came again");
        silent(&mut source).await;
    }
}

#[tokio::test]
async fn a_group_keeps_what_comes_while_nobody_reads() {
    let topic = unique("backlog");
    let amqp = connect("").await.unwrap();
    make_group(&topic, "g").await;
    publish_all(&amqp, &topic, numbers(0..10)).await;
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    for n in numbers(0..10) {
        assert_eq!(next_text(&mut source).await, n);
    }
}

#[tokio::test]
async fn a_reader_without_a_group_gets_what_comes_from_now_on() {
    let topic = unique("reader");
    let amqp = connect("").await.unwrap();
    amqp.declare(&topic).await.unwrap();
    publish_all(&amqp, &topic, ["before".to_owned()]).await;
    let mut readers = [
        subscribe(&amqp, Subscription::new(topic.as_str())).await,
        subscribe(&amqp, Subscription::new(topic.as_str())).await,
    ];
    publish_all(&amqp, &topic, ["after".to_owned()]).await;
    for reader in &mut readers {
        assert_eq!(next_text(reader).await, "after");
        silent(reader).await;
    }
    assert_eq!(readers[0].destination.name, None, "the queue's name is the broker's and differs each time");

    let early = Subscription::new(topic.as_str()).start(Start::Earliest);
    assert_eq!(amqp.subscribe(&early).await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn retried_messages_come_back_counted_and_discarded_ones_do_not() {
    let topic = unique("retry");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    publish_all(&amqp, &topic, ["again".to_owned()]).await;
    for attempt in 1..=25 {
        let inbound = next(&mut source).await;
        assert_eq!((inbound.attempt, text(&inbound)), (attempt, "again".to_owned()));
        assert_eq!(inbound.headers.len(), 0, "{:?}", inbound.headers);
        settle(inbound, NOW).await.unwrap();
    }
    settle(next(&mut source).await, Disposition::Discard).await.unwrap();
    silent(&mut source).await;
    assert_eq!(queue(&topic, "g").await.0, 0);
}

#[tokio::test]
async fn no_more_than_the_prefetch_are_unsettled() {
    let topic = unique("prefetch");
    let amqp = connect("").await.unwrap();
    for prefetch in [1, 3, 10] {
        let name = format!("g{prefetch}");
        let mut source = subscribe(&amqp, group(&topic, &name).prefetch(prefetch)).await;
        publish_all(&amqp, &topic, numbers(0..30)).await;
        let mut held: Vec<Inbound> = Vec::new();
        for _ in 0..prefetch {
            held.push(next(&mut source).await);
        }
        silent(&mut source).await;
        assert_eq!(queue(&topic, &name).await.0, 30 - prefetch as u32, "no more were fetched either");
        // Settling one delivery makes room for exactly one, also in the middle.
        settle(held.remove(prefetch / 2), Disposition::Ack).await.unwrap();
        held.push(next(&mut source).await);
        silent(&mut source).await;
    }
}

/// Acknowledgements are gathered, and one may cover many: it covers exactly the acknowledged
/// messages.
#[tokio::test]
async fn acknowledgements_in_any_order_settle_exactly_what_they_name() {
    let topic = unique("gather");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g").prefetch(64)).await;
    publish_all(&amqp, &topic, numbers(0..64)).await;
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(next(&mut source).await);
    }
    // A fixed shuffle: every fifth message stays unsettled, every seventh is given back, every
    // eleventh is discarded.
    let mut order: Vec<u32> = (0..64).map(|n| n * 37 % 64).collect();
    let mut kept = Vec::new();
    let (mut back, mut settled) = (HashSet::new(), Vec::new());
    order.dedup();
    let mut held: Vec<Option<Inbound>> = held.into_iter().map(Some).collect();
    for n in order {
        let inbound = held[n as usize].take().unwrap();
        match n {
            n if n % 5 == 0 => kept.push(inbound),
            n if n % 7 == 0 => {
                back.insert(n.to_string());
                settle(inbound, NOW).await.unwrap();
            }
            n if n % 11 == 0 => settle(inbound, Disposition::Discard).await.unwrap(),
            _ => settled.push(settle(inbound, Disposition::Ack)),
        }
    }
    for settlement in settled {
        settlement.await.unwrap();
    }
    let mut returned = HashSet::new();
    for _ in 0..back.len() {
        returned.insert(next_text(&mut source).await);
    }
    assert_eq!(returned, back);
    silent(&mut source).await;
    let unsettled: HashSet<_> = kept.iter().map(text).collect();
    amqp.close().await.unwrap();

    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let mut left = HashSet::new();
    for _ in 0..unsettled.len() {
        let inbound = next(&mut source).await;
        assert_eq!((inbound.attempt, inbound.deliveries), (1, Some(2)));
        left.insert(text(&inbound));
        settle(inbound, Disposition::Ack).await.unwrap();
    }
    assert_eq!(left, unsettled);
    silent(&mut source).await;
}

#[tokio::test]
async fn at_most_once_settles_when_it_hands_out() {
    let topic = unique("once");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g").at_most_once().prefetch(4)).await;
    publish_all(&amqp, &topic, numbers(0..20)).await;
    let mut held: Vec<Inbound> = Vec::new();
    for n in numbers(0..20) {
        let inbound = next(&mut source).await;
        assert_eq!(text(&inbound), n);
        held.push(inbound);
    }
    assert_eq!(settle(held.remove(0), NOW).await.unwrap_err().kind(), ErrorKind::Unsupported);
    settle(held.remove(0), Disposition::Ack).await.unwrap();
    amqp.close().await.unwrap();
    drop(held);
    assert_eq!(queue(&topic, "g").await, (0, 0));
}

/// Prefetched messages go to other members at once; deliveries already handed out can still be
/// settled.
#[tokio::test]
async fn a_dropped_source_gives_back_what_it_did_not_hand_out() {
    let topic = unique("dropped");
    let amqp = connect("").await.unwrap();
    let mut leaving = subscribe(&amqp, group(&topic, "g").prefetch(10)).await;
    publish_all(&amqp, &topic, numbers(0..10)).await;
    let first = next(&mut leaving).await;
    let second = next(&mut leaving).await;
    drop(leaving);
    let mut staying = subscribe(&amqp, group(&topic, "g")).await;
    let mut rest = HashSet::new();
    for _ in 2..10 {
        rest.insert(next_text(&mut staying).await);
    }
    assert_eq!(rest, numbers(2..10).collect());
    silent(&mut staying).await;
    settle(first, NOW).await.unwrap();
    assert_eq!(next_text(&mut staying).await, "0");
    settle(second, Disposition::Ack).await.unwrap();
    silent(&mut staying).await;
}

/// A delivery that is dropped unsettled is not lost: it is redelivered when its channel ends.
#[tokio::test]
async fn a_dropped_delivery_comes_back() {
    let topic = unique("forgotten");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    publish_all(&amqp, &topic, numbers(0..2)).await;
    drop(next(&mut source).await);
    assert_eq!(next_text(&mut source).await, "1");
    drop(source);
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    assert_eq!(next_text(&mut source).await, "0");
}

#[tokio::test]
async fn rejected_messages_have_a_place_to_wait() {
    let (topic, dead) = (unique("alive"), unique("dead"));
    let amqp = connect("").await.unwrap();
    let _source = subscribe(&amqp, group(&topic, "g").dead_letter(dead.as_str())).await;
    publish_all(&amqp, &dead, ["rejected".to_owned()]).await;
    let mut parked: Source = subscribe(&amqp, group(&dead, "parked")).await;
    assert_eq!(next_text(&mut parked).await, "rejected");
}

/// Runs in a process of its own, whose log is read.
#[tokio::test]
async fn the_log_tells_once_of_messages_that_nobody_takes_and_of_dead_letters_that_pile_up() {
    const TEST: &str = "consuming::the_log_tells_once_of_messages_that_nobody_takes_and_of_dead_letters_that_pile_up";
    const ALONE: &str = "TRACED_BROKER_TEST_LOG";
    if std::env::var_os(ALONE).is_none() {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args([TEST, "--exact", "--nocapture"]).env(ALONE, "1").env("TRACED_BROKER_AMQP_URL", server());
        let output = command.env("RUST_LOG", "traced_broker=warn").env("NO_COLOR", "1").output().unwrap();
        let log = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{log}");
        assert_eq!(log.matches("no queue receives messages of this topic").count(), 1, "{log}");
        assert_eq!(log.matches("dead letters are kept in the group parked").count(), 1, "{log}");
        return;
    }
    let (topic, dead, nobody) = (unique("logged"), unique("piled"), unique("nobody"));
    let amqp = connect("").await.unwrap();
    let mut few = subscribe(&amqp, group(&topic, "few").dead_letter(dead.as_str())).await;
    publish_all(&amqp, &nobody, ["x".to_owned(), "y".to_owned()]).await;
    publish_all(&amqp, &dead, (0..1000).map(|number| number.to_string())).await;
    let _many = subscribe(&amqp, group(&topic, "many").dead_letter(dead.as_str())).await;
    silent(&mut few).await;
}

#[tokio::test]
async fn a_deleted_queue_is_created_again() {
    let topic = unique("deleted");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    publish_all(&amqp, &topic, ["old".to_owned()]).await;
    let stale = next(&mut source).await;
    let channel = raw().await.create_channel().await.unwrap();
    channel.queue_delete(format!("{topic}.g").into(), QueueDeleteOptions::default()).await.unwrap();
    silent(&mut source).await;
    publish_all(&amqp, &topic, ["new".to_owned()]).await;
    assert_eq!(next_text(&mut source).await, "new");
    assert_eq!(settle(stale, Disposition::Ack).await.unwrap_err().kind(), ErrorKind::SettlementLost);
}

#[tokio::test]
async fn a_subscription_is_called_as_the_conventions_ask() {
    let topic = unique("named");
    let amqp = connect("").await.unwrap();
    let source = subscribe(&amqp, group(&topic, "g")).await;
    assert_eq!(source.destination.name.as_deref(), Some(&*format!("{topic}:{topic}.g")));
    assert_eq!(amqp.declare(&topic).await.unwrap().name, None, "the exchange's name is the topic's");
}
