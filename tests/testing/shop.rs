//! A small application, started on a test bed.

use std::time::Duration;

use traced_broker::testing::TestBed;
use traced_broker::{
    Broker, HandlerError, Message, Received, Retry, Subscription, TracePolicy, TracedBroker, TracedBrokerExt,
};

/// Starts `worker`, which ships orders: `flaky` fails once, `hopeless` fails three times and is
/// given up, `late` is slow. Shipped orders are published to `desk`.
pub(crate) async fn open(bed: &TestBed) {
    start(bed, TracePolicy::Parent).await;
}

/// Starts the same application with that policy for its worker.
pub(crate) async fn start(bed: &TestBed, policy: TracePolicy) {
    let broker = bed.broker("worker");
    let orders = Subscription::new("orders").group("workers").trace_policy(policy).dead_letter("orders.dead");
    let outgoing = broker.clone();
    let ship = move |message: Received| ship(outgoing.clone(), message);
    let worker =
        broker.consume(orders, ship).retry(Retry::fixed(3, Duration::from_millis(5))).subscribed().await.unwrap();
    tokio::spawn(worker.run());

    let desk = bed.broker("desk");
    let tell = async |_: Received| Ok::<_, HandlerError>(());
    let desk = desk.consume(Subscription::new("shipments").group("desks"), tell).subscribed().await.unwrap();
    tokio::spawn(desk.run());
}

async fn ship(broker: Broker, message: Received) -> Result<(), HandlerError> {
    match (message.payload().as_ref(), message.attempt()) {
        (b"flaky", 1) | (b"hopeless", _) => return Err(HandlerError::retry("the carrier does not answer")),
        (b"late", _) => tokio::time::sleep(Duration::from_secs(3600)).await,
        _ => {}
    }
    broker.publish("shipments", Message::new("shipped")).await?;
    Ok(())
}

/// Publishes an order from `api` in a new trace.
pub(crate) async fn order(bed: &TestBed, what: &'static str) {
    let api = bed.broker("api");
    bed.in_root_span("api", "POST /orders", api.publish("orders", Message::new(what))).await.unwrap();
}
