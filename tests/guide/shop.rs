//! The services of the scenes. Their work is a few milliseconds of waiting, so that there is
//! something to see.

use std::future::Future;
use std::time::Duration;

use traced_broker::testing::TestBed;
use traced_broker::{HandlerError, Message, Received, Retry, Subscription, TracedBroker, TracedBrokerExt};

pub(crate) async fn work(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Takes a request at `api` in a new trace and publishes the message.
pub(crate) async fn request(bed: &TestBed, name: &'static str, topic: &str, message: Message) {
    let api = bed.broker("api");
    let handle = async {
        work(1).await;
        api.publish(topic, message).await.unwrap();
        work(1).await;
    };
    bed.in_root_span("api", name, handle).await;
    work(2).await;
}

/// Runs a consumer of `service` in the background; it is subscribed when this returns.
pub(crate) async fn consumer<H, F>(bed: &TestBed, service: &str, subscription: Subscription, handler: H)
where
    H: Fn(Received) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    let retry = Retry::fixed(3, Duration::from_millis(12)).jitter(0.0);
    let consumer = bed.broker(service).consume(subscription, handler).retry(retry).subscribed().await.unwrap();
    tokio::spawn(consumer.run());
}

/// Packs and ships orders, and publishes shipped orders to the topic `shipments`.
pub(crate) async fn worker(bed: &TestBed, subscription: Subscription) {
    let broker = bed.broker("worker");
    let ship = move |message: Received| {
        let broker = broker.clone();
        async move {
            work(3).await;
            if message.payload() == "hopeless" || message.payload() == "flaky" && message.attempt() == 1 {
                return Err(HandlerError::retry("the carrier does not answer"));
            }
            broker.publish("shipments", Message::new("shipped")).await?;
            Ok(())
        }
    };
    consumer(bed, "worker", subscription, ship).await;
}

/// Reads every message of the subscription and works on it for a while.
pub(crate) async fn reader(bed: &TestBed, service: &str, subscription: Subscription) {
    let read = |_: Received| async {
        work(2).await;
        Ok(())
    };
    consumer(bed, service, subscription, read).await;
}

pub(crate) fn orders() -> Subscription {
    Subscription::new("orders").group("workers").dead_letter("orders.dead")
}

pub(crate) fn shipments() -> Subscription {
    Subscription::new("shipments").group("desks")
}
