//! Publishing: confirmations, order, and what is refused.

use bytes::Bytes;
use rdkafka::message::Message as _;
use traced_broker::driver::{Driver, Outbound};
use traced_broker::{ErrorKind, Headers, PublishOutcome, Topic};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn many_in_flight_are_confirmed_and_keep_their_order() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "order").await;
    let receipts = publish_numbers(&kafka, &topic, 0..1024).await;
    for (index, receipt) in receipts.iter().enumerate() {
        assert!(receipt.confirmed);
        assert_eq!((receipt.partition, receipt.offset), (Some(0), Some(index as i64)));
    }
    let mut source = subscribe(&kafka, &topic, "g").await;
    assert_eq!(drain(&mut source, 1024).await, (0..1024).collect::<Vec<_>>());
    kafka.close().await.unwrap();
}
