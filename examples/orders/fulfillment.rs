//! The fulfillment worker: takes orders from the topic, has them packed and shipped, and has the customer told.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::SdkTracer;
use traced_broker::codec::{Json, decoding};
use traced_broker::{
    Broker, HandlerError, Message, Received, Result, Retry, Subscription, TracedBroker as _, TracedBrokerExt as _,
};

use crate::consumer;
use crate::notification::Notification;
use crate::order::Order;
use crate::outside_world::{self, Obstacle};
use crate::run::{DEAD_ORDERS, NOTIFICATIONS, ORDERS, Run};
use crate::telemetry::in_span;

pub(crate) const SERVICE: &str = "fulfillment-worker";
const GROUP: &str = "fulfillment-workers";
const AT_A_TIME: usize = 8;

/// An order that fails this often is dead-lettered.
const MAX_ATTEMPTS: u32 = 4;
/// The delay before the second attempt; it doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Worker {
    broker: Broker,
    tracer: SdkTracer,
    run: Run,
}

/// Subscribes; the future that is returned does the work.
///
/// Orders of one customer are fulfilled in the order in which they came, also when one has to be tried again.
pub(crate) async fn start(broker: Broker, tracer: SdkTracer, run: Run) -> Result<impl Future<Output = ()>> {
    let worker = Arc::new(Worker { broker: broker.clone(), tracer, run: run.clone() });
    let handler = decoding(Json, move |order, message| Arc::clone(&worker).fulfill(order, message));
    let consume = broker
        .consume(Subscription::new(ORDERS).group(GROUP), handler)
        .concurrency(AT_A_TIME)
        .ordered_by_key()
        .retry(Retry::exponential(MAX_ATTEMPTS).first_delay(FIRST_DELAY))
        .dead_letter(DEAD_ORDERS);
    consumer::start(SERVICE, &run, consume).await
}

impl Worker {
    /// Runs inside the span `process orders`: what is started or published here becomes its child by itself.
    async fn fulfill(self: Arc<Self>, order: Order, message: Received) -> Result<(), HandlerError> {
        let attempt = message.attempt();
        self.run.ledger.attempted(&order.id, attempt);
        self.ship(&order, attempt).await?;

        let notification = Message::json(&Notification::about(&order))?.key(&order.customer.id);
        self.broker.publish(NOTIFICATIONS, self.run.stamp(notification)).await?;
        self.run.ledger.fulfilled(&order.id);
        Ok(())
    }

    async fn ship(&self, order: &Order, attempt: u32) -> Result<(), Obstacle> {
        let items = i64::try_from(order.items.len()).unwrap_or(i64::MAX);
        let stock = [KeyValue::new("order.id", order.id.clone()), KeyValue::new("order.items", items)];
        in_span(&self.tracer, "reserve stock", stock, outside_world::reserve_stock(order)).await?;
        let carrier = [KeyValue::new("carrier", order.carrier.clone())];
        in_span(&self.tracer, "book carrier", carrier, outside_world::book_carrier(order, attempt)).await
    }
}
