//! Start positions of groups and readers, and groups that are moved.

use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream;
use traced_broker::driver::{Disposition, Driver, Source};
use traced_broker::{ErrorKind, Start, Subscription, Topic};

use crate::kit::{
    self, ack, assert_quiet, message, next, next_message, publish, publish_numbers, settle, subscribe, text, topic,
};

async fn take(source: &mut Source, messages: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..messages {
        let inbound = next_message(source).await;
        texts.push(text(&inbound).to_owned());
        ack(inbound).await;
    }
    texts
}

fn group(topic: &Topic) -> Subscription {
    Subscription::new(&**topic).group("workers")
}

async fn info(topic: &Topic) -> jetstream::consumer::Info {
    let context = jetstream::new(kit::raw().await);
    let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
    stream.consumer_info("workers").await.unwrap()
}

/// Publishes 0 to 9, and returns a time between 5 and 6; the server has the same clock.
async fn ten(nats: &traced_broker::adapters::nats::Nats, topic: &Topic) -> SystemTime {
    publish_numbers(nats, topic, 0..6).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let between = SystemTime::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    publish_numbers(nats, topic, 6..10).await;
    between
}

#[tokio::test]
async fn groups_and_readers_begin_at_a_time_or_an_offset() {
    let nats = kit::connect().await;
    let topic = topic("begin");
    let between = ten(&nats, &topic).await;
    let capabilities = nats.capabilities();
    assert!(capabilities.start_at_time && capabilities.start_at_offset && capabilities.reposition);
    let cases = [
        (Start::Time(between), "6"),
        (Start::Time(SystemTime::UNIX_EPOCH), "0"),
        (Start::Time(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "0"),
        (Start::Offset(8), "7"),
        (Start::Offset(1), "0"),
        (Start::Offset(0), "0"),
        (Start::Earliest, "0"),
    ];
    for (place, (start, first)) in cases.into_iter().enumerate() {
        let group = Subscription::new(&*topic).group(format!("group-{place}"));
        for subscription in [group, Subscription::new(&*topic)] {
            let mut source = nats.subscribe(&subscription.start(start)).await.unwrap();
            let inbound = next(&mut source).await;
            assert_eq!(text(&inbound), first, "{start:?}");
            let rest = 9 - first.parse::<usize>().unwrap();
            assert_eq!(inbound.offset, Some(10 - i64::try_from(rest).unwrap()));
            ack(inbound).await;
            assert_eq!(take(&mut source, rest).await.len(), rest);
            assert_quiet(&mut source).await;
        }
    }
}

#[tokio::test]
async fn a_start_that_is_yet_to_come_waits() {
    let nats = kit::connect().await;
    let topic = topic("later");
    publish_numbers(&nats, &topic, 0..2).await;
    let mut offset = nats.subscribe(&group(&topic).start(Start::Offset(4))).await.unwrap();
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    let mut time = nats.subscribe(&Subscription::new(&*topic).start(Start::Time(tomorrow))).await.unwrap();
    assert_quiet(&mut offset).await;
    assert_quiet(&mut time).await;
    publish_numbers(&nats, &topic, 2..4).await;
    assert_eq!(take(&mut offset, 1).await, ["3"], "what lies before is passed over");
    assert_eq!(take(&mut time, 2).await, ["2", "3"], "a time that is yet to come is now");
}

#[tokio::test]
async fn members_go_on_from_where_their_group_is_moved() {
    let (nats, elsewhere) = (kit::connect().await, kit::connect().await);
    let topic = topic("move");
    let between = ten(&nats, &topic).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    assert_eq!(take(&mut source, 10).await.len(), 10);
    let cases = [
        (Start::Earliest, "0", 10),
        (Start::Time(between), "6", 4),
        (Start::Offset(3), "2", 8),
        (Start::Time(SystemTime::UNIX_EPOCH), "0", 10),
    ];
    // The result is the same whether or not the members are in the process that moves their group.
    for mover in [&nats, &elsewhere] {
        for (start, first, messages) in cases {
            mover.reposition(&group(&topic), start).await.unwrap();
            let taken = take(&mut source, messages).await;
            assert_eq!(taken[0], first, "{start:?}");
            assert_quiet(&mut source).await;
        }
        mover.reposition(&group(&topic), Start::Latest).await.unwrap();
        assert_quiet(&mut source).await;
        let last = publish(&nats, &topic, message("new")).await.unwrap().offset.unwrap();
        assert_eq!(take(&mut source, 1).await, ["new"]);
        let context = jetstream::new(kit::raw().await);
        let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
        assert!(stream.delete_message(u64::try_from(last).unwrap()).await.unwrap());
    }
}

#[tokio::test]
async fn what_was_out_or_fetched_before_a_move_is_of_no_more_use() {
    let nats = kit::connect().await;
    let topic = topic("stale");
    publish_numbers(&nats, &topic, 0..10).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let (first, second, third) = (next(&mut source).await, next(&mut source).await, next(&mut source).await);
    ack(first).await;
    // By now the other seven are in the client's queue.
    tokio::time::sleep(Duration::from_millis(100)).await;
    nats.reposition(&group(&topic), Start::Offset(8)).await.unwrap();
    for (stale, disposition) in [(second, Disposition::Ack), (third, Disposition::Retry(Duration::ZERO))] {
        assert_eq!(settle(stale, disposition).await.unwrap_err().kind(), ErrorKind::SettlementLost);
    }
    assert_eq!(take(&mut source, 3).await, ["7", "8", "9"]);
    assert_quiet(&mut source).await;
    let info = info(&topic).await;
    assert_eq!((info.num_ack_pending, info.num_pending, info.ack_floor.stream_sequence), (0, 0, 10));
}

#[tokio::test]
async fn what_is_acknowledged_after_a_move_stays_so() {
    let nats = kit::connect_with("?ack=confirm").await;
    let topic = topic("kept");
    publish_numbers(&nats, &topic, 0..10).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    assert_eq!(take(&mut source, 10).await.len(), 10);
    nats.reposition(&group(&topic), Start::Offset(4)).await.unwrap();
    assert_eq!(take(&mut source, 3).await, ["3", "4", "5"]);
    drop((source, nats));
    let nats = kit::connect().await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let mut taken = take(&mut source, 4).await;
    taken.sort();
    assert_eq!(taken, ["6", "7", "8", "9"]);
    assert_quiet(&mut source).await;
}

#[tokio::test]
async fn a_group_is_moved_before_where_it_was_created_if_it_has_no_other_members() {
    let nats = kit::connect().await;
    for (start, back) in [(Start::Latest, Start::Earliest), (Start::Offset(5), Start::Offset(2))] {
        let topic = topic("before");
        publish_numbers(&nats, &topic, 0..6).await;
        let mut source = nats.subscribe(&group(&topic).start(start)).await.unwrap();
        drop(source);
        // Members elsewhere would recreate the group at its old position.
        let elsewhere = kit::connect().await;
        let mut other = elsewhere.subscribe(&group(&topic)).await.unwrap();
        let created = info(&topic).await.created;
        let error = nats.reposition(&group(&topic), back).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(info(&topic).await.created, created, "left as it was");
        publish_numbers(&nats, &topic, 6..7).await;
        let behind = if start == Start::Latest { vec!["6"] } else { vec!["4", "5", "6"] };
        let mut taken = take(&mut other, behind.len()).await;
        // The messages that the previous member had fetched arrive in any order.
        taken.sort();
        assert_eq!(taken, behind);
        drop(other);
        elsewhere.close().await.unwrap();

        source = nats.subscribe(&group(&topic)).await.unwrap();
        assert_quiet(&mut source).await;
        nats.reposition(&group(&topic), back).await.unwrap();
        let first = if back == Start::Earliest { 0 } else { 1 };
        assert_eq!(take(&mut source, 7 - first).await, (first..7).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_quiet(&mut source).await;
    }
}

#[tokio::test]
async fn a_refused_move_gives_back_what_was_out() {
    let (nats, elsewhere) = (kit::connect().await, kit::connect().await);
    let topic = topic("refused");
    publish_numbers(&nats, &topic, 0..3).await;
    let latest = group(&topic).start(Start::Offset(2));
    let mut source = nats.subscribe(&latest).await.unwrap();
    let held = next(&mut source).await;
    assert_eq!(text(&held), "1");
    let other = elsewhere.subscribe(&latest).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(nats.reposition(&latest, Start::Earliest).await.unwrap_err().kind(), ErrorKind::Conflict);
    drop(other);
    elsewhere.close().await.unwrap();
    let begun = Instant::now();
    let mut taken = take(&mut source, 2).await;
    taken.sort();
    assert_eq!(taken, ["1", "2"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "sooner than the server would by itself: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_group_that_is_missing_is_made_where_it_is_to_be() {
    let nats = kit::connect().await;
    let topic = topic("missing");
    let error = nats.reposition(&group(&topic), Start::Earliest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "no topic: {error}");
    assert!(error.to_string().contains(topic.as_str()), "{error}");
    publish_numbers(&nats, &topic, 0..3).await;
    let checking = kit::connect_with("?topology=check").await;
    let error = checking.reposition(&group(&topic), Start::Offset(3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "no group: {error}");
    nats.reposition(&group(&topic), Start::Offset(3)).await.unwrap();
    let mut source = subscribe(&nats, &topic, "workers").await;
    assert_eq!(take(&mut source, 1).await, ["2"]);
    // Moving an existing group creates no topology.
    checking.reposition(&group(&topic), Start::Offset(3)).await.unwrap();
    assert_eq!(take(&mut source, 1).await, ["2"]);
    drop(source);
    nats.close().await.unwrap();
    let error = checking.reposition(&group(&topic), Start::Offset(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "that would need to make it again: {error}");
}

#[tokio::test]
async fn core_nats_has_no_positions() {
    let nats = kit::connect_with("?mode=core").await;
    let capabilities = nats.capabilities();
    assert!(!capabilities.start_at_time && !capabilities.start_at_offset && !capabilities.reposition);
    let topic = topic("core");
    let error = nats.reposition(&group(&topic), Start::Latest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for start in [Start::Time(SystemTime::now()), Start::Offset(1)] {
        for subscription in [Subscription::new(&*topic), group(&topic)] {
            let error = nats.subscribe(&subscription.at_most_once().start(start)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{start:?}");
        }
    }
}

/// A consumer that is created again keeps every setting of its operator, also those that this
/// library does not know.
#[tokio::test]
async fn a_group_that_is_recreated_keeps_its_settings() {
    let nats = kit::connect().await;
    let topic = topic("settings");
    publish_numbers(&nats, &topic, 0..3).await;
    let client = kit::raw().await;
    let name = topic.replace('.', "~");
    let request = format!(
        r#"{{"stream_name":"{name}","config":{{"durable_name":"workers","name":"workers","ack_policy":"explicit",
            "filter_subject":"{topic}","deliver_policy":"by_start_sequence","opt_start_seq":3,"max_batch":7,
            "description":"of the shop","metadata":{{"owner":"shop"}},"sample_freq":"50"}}}}"#
    );
    let created = client.request(format!("$JS.API.CONSUMER.CREATE.{name}.workers.{topic}"), request.into()).await;
    assert!(!String::from_utf8_lossy(&created.unwrap().payload).contains("error"));
    nats.reposition(&group(&topic), Start::Offset(2)).await.unwrap();
    let info = client.request(format!("$JS.API.CONSUMER.INFO.{name}.workers"), "".into()).await.unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
    let config = &info["config"];
    assert_eq!((&config["opt_start_seq"], &config["max_batch"]), (&2.into(), &7.into()), "{info}");
    assert_eq!((&config["description"], &config["sample_freq"]), (&"of the shop".into(), &"50".into()), "{info}");
    assert_eq!(config["metadata"]["owner"], "shop", "{info}");
    let mut source = subscribe(&nats, &topic, "workers").await;
    assert_eq!(take(&mut source, 2).await, ["1", "2"]);
}
