//! What the tests have in common: receiving.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;
use traced_broker::{Deliveries, Delivery};

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long is waited for what must not come.
const SILENCE: Duration = Duration::from_millis(200);

pub(crate) async fn next(deliveries: &mut Deliveries) -> Delivery {
    let item = timeout(PATIENCE, deliveries.next()).await.expect("a message in time");
    item.expect("the stream goes on").unwrap()
}

/// The payloads of the next messages, acknowledged.
pub(crate) async fn drain(deliveries: &mut Deliveries, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    for _ in 0..count {
        let delivery = next(deliveries).await;
        payloads.push(String::from_utf8(delivery.message().payload().to_vec()).unwrap());
        delivery.ack().await.unwrap();
    }
    payloads
}

pub(crate) async fn silent(deliveries: &mut Deliveries) {
    if let Ok(item) = timeout(SILENCE, deliveries.next()).await {
        panic!("unexpected: {item:?}");
    }
}
