//! Shared test code: receiving.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;
use traced_broker::{Deliveries, Delivery};

/// Maximum duration of any operation before a test fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time without a delivery after which a test concludes that none will arrive.
const SILENCE: Duration = Duration::from_millis(200);

pub(crate) async fn next(deliveries: &mut Deliveries) -> Delivery {
    let item = timeout(PATIENCE, deliveries.next()).await.expect("a message in time");
    item.expect("the stream goes on").unwrap()
}

/// Receives and acknowledges the next messages, and returns their payloads.
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
