//! The fulfillment worker: takes orders from the topic, has them packed and shipped, and has the
//! customer notified.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracer;
use tokio::time::sleep;
use traced_broker::codec::{Json, decoding};
use traced_broker::{
    Broker, HandlerError, Message, Received, Result, Retry, Subscription, TracedBroker as _, TracedBrokerExt as _,
};

use crate::notification::Notification;
use crate::order::Order;
use crate::shop::{DEAD_ORDERS, NOTIFICATIONS, ORDERS, Run};
use crate::telemetry::{Obstacle, in_span};

pub(crate) const SERVICE: &str = "fulfillment-worker";

/// Number of attempts after which an order is dead-lettered.
const MAX_ATTEMPTS: u32 = 4;
/// Delay before the second attempt; it doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(50);

/// An article that is in the catalogue, but in no warehouse.
const DISCONTINUED: &str = "SAMOVAR-TULA-5L";
/// A carrier that answers at the third attempt only.
const FLAKY_CARRIER: &str = "flaky-express";

#[derive(Debug)]
struct Worker {
    broker: Broker,
    tracer: SdkTracer,
    run: Run,
}

/// Subscribes, and returns the future that does the work.
///
/// Orders of one customer are fulfilled in the order of their publication, also across retries.
pub(crate) async fn start(broker: Broker, tracer: SdkTracer, run: Run) -> Result<impl Future<Output = ()>> {
    let worker = Arc::new(Worker { broker: broker.clone(), tracer, run: run.clone() });
    let handler = decoding(Json, move |order, message| Arc::clone(&worker).fulfill(order, message));
    let consume = broker
        .consume(Subscription::new(ORDERS).group("fulfillment-workers"), handler)
        .concurrency(8)
        .ordered_by_key()
        .retry(Retry::exponential(MAX_ATTEMPTS).first_delay(FIRST_DELAY))
        .dead_letter(DEAD_ORDERS);
    run.consumer(SERVICE, consume).await
}

impl Worker {
    /// Runs inside the span `process orders`: spans started and messages published here become its
    /// children.
    async fn fulfill(self: Arc<Self>, order: Order, message: Received) -> Result<(), HandlerError> {
        let attempt = message.attempt();
        self.run.ledger.note(&order.id, |account| account.attempts = account.attempts.max(attempt));

        in_span(&self.tracer, "reserve stock", reserve_stock(&order)).await?;
        in_span(&self.tracer, "book carrier", book_carrier(&order, attempt)).await?;

        let notification = Message::json(&Notification::about(&order))?.key(&order.customer.id);
        self.broker.publish(NOTIFICATIONS, self.run.stamp(notification)).await?;
        self.run.ledger.note(&order.id, |account| account.fulfilled = true);
        Ok(())
    }
}

/// Stands in for the warehouse.
async fn reserve_stock(order: &Order) -> Result<(), Obstacle> {
    sleep(Duration::from_millis(2) * order.items.len() as u32).await;
    if order.items.iter().any(|item| item.sku == DISCONTINUED) {
        return Err(Obstacle { error_type: "out_of_stock", text: format!("no warehouse has {DISCONTINUED}") });
    }
    Ok(())
}

/// Stands in for the carriers.
async fn book_carrier(order: &Order, attempt: u32) -> Result<(), Obstacle> {
    sleep(Duration::from_millis(4)).await;
    if order.carrier == FLAKY_CARRIER && attempt < 3 {
        return Err(Obstacle { error_type: "no_answer", text: format!("{FLAKY_CARRIER} does not answer") });
    }
    Ok(())
}
