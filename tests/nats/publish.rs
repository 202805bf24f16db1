//! Publishing.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use traced_broker::capability::TimestampSource;
use traced_broker::driver::{Driver, DriverExt, Outbound};
use traced_broker::{ErrorKind, Headers, Message, PublishOutcome, Traced, TracedBroker};

use crate::kit::{self, ack, message, next, publish, subscribe, text, topic, with_headers};

#[tokio::test]
async fn confirms_come_in_order_with_many_in_flight() {
    let nats = kit::connect().await;
    let topic = topic("order");
    nats.declare(&topic).await.unwrap();
    let confirmations: Vec<_> = (0..1000).map(|n: u32| nats.enqueue(&topic, message(n.to_string()))).collect();
    for (place, confirmation) in (1..).zip(confirmations) {
        let receipt = confirmation.await.unwrap();
        assert_eq!((receipt.confirmed, receipt.offset), (true, Some(place)));
    }
    let mut source = subscribe(&nats, &topic, "readers").await;
    for number in 0..1000 {
        let inbound = next(&mut source).await;
        assert_eq!(text(&inbound), number.to_string());
        assert_eq!(inbound.offset, Some(i64::from(number) + 1));
        ack(inbound).await;
    }
}

#[tokio::test]
async fn order_holds_when_publishing_uses_up_the_turn() {
    // Tokio makes a task yield if it does too much in one turn; a publish must get through all the
    // same.
    let nats = kit::connect().await;
    let topic = topic("turn");
    nats.declare(&topic).await.unwrap();
    let confirmations = tokio::spawn(async move {
        let confirmations: Vec<_> = (0..1024).map(|n: u32| nats.enqueue(&topic, message(n.to_string()))).collect();
        (nats, confirmations)
    });
    let (_nats, confirmations) = confirmations.await.unwrap();
    for (place, confirmation) in (1..).zip(confirmations) {
        assert_eq!(confirmation.await.unwrap().offset, Some(place));
    }
}

#[tokio::test]
async fn payload_headers_key_and_id_arrive_as_they_were() {
    let nats = kit::connect().await;
    let topic = topic("exact");
    nats.declare(&topic).await.unwrap();
    let mut source = subscribe(&nats, &topic, "readers").await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let headers: Headers = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("Multi", "one"),
        ("Multi", "two"),
        ("empty", ""),
        ("text", "\u{fc}\u{1f511}; a=b, c:d"),
        ("control", "a\tb\u{0}c"),
    ]
    .into_iter()
    .collect();
    for key in [None, Some(&b"customer-7"[..]), Some(b""), Some(&every_byte), Some(b" x "), Some(b"a\r\nb")] {
        let key = key.map(Bytes::copy_from_slice);
        let id = Some(format!("id {key:?}"));
        let sent = Outbound {
            payload: Some(every_byte.clone().into()),
            key,
            id,
            headers: headers.clone(),
            ..Outbound::default()
        };
        publish(&nats, &topic, sent.clone()).await.unwrap();
        let inbound = next(&mut source).await;
        assert_eq!(inbound.payload, sent.payload);
        assert_eq!(inbound.key, sent.key);
        assert_eq!(inbound.id, sent.id);
        assert_eq!(inbound.unreadable_headers, 0);
        assert_eq!(inbound.headers.len(), headers.len());
        for (name, _) in headers.iter() {
            let (got, sent): (Vec<_>, Vec<_>) =
                (inbound.headers.get_all(name).collect(), headers.get_all(name).collect());
            assert_eq!(got, sent, "{name}");
        }
        ack(inbound).await;
    }
}

#[tokio::test]
async fn an_empty_payload_is_a_payload_and_a_missing_one_is_refused() {
    let nats = kit::connect().await;
    let topic = topic("empty");
    nats.declare(&topic).await.unwrap();
    let mut source = subscribe(&nats, &topic, "readers").await;
    publish(&nats, &topic, message("")).await.unwrap();
    let inbound = next(&mut source).await;
    assert_eq!(inbound.payload.as_deref(), Some(&b""[..]));
    assert_eq!((inbound.key.is_none(), inbound.id.is_none(), inbound.headers.is_empty()), (true, true, true));
    ack(inbound).await;

    let tombstone = Outbound { payload: None, ..message("") };
    let error = publish(&nats, &topic, tombstone).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unsupported, PublishOutcome::NotSent));
    assert!(!nats.capabilities().tombstones);
}

#[tokio::test]
async fn headers_that_nats_cannot_carry_are_refused_and_nothing_is_sent() {
    let nats = kit::connect().await;
    let topic = topic("refused");
    nats.declare(&topic).await.unwrap();
    let refused: [(&str, &[u8]); 6] = [
        ("a b", b"x"),
        ("a", b"\xff"),
        ("a", b"x\r\nNats-Rollup: all"),
        ("Nats-Msg-Id", b"1"),
        ("message-key", b"1"),
        ("a", b" x"),
    ];
    for (name, value) in refused {
        let error = publish(&nats, &topic, with_headers("x", [(name, value)])).await.unwrap_err();
        assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::InvalidMessage, PublishOutcome::NotSent));
        assert!(error.to_string().contains(&name.escape_default().to_string()), "{error}");
    }
    let error = publish(&nats, &topic, Outbound { id: Some("a\nb".into()), ..message("x") }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidMessage);
    assert_eq!(publish(&nats, &topic, message("x")).await.unwrap().offset, Some(1), "the only one that was stored");
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_both_sizes() {
    let nats = kit::connect().await;
    let topic = topic("large");
    nats.declare(&topic).await.unwrap();
    let limit = nats.capabilities().max_payload.unwrap();
    publish(&nats, &topic, message(vec![0; limit])).await.unwrap();
    // With headers the message exceeds the limit, although the payload alone does not.
    let headers = [("name", "value")].into_iter().collect();
    for message in [message(vec![0; limit + 1]), Outbound { headers, ..message(vec![0; limit]) }] {
        let error = publish(&nats, &topic, message).await.unwrap_err();
        assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::TooLarge, PublishOutcome::NotSent));
        assert!(error.to_string().contains(&limit.to_string()), "{error}");
    }
    // JetStream has a separate limit for headers.
    let error = publish(&nats, &topic, with_headers("", [("a", &[b'x'; 65_536][..])])).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::TooLarge, PublishOutcome::NotSent));
    assert_eq!(publish(&nats, &topic, message("x")).await.unwrap().offset, Some(2), "the connection lives");
}

#[tokio::test]
async fn one_id_is_stored_once() {
    let nats = kit::connect().await;
    let topic = topic("id");
    nats.declare(&topic).await.unwrap();
    let with_id = |id: &str| Outbound { id: Some(id.to_owned()), ..message("x") };
    let offsets = [
        publish(&nats, &topic, with_id("a")).await.unwrap().offset,
        publish(&nats, &topic, with_id("a")).await.unwrap().offset,
        publish(&nats, &topic, with_id("b")).await.unwrap().offset,
    ];
    assert_eq!(offsets, [Some(1), Some(1), Some(2)]);
}

#[tokio::test]
async fn the_timestamp_is_the_servers() {
    let nats = kit::connect().await;
    let topic = topic("time");
    nats.declare(&topic).await.unwrap();
    let before = SystemTime::now();
    publish(&nats, &topic, message("x")).await.unwrap();
    let after = SystemTime::now();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let inbound = next(&mut subscribe(&nats, &topic, "readers").await).await;
    let timestamp = inbound.timestamp.unwrap();
    assert_eq!(timestamp.source, TimestampSource::Broker);
    assert!(timestamp.time >= before && timestamp.time <= after);
}

#[tokio::test]
async fn a_publish_to_a_stream_that_is_gone_was_not_sent() {
    let nats = kit::connect().await;
    let topic = topic("gone");
    nats.declare(&topic).await.unwrap();
    let context = async_nats::jetstream::new(kit::raw().await);
    context.delete_stream(topic.replace('.', "~")).await.unwrap();
    let error = publish(&nats, &topic, message("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::NotSent));
}

#[tokio::test]
async fn what_the_stream_refuses_was_not_sent() {
    let nats = kit::connect().await;
    let topic = topic("full");
    let context = async_nats::jetstream::new(kit::raw().await);
    let stream = async_nats::jetstream::stream::Config {
        name: topic.replace('.', "-full-"),
        subjects: vec![topic.to_string()],
        max_messages: 1,
        max_message_size: 100,
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..Default::default()
    };
    context.create_stream(stream).await.unwrap();
    nats.declare(&topic).await.unwrap();
    let error = publish(&nats, &topic, message(vec![0; 101])).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::TooLarge, PublishOutcome::NotSent));
    publish(&nats, &topic, message("x")).await.unwrap();
    let error = publish(&nats, &topic, message("y")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Busy, PublishOutcome::NotSent));
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("maximum"), "the server's own words");
}

/// With a subscription, its reader would make the stream again; without one, the publisher does.
#[tokio::test]
async fn a_stream_that_is_deleted_in_use_is_made_again_by_its_publisher() {
    let broker = Traced::new(kit::connect().await);
    let topic = topic("again");
    broker.publish(&topic, Message::new("before")).await.unwrap();
    let context = async_nats::jetstream::new(kit::raw().await);
    for round in 0..2 {
        context.delete_stream(topic.replace('.', "~")).await.unwrap();
        let receipt = broker.publish(&topic, Message::new(format!("after {round}"))).await.unwrap();
        let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
        let stored = stream.get_last_raw_message_by_subject(&topic).await.unwrap();
        assert_eq!(stored.payload, format!("after {round}"), "in the stream that was made, at {receipt:?}");
        let messages = context.get_stream(topic.replace('.', "~")).await.unwrap().cached_info().state.messages;
        assert_eq!((messages, receipt.offset), (1, Some(1)), "the message is stored once");
    }
}
