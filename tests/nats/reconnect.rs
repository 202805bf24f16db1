//! A connection is lost, or the server of a consumer changes, and its deliveries are not.

use std::time::Duration;

use tokio::task::spawn_blocking;
use traced_broker::driver::{Disposition, Driver, Inbound, Source};
use traced_broker::{BrokerUrl, Subscription, Topic};

use crate::kit::{
    self, ack, assert_quiet, connect_to, message, next, next_message, publish, publish_numbers, settle, subscribe,
    text, topic,
};
use crate::process::Process;
use crate::proxy::Proxy;
use crate::support::{Cluster, Kind, shared};

fn server() -> (String, u16) {
    BrokerUrl::parse(shared(Kind::Nats)).unwrap().hosts(4222).remove(0)
}

async fn take(source: &mut Source, count: usize) -> Vec<Inbound> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(next(source).await);
    }
    taken
}

async fn assert_settled(url: &str, topic: &Topic, group: &str) {
    let context = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
    let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
    let mut info = stream.consumer_info(group).await.unwrap();
    for _ in 0..200 {
        if (info.num_ack_pending, info.num_pending) == (0, 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        info = stream.consumer_info(group).await.unwrap();
    }
    panic!("{group} has {} unsettled and {} waiting", info.num_ack_pending, info.num_pending);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_hand_when_a_connection_is_lost_stays_there() {
    for option in ["", "?ack=confirm"] {
        let proxy = Proxy::start(server()).await;
        let (direct, nats) = (kit::connect().await, connect_to(&format!("{}{option}", proxy.url(""))).await.unwrap());
        let topic = topic("hand");
        publish_numbers(&direct, &topic, 0..20).await;
        let mut source = subscribe(&nats, &topic, "workers").await;
        let held = take(&mut source, 20).await;
        proxy.cut();
        // The client knows. One is settled before the next connection is known to be good.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut held = held.into_iter();
        let early = held.next().unwrap().handle.settle(Disposition::Ack);
        publish_numbers(&direct, &topic, 20..30).await;
        for number in 20..30 {
            let inbound = next(&mut source).await;
            assert_eq!(text(&inbound), number.to_string());
            ack(inbound).await;
        }
        tokio::time::timeout(kit::SOON, early).await.expect("an answer").unwrap();
        for inbound in held {
            assert!(!inbound.tenure.is_over());
            ack(inbound).await;
        }
        assert_quiet(&mut source).await;
        assert_settled(shared(Kind::Nats), &topic, "workers").await;
        nats.close().await.unwrap();
    }
}

/// Handed to a connection that was lost before they came, they come before newer ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_its_way_comes_before_what_is_new() {
    let proxy = Proxy::start(server()).await;
    let direct = kit::connect().await;
    // Longer than this test waits: none comes by itself.
    let nats = connect_to(&format!("{}?ack_wait=60000", proxy.url(""))).await.unwrap();
    let topic = topic("way");
    publish_numbers(&direct, &topic, 0..5).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let held = take(&mut source, 5).await;
    for round in 1..4 {
        proxy.swallow();
        publish_numbers(&direct, &topic, round * 20..round * 20 + 10).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        proxy.cut();
        publish_numbers(&direct, &topic, round * 20 + 10..round * 20 + 20).await;
        for number in round * 20..round * 20 + 20 {
            let inbound = next(&mut source).await;
            assert_eq!(text(&inbound), number.to_string());
            ack(inbound).await;
        }
    }
    for inbound in held {
        ack(inbound).await;
    }
    assert_quiet(&mut source).await;
    assert_settled(shared(Kind::Nats), &topic, "workers").await;
}

/// Only the member that was handed it may send it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_member_has_is_not_sent_back() {
    let proxy = Proxy::start(server()).await;
    let (direct, nats) = (kit::connect().await, connect_to(&proxy.url("")).await.unwrap());
    let topic = topic("shared");
    direct.declare(&topic).await.unwrap();
    let few = Subscription::new(&*topic).group("workers").prefetch(4);
    let (mut here, mut other) = (nats.subscribe(&few).await.unwrap(), direct.subscribe(&few).await.unwrap());
    publish_numbers(&direct, &topic, 0..8).await;
    let (held, others) = (take(&mut here, 4).await, take(&mut other, 4).await);
    proxy.cut();
    tokio::time::sleep(Duration::from_millis(500)).await;
    for source in [&mut here, &mut other] {
        assert_quiet(source).await;
    }
    for inbound in held.into_iter().chain(others) {
        ack(inbound).await;
    }
    publish_numbers(&direct, &topic, 8..9).await;
    assert_settled_soon(&mut here, &mut other).await;
}

async fn assert_settled_soon(here: &mut Source, other: &mut Source) {
    let inbound = tokio::select! {
        inbound = next(here) => inbound,
        inbound = next(other) => inbound,
    };
    assert_eq!((text(&inbound), inbound.deliveries), ("8", Some(1)));
    ack(inbound).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_is_read_again_after_a_lost_connection() {
    let proxy = Proxy::start(server()).await;
    let (direct, nats) = (kit::connect().await, connect_to(&proxy.url("")).await.unwrap());
    let topic = topic("little");
    direct.declare(&topic).await.unwrap();
    let mut source = subscribe(&nats, &topic, "workers").await;
    let sent: Vec<_> = (0..1000).map(|_| publish(&direct, &topic, message(vec![b'x'; 2048]))).collect();
    futures_util::future::join_all(sent).await;
    let slow = next(&mut source).await;
    for _ in 1..1000 {
        ack(next(&mut source).await).await;
    }
    let before = proxy.sent();
    proxy.cut();
    publish(&direct, &topic, message("new")).await.unwrap();
    let inbound = next_message(&mut source).await;
    assert_eq!(text(&inbound), "new");
    let read = proxy.sent() - before;
    assert!(read < 100_000, "{read} bytes for one message");
    ack(inbound).await;
    ack(slow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_of_a_consumer_hands_nothing_out_again() {
    let cluster = spawn_blocking(|| Cluster::try_start(Kind::Nats).unwrap()).await.unwrap();
    let url = cluster.url();
    let nats = connect_to(&format!("{url}?replicas=3&ack=confirm")).await.unwrap();
    let topic = topic("leader");
    publish_numbers(&nats, &topic, 0..20).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let held = take(&mut source, 20).await;
    let (raw, stream) = (nats.as_client().clone(), topic.replace('.', "~"));
    for _ in 0..2 {
        let step_down = format!("$JS.API.CONSUMER.LEADER.STEPDOWN.{stream}.workers");
        raw.request(step_down, "".into()).await.unwrap();
        assert!(kit::next_within(&mut source, Duration::from_secs(2)).await.is_none());
    }
    publish_numbers(&nats, &topic, 20..25).await;
    for number in 20..25 {
        let inbound = next(&mut source).await;
        assert_eq!((text(&inbound), inbound.deliveries), (number.to_string().as_str(), Some(1)));
        ack(inbound).await;
    }
    for inbound in held {
        ack(inbound).await;
    }
    assert_quiet(&mut source).await;
    nats.close().await.unwrap();
}

/// A user that may do what a consumer and a producer need, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_permissions_are_enough() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("nats.conf");
    let rules = r#"authorization { users = [
        { user: admin, password: x },
        { user: app, password: x, permissions: {
            publish: [ "few.>", "$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.few",
                       "$JS.API.CONSUMER.INFO.few.workers", "$JS.API.CONSUMER.MSG.NEXT.few.workers", "$JS.ACK.>" ],
            subscribe: "_INBOX.>" } } ] }"#;
    std::fs::write(&config, rules).unwrap();
    let process = Process::start(&["--jetstream", "--config", config.to_str().unwrap()]);
    let admin = connect_to(&format!("nats://admin:x@127.0.0.1:{}", process.port())).await.unwrap();
    let context = async_nats::jetstream::new(admin.as_client().clone());
    let (name, subjects) = ("few".to_owned(), vec!["few.orders".to_owned()]);
    let stream = async_nats::jetstream::stream::Config { name, subjects, ..Default::default() };
    context.create_stream(stream).await.unwrap();
    let topic = Topic::new("few.orders").unwrap();
    drop(subscribe(&admin, &topic, "workers").await);
    // Its request for messages ends with it.
    admin.close().await.unwrap();

    let proxy = Proxy::start(("127.0.0.1".to_owned(), process.port())).await;
    let url = format!("{}?topology=check&confirm_timeout=3000", proxy.url("app:x@"));
    let nats = connect_to(&url).await.unwrap();
    nats.ping().await.unwrap();
    publish_numbers(&nats, &topic, 0..10).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let held = take(&mut source, 5).await;
    proxy.cut();
    // A settlement that is on its way when the connection is lost is lost with it.
    let restored = async { while nats.ping().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), restored).await.expect("another connection");
    for number in 5..10 {
        let inbound = next(&mut source).await;
        assert_eq!(text(&inbound), number.to_string());
        ack(inbound).await;
    }
    for inbound in held {
        settle(inbound, Disposition::Ack).await.unwrap();
    }
    assert_quiet(&mut source).await;
    let begun = std::time::Instant::now();
    drop(source);
    nats.close().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "nothing is waited for: {:?}", begun.elapsed());
}

/// More than the server lets wait for a client: it would end the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_over_a_slow_connection_break_it_not() {
    const COUNT: usize = 90;
    let proxy = Proxy::start(server()).await;
    let (direct, nats) = (kit::connect().await, connect_to(&proxy.url("")).await.unwrap());
    let topic = topic("large");
    direct.declare(&topic).await.unwrap();
    for _ in 0..COUNT {
        publish(&direct, &topic, message(vec![b'x'; 1_000_000])).await.unwrap();
    }
    let mut source = subscribe(&nats, &topic, "workers").await;
    let connections = proxy.connections();
    let first = next(&mut source).await;
    proxy.stall(true);
    ack(first).await;
    // The window asks for more while nothing is read.
    let _ = kit::next_within(&mut source, Duration::from_secs(3)).await.map(|inbound| drop(inbound.unwrap().handle));
    proxy.stall(false);
    let mut offsets = std::collections::BTreeSet::new();
    while offsets.len() < COUNT - 1 {
        let inbound = next(&mut source).await;
        offsets.insert(inbound.offset);
        ack(inbound).await;
    }
    assert_eq!(proxy.connections(), connections, "no connection is lost");
}

/// Larger than what is requested at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_larger_than_a_request_is_requested_alone() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("nats.conf");
    std::fs::write(&config, "max_payload: 20MB").unwrap();
    let process = Process::start(&["--jetstream", "--config", config.to_str().unwrap()]);
    let nats = connect_to(&format!("nats://127.0.0.1:{}", process.port())).await.unwrap();
    let topic = topic("huge");
    nats.declare(&topic).await.unwrap();
    let sizes = [10, 12_000_000, 20, 9_000_000, 9_000_000, 30];
    for size in sizes {
        publish(&nats, &topic, message(vec![b'x'; size])).await.unwrap();
    }
    let mut source = subscribe(&nats, &topic, "workers").await;
    for size in sizes {
        let inbound = next(&mut source).await;
        assert_eq!(inbound.payload.as_ref().unwrap().len(), size);
        ack(inbound).await;
    }
    assert_quiet(&mut source).await;
}
