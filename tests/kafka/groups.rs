//! Consumer groups: sharing, backlog, positions, and members that join and leave.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Disposition, Driver, DriverExt, Source};
use traced_broker::{ErrorKind, Start, Subscription, Topic};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn members_share_and_groups_each_get_all() {
    members_share("group_protocol=classic").await;
}

/// The group protocol in which the broker assigns the partitions, not a member.
#[tokio::test(flavor = "multi_thread")]
async fn members_share_by_the_new_group_protocol() {
    members_share("group_protocol=consumer").await;
}

async fn members_share(options: &str) {
    let kafka = connect(&url_with(options)).await.unwrap();
    let topic = topic(&kafka, "share").await;
    let other = connect(&url_with(options)).await.unwrap();
    let (workers, auditors) = (unique("workers"), unique("audit"));
    let mut one = subscribe(&kafka, &topic, &workers).await;
    let mut two = subscribe(&other, &topic, &workers).await;
    let mut audit = subscribe(&kafka, &topic, &auditors).await;
    // Both are members once each has received a message; before that, one of them had every
    // partition.
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut published = 0;
    while first.is_empty() || second.is_empty() {
        let sent: Vec<_> =
            (published..published + 60).map(|n| kafka.enqueue(&topic, keyed(&n.to_string(), n.to_string()))).collect();
        for confirmation in sent {
            confirmation.await.unwrap();
        }
        published += 60;
        while first.len() + second.len() < published {
            tokio::select! {
                inbound = next(&mut one) => { first.push(number(&inbound)); ack(inbound).await; }
                inbound = next(&mut two) => { second.push(number(&inbound)); ack(inbound).await; }
            }
        }
    }
    let all = 0..u32::try_from(published).unwrap();
    let shared = as_set(first.iter().chain(&second).copied());
    assert_eq!(shared, as_set(all.clone()));
    assert_eq!(as_set(drain(&mut audit, published).await), as_set(all));
    assert!(is_quiet(&mut one).await && is_quiet(&mut two).await && is_quiet(&mut audit).await);
    kafka.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_group_begins_with_the_backlog_and_an_old_one_where_it_was() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "backlog").await;
    publish_numbers(&kafka, &topic, 0..50).await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    assert_eq!(as_set(drain(&mut source, 50).await), as_set(0..50));
    kafka.close().await.unwrap();

    let again = crate::harness::kafka().await;
    let mut source = subscribe(&again, &topic, &topic).await;
    publish_numbers(&again, &topic, 50..60).await;
    assert_eq!(as_set(drain(&mut source, 10).await), as_set(50..60));
    assert!(is_quiet(&mut source).await);
    again.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_begins_at_the_latest_misses_nothing_after_subscribing() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "latest").await;
    begins_at_the_latest(&kafka, &topic, &unique("latest")).await;
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_at_work_elsewhere_begins_at_the_latest_too() {
    let kafka = kafka().await;
    let (elsewhere, topic) = (topic(&kafka, "elsewhere").await, topic(&kafka, "latest").await);
    let group = unique("busy");
    publish_numbers(&kafka, &elsewhere, 0..1).await;
    let mut busy = subscribe(&kafka, &elsewhere, &group).await;
    ack(next(&mut busy).await).await;
    let mut keep_busy = tokio::spawn(async move { next_item(&mut busy).await });
    begins_at_the_latest(&kafka, &topic, &group).await;
    assert!((&mut keep_busy).now_or_never().is_none(), "messages of another topic");
    kafka.close().await.unwrap();
    assert!(keep_busy.await.unwrap().is_none());
}

async fn begins_at_the_latest(kafka: &Kafka, topic: &Topic, group: &str) {
    publish_numbers(kafka, topic, 0..20).await;
    let subscription = Subscription::new(&**topic).group(group).start(Start::Latest);
    let mut source = kafka.subscribe(&subscription).await.unwrap();
    // Immediately: the group has not even formed.
    publish_numbers(kafka, topic, 20..40).await;
    let taken = next(&mut source).await;
    let first = number(&taken);
    drop(taken);
    drop(source);
    // None was settled: all are redelivered, although the group asks for the latest.
    let mut source = kafka.subscribe(&subscription).await.unwrap();
    let numbers = as_set(drain(&mut source, 20).await);
    assert!(numbers.contains(&first));
    assert_eq!(numbers, as_set(20..40));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_left_unsettled_goes_to_the_next() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "left").await;
    publish_numbers(&kafka, &topic, 0..10).await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    let mut taken = Vec::new();
    for _ in 0..10 {
        taken.push(next(&mut source).await);
    }
    // Out of order and without 4: no position beyond 4 may be committed.
    let mut kept = None;
    for inbound in taken.into_iter().rev() {
        if number(&inbound) == 4 {
            kept = Some(inbound);
        } else {
            ack(inbound).await;
        }
    }
    drop(source);
    let mut source = subscribe(&kafka, &topic, &topic).await;
    assert_eq!(drain(&mut source, 1).await, [4]);
    assert!(is_quiet(&mut source).await, "what was settled behind 4 was handed out again");

    // The old handle belongs to the old assignment.
    let stale = kept.unwrap();
    publish_numbers(&kafka, &topic, 10..12).await;
    let held = next(&mut source).await;
    let error = stale.handle.settle(Disposition::Ack).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SettlementLost);
    kafka.close().await.unwrap();
    drop(held);
    assert_eq!(committed(&topic, &topic, 1), [Some(10)], "the stale handle settled something else");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_joining_is_no_member() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "hasty").await;
    publish_numbers(&kafka, &topic, 0..1).await;
    for milliseconds in [0, 2, 4, 8, 16] {
        let source = subscribe(&kafka, &topic, &topic).await;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        drop(source);
    }
    let begun = Instant::now();
    let mut source = subscribe(&kafka, &topic, &topic).await;
    ack(next(&mut source).await).await;
    // The session of a vanished member would last for 20 seconds.
    assert!(begun.elapsed() < Duration::from_secs(15), "waited for a member that is not there");
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_move_to_another_member_take_their_deliveries_along() {
    partitions_move("partitions=2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_by_the_new_group_protocol() {
    partitions_move("partitions=2&group_protocol=consumer").await;
}

async fn partitions_move(options: &str) {
    let kafka = connect(&url_with(options)).await.unwrap();
    let topic = topic(&kafka, "move").await;
    // One key for each of the two partitions.
    for (key, partition) in [("21", 0), ("abc", 1)] {
        assert_eq!(kafka.enqueue(&topic, keyed(key, "0")).await.unwrap().partition, Some(partition));
    }
    let mut one = subscribe(&kafka, &topic, &topic).await;
    let (a, b) = (next(&mut one).await, next(&mut one).await);
    let partitions = [a.partition.unwrap(), b.partition.unwrap()];
    assert_ne!(partitions[0], partitions[1]);

    let mut two = subscribe(&kafka, &topic, &topic).await;
    // One of the partitions moves, and its unsettled message is redelivered there.
    let moved = next(&mut two).await;
    for inbound in [a, b] {
        let (partition, result) = (inbound.partition, inbound.handle.settle(Disposition::Ack).await);
        if partition == moved.partition {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::SettlementLost);
        } else {
            result.unwrap();
        }
    }
    ack(moved).await;
    kafka.close().await.unwrap();
    assert_eq!(committed(&topic, &topic, 2), [Some(1), Some(1)]);
}

/// Members of both protocols share a group while it moves to the new one, and back.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_moves_to_the_new_protocol_and_back() {
    let connect_as = async |protocol| connect(&url_with(&format!("partitions=2&group_protocol={protocol}"))).await;
    let (old, new) = (connect_as("classic").await.unwrap(), connect_as("consumer").await.unwrap());
    let topic = topic(&old, "protocols").await;
    let mut one = subscribe(&old, &topic, &topic).await;
    publish_numbers(&old, &topic, 0..20).await;
    drain(&mut one, 20).await;
    let mut two = subscribe(&new, &topic, &topic).await;
    share(&new, &topic, [&mut one, &mut two], 20..200).await;
    old.close().await.unwrap();
    publish_numbers(&new, &topic, 200..220).await;
    assert_eq!(
        as_set(drain(&mut two, 20).await),
        as_set(200..220),
        "what the first member had settled is not repeated"
    );
    let back = connect_as("classic").await.unwrap();
    let mut three = subscribe(&back, &topic, &topic).await;
    share(&back, &topic, [&mut two, &mut three], 220..400).await;
    new.close().await.unwrap();
    publish_numbers(&back, &topic, 400..420).await;
    assert_eq!(as_set(drain(&mut three, 20).await), as_set(400..420));
    back.close().await.unwrap();
}

/// Publishes until both members have received, and receives everything once.
async fn share(kafka: &Kafka, topic: &Topic, [one, two]: [&mut Source; 2], numbers: std::ops::Range<u32>) {
    let (mut received, mut counts) = (Vec::new(), [0, 0]);
    for number in numbers.clone() {
        kafka.enqueue(topic, keyed(&number.to_string(), number.to_string())).await.unwrap();
        let (index, inbound) = tokio::select! {
            inbound = next(one) => (0, inbound),
            inbound = next(two) => (1, inbound),
        };
        counts[index] += 1;
        received.push(crate::harness::number(&inbound));
        ack(inbound).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((as_set(received.clone()), received.len()), (as_set(numbers.clone()), numbers.len()));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?} of two members");
}
