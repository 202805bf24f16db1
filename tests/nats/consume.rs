//! Consuming: groups, readers, and the number of unsettled deliveries.

use std::collections::BTreeSet;
use std::time::Duration;

use traced_broker::driver::{AttributeValue, Driver, Inbound, Source};
use traced_broker::{Start, Subscription};

use crate::kit::{
    self, ack, assert_quiet, message, next, next_within, publish, publish_numbers, subscribe, text, topic,
};

fn number(inbound: &Inbound) -> u32 {
    text(inbound).parse().unwrap()
}

async fn take(source: &mut Source, messages: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    for _ in 0..messages {
        let inbound = next(source).await;
        numbers.push(number(&inbound));
        ack(inbound).await;
    }
    numbers
}

#[tokio::test]
async fn a_new_group_gets_the_backlog_and_each_group_everything() {
    let nats = kit::connect().await;
    let topic = topic("groups");
    publish_numbers(&nats, &topic, 0..20).await;
    let mut first = subscribe(&nats, &topic, "first").await;
    assert_eq!(take(&mut first, 20).await, Vec::from_iter(0..20));
    let mut second = subscribe(&nats, &topic, "second.with.dots").await;
    assert_eq!(take(&mut second, 20).await, Vec::from_iter(0..20));
    publish_numbers(&nats, &topic, 20..30).await;
    assert_eq!(take(&mut first, 10).await, Vec::from_iter(20..30));
    assert_eq!(take(&mut second, 10).await, Vec::from_iter(20..30));
    assert_quiet(&mut first).await;
}

#[tokio::test]
async fn members_share() {
    let topic = topic("members");
    let nats = [kit::connect().await, kit::connect().await];
    nats[0].declare(&topic).await.unwrap();
    let mut sources = Vec::new();
    for nats in &nats {
        sources.push(nats.subscribe(&Subscription::new(&*topic).group("workers").prefetch(5)).await.unwrap());
    }
    publish_numbers(&nats[0], &topic, 0..100).await;
    let mut shares = [BTreeSet::new(), BTreeSet::new()];
    while shares[0].len() + shares[1].len() < 100 {
        for (share, source) in shares.iter_mut().zip(&mut sources) {
            if let Some(inbound) = next_within(source, Duration::from_millis(20)).await {
                let inbound = inbound.unwrap();
                assert!(share.insert(number(&inbound)));
                ack(inbound).await;
            }
        }
    }
    assert!(shares[0].is_disjoint(&shares[1]));
    assert!(shares[0].len() >= 5 && shares[1].len() >= 5, "{} and {}", shares[0].len(), shares[1].len());
}

#[tokio::test]
async fn readers_without_a_group_each_hear_what_is_new() {
    let nats = kit::connect().await;
    let topic = topic("readers");
    publish_numbers(&nats, &topic, 0..5).await;
    let mut readers = Vec::new();
    for _ in 0..2 {
        readers.push(nats.subscribe(&Subscription::new(&*topic)).await.unwrap());
    }
    let mut from_start = nats.subscribe(&Subscription::new(&*topic).start(Start::Earliest)).await.unwrap();
    publish_numbers(&nats, &topic, 5..8).await;
    for reader in &mut readers {
        assert_eq!(take(reader, 3).await, [5, 6, 7]);
    }
    assert_eq!(take(&mut from_start, 8).await, Vec::from_iter(0..8));

    // A reader's consumer is deleted when the reader ends.
    let context = async_nats::jetstream::new(kit::raw().await);
    let mut stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.consumer_count, 3);
    drop((readers, from_start));
    for _ in 0..100 {
        if stream.info().await.unwrap().state.consumer_count == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} consumers are left", stream.info().await.unwrap().state.consumer_count);
}

#[tokio::test]
async fn no_more_is_out_than_the_prefetch() {
    let nats = kit::connect().await;
    let topic = topic("prefetch");
    publish_numbers(&nats, &topic, 0..50).await;
    for (prefetch, group) in [(1, "one"), (7, "seven")] {
        let subscription = Subscription::new(&*topic).group(group).prefetch(prefetch);
        let mut source = nats.subscribe(&subscription).await.unwrap();
        let mut out = Vec::new();
        for _ in 0..prefetch {
            out.push(next(&mut source).await);
        }
        assert_quiet(&mut source).await;
        let context = async_nats::jetstream::new(kit::raw().await);
        let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
        let info = stream.consumer_info(group).await.unwrap();
        assert_eq!(info.num_ack_pending, prefetch, "the server has handed out no more either");
        ack(out.pop().unwrap()).await;
        out.push(next(&mut source).await);
        assert_quiet(&mut source).await;
        for inbound in out {
            ack(inbound).await;
        }
        assert_eq!(take(&mut source, 49 - prefetch).await.len(), 49 - prefetch);
        assert_quiet(&mut source).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_polled_while_full_goes_on_when_there_is_room() {
    let nats = kit::connect().await;
    let topic = topic("room");
    publish_numbers(&nats, &topic, 0..2).await;
    let mut source = nats.subscribe(&Subscription::new(&*topic).group("workers").prefetch(1)).await.unwrap();
    let first = next(&mut source).await;
    let second = tokio::spawn(async move { (number(&next(&mut source).await), source) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    ack(first).await;
    assert_eq!(second.await.unwrap().0, 1);
}

#[tokio::test]
async fn messages_wait_while_nobody_polls() {
    // The server waits a third of this time for an acknowledgement; messages in the client's queue
    // must not be redelivered elsewhere. On a busy machine the client's thread may not run for half
    // a second, so that a shorter wait would end.
    let nats = kit::connect_with("?ack_wait=2000").await;
    let topic = topic("wait");
    let mut source = subscribe(&nats, &topic, "workers").await;
    publish_numbers(&nats, &topic, 0..20).await;
    let first = next(&mut source).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(first.attempt, 1);
    ack(first).await;
    for expected in 1..20 {
        let inbound = next(&mut source).await;
        assert_eq!((number(&inbound), inbound.attempt), (expected, 1));
        ack(inbound).await;
    }
    assert_quiet(&mut source).await;
}

#[tokio::test]
async fn what_was_not_seen_goes_to_another_member_at_once() {
    let topic = topic("unseen");
    let nats = [kit::connect().await, kit::connect().await];
    publish_numbers(&nats[0], &topic, 0..10).await;
    let mut leaver = subscribe(&nats[0], &topic, "workers").await;
    let seen = next(&mut leaver).await;
    drop(leaver);
    let mut stayer = subscribe(&nats[1], &topic, "workers").await;
    let numbers = BTreeSet::from_iter(take(&mut stayer, 9).await);
    assert_eq!(numbers, (1..10).collect());
    ack(seen).await;
    assert_quiet(&mut stayer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_to_a_leaver_goes_to_another_member_at_once() {
    let nats = kit::connect().await;
    for round in 0..20 {
        let topic = topic("leaver");
        let mut stayer = subscribe(&nats, &topic, "workers").await;
        let leaver = subscribe(&nats, &topic, "workers").await;
        let publishing = publish_numbers(&nats, &topic, 0..300);
        let leaving = async {
            tokio::time::sleep(Duration::from_micros(200 * round)).await;
            drop(leaver);
        };
        let staying = async {
            let mut numbers = BTreeSet::new();
            while numbers.len() < 300 {
                let inbound =
                    next_within(&mut stayer, Duration::from_secs(5)).await.expect("sooner than the server would");
                let inbound = inbound.unwrap();
                numbers.insert(number(&inbound));
                ack(inbound).await;
            }
        };
        tokio::join!(publishing, leaving, staying);
    }
}

#[tokio::test]
async fn spans_learn_where_a_message_was() {
    let nats = kit::connect().await;
    let topic = topic("attributes");
    publish_numbers(&nats, &topic, 0..1).await;
    let text = |text: &str| AttributeValue::Text(text.into());
    let stream = topic.replace('.', "~");
    let declared = nats.declare(&topic).await.unwrap();
    assert_eq!((declared.name, declared.attributes), (None, vec![("messaging.nats.stream", text(&stream))]));
    let mut source = subscribe(&nats, &topic, "my.workers").await;
    let expected = vec![("messaging.nats.stream", text(&stream)), ("messaging.nats.consumer", text("my~workers"))];
    assert_eq!((source.destination.name.as_ref(), &source.destination.attributes), (None, &expected));
    let mut attributes = Vec::new();
    let inbound = next(&mut source).await;
    inbound.handle.attributes(&mut |name, value| attributes.push((name, value)));
    let one = AttributeValue::Integer(1);
    let expected = vec![
        ("messaging.nats.message.stream_sequence", one.clone()),
        ("messaging.nats.message.consumer_sequence", one),
    ];
    assert_eq!(attributes, expected);
    assert_eq!((inbound.partition, inbound.offset), (None, Some(1)));
}

#[tokio::test]
async fn a_group_that_is_deleted_is_made_again_where_it_was() {
    let nats = kit::connect().await;
    let topic = topic("deleted");
    publish_numbers(&nats, &topic, 0..10).await;
    let mut source = nats.subscribe(&Subscription::new(&*topic).group("workers").prefetch(3)).await.unwrap();
    assert_eq!(take(&mut source, 4).await, [0, 1, 2, 3]);
    let unsettled = next(&mut source).await;
    let context = async_nats::jetstream::new(kit::raw().await);
    let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
    stream.delete_consumer("workers").await.unwrap();
    let report = loop {
        match next_within(&mut source, kit::SOON).await.expect("a report") {
            Ok(inbound) => drop(inbound),
            Err(error) => break error,
        }
    };
    assert_eq!(report.kind(), traced_broker::ErrorKind::Unavailable);
    let mut numbers = BTreeSet::new();
    while numbers.len() < 6 {
        let inbound = kit::next_message(&mut source).await;
        numbers.insert(number(&inbound));
        ack(inbound).await;
    }
    assert_eq!(numbers, (4..10).collect(), "nothing that was settled comes again");
    let stale = kit::settle(unsettled, traced_broker::driver::Disposition::Ack).await.unwrap_err();
    assert_eq!(stale.kind(), traced_broker::ErrorKind::SettlementLost);
    publish(&nats, &topic, message("10")).await.unwrap();
    assert_eq!(take(&mut source, 1).await, [10]);
}

/// The member that makes the group again does not have what the other one holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_deleted_loses_nothing_that_another_member_holds() {
    let (nats, other) = (kit::connect().await, kit::connect().await);
    let topic = topic("several");
    publish_numbers(&nats, &topic, 0..20).await;
    let one = Subscription::new(&*topic).group("workers").prefetch(1);
    let mut holder = nats.subscribe(&one).await.unwrap();
    let held = next(&mut holder).await;
    assert_eq!(number(&held), 0);
    let mut source = other.subscribe(&Subscription::new(&*topic).group("workers")).await.unwrap();
    for expected in 1..20 {
        let inbound = next(&mut source).await;
        assert_eq!(number(&inbound), expected);
        ack(inbound).await;
    }
    let context = async_nats::jetstream::new(kit::raw().await);
    let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
    stream.delete_consumer("workers").await.unwrap();
    // The first to ask makes the group again, and gets everything that may be unsettled.
    while number(&kit::next_message(&mut source).await) != 0 {}
    drop(held);
}
