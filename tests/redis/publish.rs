//! Publishing: order, outcomes, layout, options.

use std::collections::BTreeMap;

use traced_broker::adapters::redis::MAX_FIELD;
use traced_broker::driver::{Driver, DriverExt, Outbound};
use traced_broker::{ErrorKind, PublishOutcome};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirms_in_order_with_all_in_flight_that_may_be() {
    let (broker, topic) = (broker().await, topic("order"));
    let mut ids = Vec::new();
    for round in 0..5 {
        let publishes: Vec<_> =
            (0..1024).map(|number| broker.enqueue(&topic, message((round * 1024 + number).to_string()))).collect();
        for publish in publishes {
            let receipt = publish.await.unwrap();
            assert!(receipt.confirmed);
            ids.push(receipt.id.unwrap());
        }
    }
    let stored: Vec<(String, BTreeMap<String, String>)> = Raw::new().await.run(&["XRANGE", &topic, "-", "+"]).await;
    assert!(stored.iter().map(|(_, fields)| &fields["payload"]).eq(&numbers(0..5120)), "the order of the calls");
    assert!(stored.iter().map(|(id, _)| id).eq(&ids), "each receipt names its own entry");
    broker.close().await.unwrap();
}

#[tokio::test]
async fn lays_headers_out_so_that_anyone_can_read_them() {
    let (broker, topic) = (broker().await, topic("layout"));
    let headers = [("traceparent", "00-ab"), ("tenant", "a"), ("payload", "mine"), ("tenant", "b"), ("header:x", "y")];
    let message = Outbound {
        payload: Some(vec![0, 255, 13, 10].into()),
        key: Some(vec![254, 0].into()),
        id: Some("order-1".to_owned()),
        headers: headers.into_iter().collect(),
        ..Outbound::default()
    };
    publish(&broker, &topic, message).await.unwrap();
    let stored: Vec<(String, Vec<Vec<u8>>)> = Raw::new().await.run(&["XRANGE", &topic, "-", "+"]).await;
    let expected: [&[u8]; 16] = [
        b"payload",
        b"\x00\xff\r\n",
        b"key",
        b"\xfe\x00",
        b"message-id",
        b"order-1",
        b"traceparent",
        b"00-ab",
        b"tenant",
        b"a",
        b"header:payload",
        b"mine",
        b"tenant",
        b"b",
        b"header:header:x",
        b"y",
    ];
    assert_eq!(stored[0].1, expected);

    let mut source = subscribe(&broker, &topic, "g").await;
    let received = next(&mut source).await;
    assert_eq!(received.payload.as_deref(), Some(&[0, 255, 13, 10][..]));
    assert_eq!(received.key.as_deref(), Some(&[254, 0][..]));
    assert_eq!(received.id.as_deref(), Some("order-1"));
    let sent = [("message-id", "order-1")].into_iter().chain(headers).collect();
    assert_eq!(received.headers, sent);
    broker.close().await.unwrap();
}

#[tokio::test]
async fn trims_when_asked_to() {
    let (trimming, keeping) = (broker_with("?maxlen=100").await, broker().await);
    let (short, long) = (topic("short"), topic("long"));
    publish_numbers(&trimming, &short, 0..1000).await;
    publish_numbers(&keeping, &long, 0..1000).await;
    let mut raw = Raw::new().await;
    let left: usize = raw.run(&["XLEN", &short]).await;
    // Redis trims whole nodes of up to 100 entries.
    assert!((100..=200).contains(&left), "{left}");
    assert_eq!(raw.run::<usize>(&["XLEN", &long]).await, 1000);
}

#[tokio::test]
async fn refuses_what_cannot_be_stored() {
    let (broker, topic) = (broker().await, topic("refused"));
    let tombstone = Outbound { payload: None, ..message("") };
    let error = publish(&broker, &topic, tombstone).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unsupported, PublishOutcome::NotSent));
    // Never touched, so the system never allocates the memory.
    let huge = Outbound { key: Some(vec![0; MAX_FIELD + 1].into()), ..message("") };
    let error = publish(&broker, &topic, huge).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::TooLarge, PublishOutcome::NotSent));
    assert!(error.to_string().contains(&(MAX_FIELD + 1).to_string()), "{error}");
    assert!(error.to_string().contains(&MAX_FIELD.to_string()), "{error}");

    let mut raw = Raw::new().await;
    let _: () = raw.run(&["SET", &topic, "a string"]).await;
    let error = publish(&broker, &topic, message("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Conflict, PublishOutcome::NotSent));
    let error = broker.declare(&topic).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(raw.run::<String>(&["GET", &topic]).await, "a string");
}

#[tokio::test]
async fn one_refusal_in_a_pipeline_concerns_no_other_message() {
    let (broker, good, bad) = (broker().await, topic("good"), topic("bad"));
    let _: () = Raw::new().await.run(&["SET", &bad, "a string"]).await;
    let publishes: Vec<_> =
        (0..300).map(|n| broker.enqueue(if n % 3 == 0 { &bad } else { &good }, message(n.to_string()))).collect();
    for (number, publish) in publishes.into_iter().enumerate() {
        assert_eq!(publish.await.is_ok(), number % 3 != 0, "{number}");
    }
    assert_eq!(Raw::new().await.run::<usize>(&["XLEN", &good]).await, 200);
}

#[tokio::test]
async fn only_checks_when_told_to() {
    let (strict, topic) = (broker_with("?topology=check").await, topic("strict"));
    assert_eq!(strict.declare(&topic).await.unwrap_err().kind(), ErrorKind::NotFound);
    let error = publish(&strict, &topic, message("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::NotFound, PublishOutcome::NotSent));
    assert_eq!(Raw::new().await.run::<usize>(&["EXISTS", &topic]).await, 0, "nothing was made");

    let lax = broker().await;
    lax.declare(&topic).await.unwrap();
    publish(&lax, &topic, message("x")).await.unwrap();
    strict.declare(&topic).await.unwrap();
    publish(&strict, &topic, message("y")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_what_waits_and_says_busy_beyond() {
    let server = server().await;
    let (broker, topic) = (connect(&server.url()).await.unwrap(), topic("busy"));
    let size = 10_000;
    publish(&broker, &topic, message("before")).await.unwrap();
    let server = blocking(move || {
        server.pause();
        server
    })
    .await;
    let publishes: Vec<_> = (0..10_000).map(|_| broker.enqueue(&topic, message(vec![7; size]))).collect();
    let server = blocking(move || {
        server.resume();
        server
    })
    .await;
    let (mut confirmed, mut refused) = (0, 0);
    for publish in publishes {
        match publish.await {
            Ok(_) => confirmed += 1,
            Err(error) => {
                assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Busy, PublishOutcome::NotSent));
                refused += 1;
            }
        }
    }
    assert!(confirmed >= 1024, "what the layer above may have in flight finds room: {confirmed}");
    assert!(refused > 5000, "no more than that: {confirmed} waited");
    let stored: usize = Raw::at(&server.url()).await.run(&["XLEN", &topic]).await;
    assert_eq!(stored, confirmed + 1, "what was refused was not stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_that_the_server_is_full() {
    let server = server().await;
    let (broker, topic) = (connect(&server.url()).await.unwrap(), topic("full"));
    let mut raw = Raw::at(&server.url()).await;
    let _: () = raw.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = publish(&broker, &topic, message("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Busy, PublishOutcome::NotSent));
    assert!(error.is_retryable());
    let _: () = raw.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    publish(&broker, &topic, message("x")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_became_a_replica_takes_nothing_until_it_is_master_again() {
    let server = server().await;
    let (broker, topic) = (connect(&server.url()).await.unwrap(), topic("replica"));
    publish(&broker, &topic, message("before")).await.unwrap();
    let mut raw = Raw::at(&server.url()).await;
    let _: () = raw.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let error = publish(&broker, &topic, message("refused")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::NotSent));
    let _: () = raw.run(&["REPLICAOF", "NO", "ONE"]).await;
    publish(&broker, &topic, message("after")).await.unwrap();
    assert_eq!(raw.run::<usize>(&["XLEN", &topic]).await, 2);
    broker.close().await.unwrap();
}
