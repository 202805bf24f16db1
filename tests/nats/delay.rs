//! Delayed publishing.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use traced_broker::adapters::nats::Nats;
use traced_broker::driver::{Driver, Inbound, Outbound};
use traced_broker::{ErrorKind, Headers, PublishOutcome, Topic};

use crate::kit::{self, ack, assert_quiet, message, next, publish, subscribe, text, topic, with_headers};

fn later(message: Outbound, delay: Duration) -> Outbound {
    Outbound { deliver_at: Some(SystemTime::now() + delay), ..message }
}

async fn stream(topic: &Topic) -> stream::Stream {
    jetstream::new(kit::raw().await).get_stream(topic.replace('.', "~")).await.unwrap()
}

/// Creates a user-defined stream for the topic.
async fn create(topic: &Topic, subjects: &[&str], config: stream::Config) {
    let mut all = vec![topic.to_string()];
    all.extend(subjects.iter().map(|&subject| subject.to_owned()));
    let config = stream::Config { name: topic.replace('.', "-own-"), subjects: all, ..config };
    jetstream::new(kit::raw().await).create_stream(config).await.unwrap();
}

/// The contents of a message, without its position and time.
#[derive(Debug, PartialEq)]
struct Contents {
    payload: Option<Bytes>,
    key: Option<Bytes>,
    id: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    unreadable_headers: u32,
    attempt: u32,
}

fn contents(inbound: &Inbound) -> Contents {
    // The client does not preserve the order of different names.
    let mut headers: Vec<_> = inbound.headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    headers.sort_by(|(first, _), (second, _)| first.cmp(second));
    let (payload, key, id) = (inbound.payload.clone(), inbound.key.clone(), inbound.id.clone());
    Contents { payload, key, id, headers, unreadable_headers: inbound.unreadable_headers, attempt: inbound.attempt }
}

#[tokio::test]
async fn what_is_due_arrives_as_if_it_were_published_then() {
    let nats = kit::connect().await;
    assert!(nats.capabilities().delayed_publish);
    let topic = topic("exact");
    nats.declare(&topic).await.unwrap();
    let mut source = subscribe(&nats, &topic, "readers").await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let headers: Headers = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "vendor=1,other=t61rcWkgMzE"),
        ("baggage", "a=Nats-Schedule: x,b=2"),
        ("Multi", "one"),
        ("Multi", "two"),
        ("empty", ""),
        ("text", "\u{fc}\u{1f511}; a=b, c:d"),
        ("X-Nats-Schedule", "mine"),
    ]
    .into_iter()
    .collect();
    for (key, id) in [(None, None), (Some(&every_byte[..]), Some("id-1")), (Some(b"customer-7"), Some("id \u{fc}"))] {
        let sent = Outbound {
            payload: Some(every_byte.clone().into()),
            key: key.map(Bytes::copy_from_slice),
            id: id.map(|id| format!("now {id}")),
            headers: headers.clone(),
            ..Outbound::default()
        };
        publish(&nats, &topic, sent.clone()).await.unwrap();
        let inbound = next(&mut source).await;
        let mut expected = contents(&inbound);
        ack(inbound).await;

        let due = SystemTime::now() + Duration::from_millis(1200);
        expected.id = id.map(str::to_owned);
        let delayed = Outbound { deliver_at: Some(due), id: expected.id.clone(), ..sent };
        let receipt = publish(&nats, &topic, delayed).await.unwrap();
        assert_eq!((receipt.confirmed, receipt.offset), (true, None), "its place is not known yet");
        assert_quiet(&mut source).await;
        let inbound = next(&mut source).await;
        let now = SystemTime::now();
        assert!(now >= due && now < due + Duration::from_secs(2), "{:?} late", now.duration_since(due));
        let stored = inbound.timestamp.unwrap().time;
        assert!(stored >= due && stored <= now, "the time is when it was due");
        assert_eq!(contents(&inbound), expected);
        assert_eq!(inbound.headers.get_all("traceparent").count(), 1);
        ack(inbound).await;
    }
    assert_quiet(&mut source).await;
    assert_eq!(stream(&topic).await.info().await.unwrap().state.messages, 6, "nothing is kept that has been delivered");
}

#[tokio::test]
async fn each_comes_when_it_is_due_and_others_pass() {
    let nats = kit::connect().await;
    let topic = topic("each");
    nats.declare(&topic).await.unwrap();
    let mut source = subscribe(&nats, &topic, "readers").await;
    let start = SystemTime::now();
    let due = |tenths: u64| start + Duration::from_millis(100 * tenths);
    let at = |tenths| Outbound { deliver_at: Some(due(tenths)), ..message(tenths.to_string()) };
    for tenths in [30, 10, 20, 10, 20] {
        publish(&nats, &topic, at(tenths)).await.unwrap();
    }
    publish(&nats, &topic, message("0")).await.unwrap();
    let mut texts = Vec::new();
    for _ in 0..6 {
        let inbound = next(&mut source).await;
        let tenths = text(&inbound).parse().unwrap();
        assert!(SystemTime::now() >= due(tenths), "{tenths} came early");
        texts.push(tenths);
        ack(inbound).await;
    }
    assert_eq!(texts, [0, 10, 10, 20, 20, 30]);
    assert_quiet(&mut source).await;
}

#[tokio::test]
async fn a_time_in_the_past_delays_nothing() {
    let nats = kit::connect().await;
    let topic = topic("past");
    nats.declare(&topic).await.unwrap();
    let mut source = subscribe(&nats, &topic, "readers").await;
    for time in [SystemTime::UNIX_EPOCH - Duration::from_secs(1), SystemTime::now() - Duration::from_secs(60)] {
        publish(&nats, &topic, Outbound { deliver_at: Some(time), ..message("x") }).await.unwrap();
        ack(next(&mut source).await).await;
    }
}

#[tokio::test]
async fn what_is_kept_outlives_its_publisher_and_the_age_limit() {
    let leaver = kit::connect_with("?max_age=1000").await;
    let topic = topic("outlives");
    leaver.declare(&topic).await.unwrap();
    publish(&leaver, &topic, later(with_headers("later", [("a", &b"b"[..])]), Duration::from_secs(3))).await.unwrap();
    publish(&leaver, &topic, message("expires")).await.unwrap();
    drop(leaver);
    let nats = kit::connect().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stream(&topic).await.info().await.unwrap().state.messages, 1);
    let mut source = subscribe(&nats, &topic, "readers").await;
    let inbound = next(&mut source).await;
    assert_eq!((text(&inbound), inbound.headers.get("a")), ("later", Some(&b"b"[..])));
    ack(inbound).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stream(&topic).await.info().await.unwrap().state.messages, 0, "once due it ages as any other");
}

#[tokio::test]
async fn one_id_is_kept_once() {
    let nats = kit::connect().await;
    let topic = topic("id");
    nats.declare(&topic).await.unwrap();
    let mut source = subscribe(&nats, &topic, "readers").await;
    for id in ["a", "a", "b"] {
        let sent = Outbound { id: Some(id.to_owned()), ..message(id) };
        assert!(publish(&nats, &topic, later(sent, Duration::from_millis(500))).await.unwrap().confirmed);
    }
    for expected in ["a", "b"] {
        let inbound = next(&mut source).await;
        assert_eq!(inbound.id.as_deref(), Some(expected));
        ack(inbound).await;
    }
    assert_quiet(&mut source).await;
}

async fn refusal(nats: &Nats, topic: &Topic, delay: Duration) -> String {
    let error = publish(nats, topic, later(message("x"), delay)).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Conflict, PublishOutcome::NotSent), "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_stream_that_cannot_keep_messages_is_a_conflict_that_says_how_to_mend_it() {
    let nats = kit::connect().await;
    let schedules = stream::Config { allow_message_schedules: true, ..stream::Config::default() };
    let (short, long) = (Duration::from_millis(500), Duration::from_secs(60));

    let topic = kit::topic("plain");
    let kept = format!("@delayed.{}.>", topic.replace('.', "~"));
    create(&topic, &[&kept], stream::Config::default()).await;
    nats.declare(&topic).await.unwrap();
    let error = refusal(&nats, &topic, short).await;
    assert!(error.contains("allow_msg_schedules") && error.contains(&kept) && error.contains("plain-own-"), "{error}");
    publish(&nats, &topic, message("x")).await.unwrap();

    let topic = kit::topic("narrow");
    create(&topic, &[], schedules.clone()).await;
    nats.declare(&topic).await.unwrap();
    let error = refusal(&nats, &topic, short).await;
    assert!(error.contains(&format!("@delayed.{}.>", topic.replace('.', "~"))), "{error}");

    let topic = kit::topic("interest");
    let kept = format!("@delayed.{}.>", topic.replace('.', "~"));
    let interest = stream::Config { retention: stream::RetentionPolicy::Interest, ..schedules.clone() };
    create(&topic, &[&kept], interest).await;
    nats.declare(&topic).await.unwrap();
    refusal(&nats, &topic, short).await;

    let topic = kit::topic("forgetful");
    let kept = format!("@delayed.{}.*", topic.replace('.', "~"));
    create(&topic, &[&kept], stream::Config { max_age: Duration::from_secs(30), ..schedules }).await;
    nats.declare(&topic).await.unwrap();
    let error = refusal(&nats, &topic, long).await;
    assert!(error.contains("allow_msg_ttl"), "{error}");
    // The delay works up to that limit.
    let mut source = subscribe(&nats, &topic, "readers").await;
    publish(&nats, &topic, later(message("x"), short)).await.unwrap();
    ack(next(&mut source).await).await;
}

#[tokio::test]
async fn what_the_server_refuses_to_keep_was_not_sent() {
    let nats = kit::connect().await;
    let topic = topic("changed");
    nats.declare(&topic).await.unwrap();
    // Another stream has replaced it since.
    let context = jetstream::new(kit::raw().await);
    context.delete_stream(topic.replace('.', "~")).await.unwrap();
    let kept = format!("@delayed.{}.>", topic.replace('.', "~"));
    create(&topic, &[&kept], stream::Config::default()).await;
    refusal(&nats, &topic, Duration::from_secs(1)).await;
    let error = publish(&nats, &topic, Outbound { deliver_at: None, ..message("x") }).await;
    assert!(error.is_ok(), "{error:?}");
}

#[tokio::test]
async fn what_cannot_be_delayed_is_refused() {
    let nats = kit::connect().await;
    let topic = topic("refused");
    nats.declare(&topic).await.unwrap();
    let beyond = SystemTime::UNIX_EPOCH + Duration::from_secs(300 * 365 * 86_400);
    let error = publish(&nats, &topic, Outbound { deliver_at: Some(beyond), ..message("x") }).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::InvalidMessage, PublishOutcome::NotSent));
    let header = with_headers("x", [("Delayed-Message-Id", &b"1"[..])]);
    assert_eq!(publish(&nats, &topic, header).await.unwrap_err().kind(), ErrorKind::InvalidMessage);
    // The headers that make the server keep the message count towards its size.
    let limit = nats.capabilities().max_payload.unwrap();
    let large = later(message(vec![0; limit]), Duration::from_secs(1));
    assert_eq!(publish(&nats, &topic, large).await.unwrap_err().kind(), ErrorKind::TooLarge);

    let core = kit::connect_with("?mode=core").await;
    assert!(!core.capabilities().delayed_publish);
    let error = publish(&core, &topic, later(message("x"), Duration::from_secs(1))).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unsupported, PublishOutcome::NotSent));
}
