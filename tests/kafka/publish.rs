//! Publishing: confirmations, order, and refusals.

use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Driver, DriverExt, Outbound};
use traced_broker::{ErrorKind, Headers, Message, PublishOutcome, Topic, Traced, TracedBroker};

use crate::harness::*;
use crate::wire::Behind;

#[tokio::test(flavor = "multi_thread")]
async fn many_in_flight_are_confirmed_and_keep_their_order() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "order").await;
    let receipts = publish_numbers(&kafka, &topic, 0..1024).await;
    for (index, receipt) in receipts.iter().enumerate() {
        assert!(receipt.confirmed);
        assert_eq!((receipt.partition, receipt.offset), (Some(0), Some(index as i64)));
    }
    let mut source = subscribe(&kafka, &topic, &topic).await;
    assert_eq!(drain(&mut source, 1024).await, (0..1024).collect::<Vec<_>>());
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_key_headers_and_id_arrive_byte_for_byte() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "bytes").await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut headers = Headers::new();
    headers.append("Tenant", "acme");
    headers.append("tenant", [0, 159, 146, 150]);
    headers.append("", "a name may be empty");
    headers.append("größe ✓", "");
    headers.append("big", vec![7; 20_000]);
    let message = Outbound {
        payload: Some(every_byte.clone().into()),
        key: Some(Bytes::from_static(b"\0key\xff")),
        id: Some("id-1".to_owned()),
        headers: headers.clone(),
        ..Outbound::default()
    };
    kafka.enqueue(&topic, message).await.unwrap();
    let received = next(&mut subscribe(&kafka, &topic, &topic).await).await;
    assert_eq!(received.payload.as_deref(), Some(&every_byte[..]));
    assert_eq!(received.key.as_deref(), Some(&b"\0key\xff"[..]));
    assert_eq!(received.id.as_deref(), Some("id-1"));
    headers.append("message-id", "id-1");
    assert_eq!(received.headers, headers, "{:?}", received.headers);
    assert_eq!((received.unreadable_headers, received.attempt), (0, 1));
    assert_eq!((received.partition, received.offset), (Some(0), Some(0)));
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_is_not_an_empty_payload_and_no_key_not_an_empty_one() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "null").await;
    let empty = || Some(Bytes::new());
    let cases = [(None, None), (empty(), empty()), (None, empty()), (empty(), None)];
    for (payload, key) in cases.clone() {
        kafka.enqueue(&topic, Outbound { payload, key, ..Outbound::default() }).await.unwrap();
    }
    let mut source = subscribe(&kafka, &topic, &topic).await;
    for case in cases {
        let received = next(&mut source).await;
        assert_eq!((received.payload, received.key), case);
    }
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_goes_to_the_partition_that_java_clients_choose() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "keys").await;
    // The murmur2 hash of the key, from the tests of the Java client.
    for (key, hash) in [("21", -973_932_308_i32), ("foobar", -790_332_482), ("abc", 479_470_107)] {
        let expected = (hash & 0x7fff_ffff) % 6;
        for _ in 0..3 {
            let receipt = kafka.enqueue(&topic, keyed(key, "x")).await.unwrap();
            assert_eq!(receipt.partition, Some(expected), "{key}");
        }
    }
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_carried_is_refused_and_not_sent() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "refused").await;
    let limit = kafka.capabilities().max_payload.unwrap();
    let error = kafka.enqueue(&topic, outbound(vec![0; limit])).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::TooLarge, PublishOutcome::NotSent));
    assert!(error.to_string().contains(&format!("size={limit}, limit={limit}")), "{error}");

    let mut message = outbound("x");
    message.headers.append("traceparent\0", "x");
    let error = kafka.enqueue(&topic, message).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::InvalidMessage, PublishOutcome::NotSent));

    let missing = Topic::new(&unique("never-declared")).unwrap();
    let quick = connect(&url_with("delivery_timeout=3000")).await.unwrap();
    let error = quick.enqueue(&missing, outbound("x")).await.unwrap_err();
    assert_eq!(error.publish_outcome(), PublishOutcome::NotSent, "{error}");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");

    // None of the refused messages was stored: this one is the first.
    assert_eq!(kafka.enqueue(&topic, outbound("x")).await.unwrap().offset, Some(0));
    quick.close().await.unwrap();
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_confirmation_does_not_take_the_message_back() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "dropped").await;
    drop(kafka.enqueue(&topic, outbound("0")));
    let receipt = kafka.enqueue(&topic, outbound("1")).await.unwrap();
    assert_eq!(receipt.offset, Some(1));
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bound_of_what_is_in_flight_never_fills_the_queue() {
    let kafka = connect(&url_with("partitions=1&max_in_flight=16")).await.unwrap();
    assert_eq!(kafka.identity().max_in_flight, 16);
    let topic = topic(&kafka, "in-flight").await;
    // As the layer above does it: each confirmed message makes room for the next.
    let mut waiting = std::collections::VecDeque::new();
    for number in 0..5000_u32 {
        if waiting.len() == 16 {
            let oldest: traced_broker::driver::Confirmation<_> = waiting.pop_front().unwrap();
            oldest.await.unwrap();
        }
        waiting.push_back(kafka.enqueue(&topic, outbound(number.to_string())));
    }
    for confirmation in waiting {
        confirmation.await.unwrap();
    }
    // Beyond the limit the queue is full, and publishing fails with `Busy`.
    let flood: Vec<_> = (0..200).map(|_| kafka.enqueue(&topic, outbound(vec![0; 1000]))).collect();
    let mut refused = 0;
    for confirmation in flood {
        if let Err(error) = confirmation.await {
            assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Busy, PublishOutcome::NotSent));
            refused += 1;
        }
    }
    assert!(refused > 0, "two hundred at once fit in a queue of thirty-two");
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_cannot_go_on_is_made_anew() {
    // librdkafka's mock cluster, because a real broker cannot be told to lose stored messages.
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("fatal", 1, 1).unwrap();
    let kafka = connect(&format!("kafka://{}", cluster.bootstrap_servers())).await.unwrap();
    let topic = Topic::new("fatal").unwrap();
    publish_numbers(&kafka, &topic, 0..10).await;
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let error = kafka.enqueue(&topic, outbound("x")).await.unwrap_err();
    assert_eq!(error.publish_outcome(), PublishOutcome::Unknown, "{error}");
    let receipts = publish_numbers(&kafka, &topic, 10..20).await;
    assert_eq!(receipts.len(), 10);
    kafka.close().await.unwrap();
}

/// Nobody has closed anything: what did not leave with the old producer may be published again.
#[tokio::test(flavor = "multi_thread")]
async fn publishes_under_way_when_the_producer_is_replaced_can_be_repeated() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("replaced", 1, 1).unwrap();
    let kafka = connect(&format!("kafka://{}", cluster.bootstrap_servers())).await.unwrap();
    let topic = Topic::new("replaced").unwrap();
    publish_numbers(&kafka, &topic, 0..10).await;
    cluster.broker_round_trip_time(1, std::time::Duration::from_millis(300)).unwrap();
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let mut under_way: Vec<_> = (0..500).map(|n| kafka.enqueue(&topic, outbound(n.to_string()))).collect();
    // Enough of them to be published after the fatal error, which replaces the producer.
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        under_way.push(kafka.enqueue(&topic, outbound("later")));
    }
    let mut failed = 0;
    for confirmation in under_way {
        if let Err(error) = confirmation.await {
            failed += 1;
            let may_repeat = error.is_retryable() || error.publish_outcome() == PublishOutcome::Unknown;
            assert!(may_repeat && error.kind() != ErrorKind::Closed, "{error} {error:?}");
        }
    }
    assert!(failed > 0, "the producer was not replaced");
    kafka.close().await.unwrap();
}

/// The broker may say so of a message that it has never stored.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_takes_for_a_repetition_is_not_confirmed() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("again", 1, 1).unwrap();
    let kafka = connect(&format!("kafka://{}", cluster.bootstrap_servers())).await.unwrap();
    let topic = Topic::new("again").unwrap();
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER]);
    let error = kafka.enqueue(&topic, outbound("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::Unknown), "{error}");
    publish_numbers(&kafka, &topic, 0..10).await;
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_in_use_is_made_again_by_its_publisher() {
    let broker = Traced::new(connect(&url_with("partitions=1")).await.unwrap());
    let topic = Topic::new(&unique("again")).unwrap();
    broker.publish(&topic, Message::new("before").id("1")).await.unwrap();
    let admin: AdminClient<DefaultClientContext> = broker.get_ref().as_client().create().unwrap();
    admin.delete_topics(&[&topic], &AdminOptions::new()).await.unwrap();

    // The broker may still take some messages, before it has done what it has confirmed.
    let begun = std::time::Instant::now();
    let mut fresh = false;
    for number in 0.. {
        let message = Message::new(number.to_string()).id("2").header("tenant", "acme");
        let receipt = broker.publish(&topic, message).await.unwrap();
        fresh |= receipt.offset == Some(0);
        if fresh {
            break;
        }
        assert!(begun.elapsed().as_secs() < 30, "the topic is gone, and was not made again");
    }
    let mut source = subscribe(broker.get_ref(), &topic, &topic).await;
    let inbound = next(&mut source).await;
    assert_eq!((inbound.id.as_deref(), inbound.headers.get_str("tenant")), (Some("2"), Some("acme")));
    broker.close().await.unwrap();
}

/// Returns the bytes that a publisher of many small messages sends, who keeps 1024 in flight.
async fn bytes_sent(behind: &Behind, properties: &[(&str, &str)]) -> u64 {
    let builder = Kafka::builder(behind.url.trim_start_matches("kafka://"));
    // Long enough that only full batches are sent before all of them wait.
    let builder = builder.property("compression.type", "gzip").property("linger.ms", "20");
    let builder = properties.iter().fold(builder, |builder, (name, value)| builder.property(*name, *value));
    let kafka = builder.connect().await.unwrap();
    let topic = topic(&kafka, "batches").await;
    let before = behind.received();
    let mut waiting = std::collections::VecDeque::new();
    for number in 0..10_000_u32 {
        if waiting.len() == kafka.identity().max_in_flight {
            let oldest: traced_broker::driver::Confirmation<_> = waiting.pop_front().unwrap();
            oldest.await.unwrap();
        }
        let customer = number % 977;
        let order = format!(r#"{{"order":{number},"customer":"c-{customer}","currency":"EUR","state":"new"}}"#);
        waiting.push_back(kafka.enqueue(&topic, keyed(&customer.to_string(), order)));
    }
    for confirmation in waiting {
        confirmation.await.unwrap();
    }
    kafka.close().await.unwrap();
    behind.received() - before
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_many_small_messages_are_nearly_as_small_as_they_can_be() {
    let behind = Behind::start().await;
    let (usual, least) =
        (bytes_sent(&behind, &[]).await, bytes_sent(&behind, &[("batch.num.messages", "10000")]).await);
    assert!(usual * 100 < least * 115, "{usual} bytes instead of {least}");
}
