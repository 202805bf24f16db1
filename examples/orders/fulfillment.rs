//! The fulfillment worker: takes orders from the topic, has them packed and shipped, and has the customer told.

use std::future::Future;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::SdkTracer;
use traced_broker::{Broker, HandlerError, Message, Received, Result, Subscription, TracedBroker as _};

use crate::consumer::consume;
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
pub(crate) async fn start(broker: Broker, tracer: SdkTracer, run: Run) -> Result<impl Future<Output = ()>> {
    let subscription = Subscription::new(ORDERS).group(GROUP).dead_letter(DEAD_ORDERS).prefetch(2 * AT_A_TIME);
    let deliveries = broker.subscribe(subscription).await?;
    let worker = Worker { broker, tracer, run };
    Ok(async move {
        consume(deliveries, worker.run.clone(), AT_A_TIME, |message| worker.fulfill(message)).await;
    })
}

impl Worker {
    /// Runs inside the span `process orders`: what is started or published here becomes its child by itself.
    async fn fulfill(&self, message: Received) -> Result<(), HandlerError> {
        let order: Order = message.json()?;
        let attempt = message.attempt();
        self.run.ledger.attempted(&order.id, attempt);
        self.ship(&order, attempt).await.map_err(|problem| again_or_never(problem, attempt))?;

        let notification = Message::json(&Notification::about(&order))?.key(&order.customer.id);
        let published = self.broker.publish(NOTIFICATIONS, self.run.stamp(notification)).await;
        published.map_err(|error| HandlerError::retry_after(error, FIRST_DELAY))?;
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

fn again_or_never(problem: Obstacle, attempt: u32) -> HandlerError {
    if attempt >= MAX_ATTEMPTS {
        return HandlerError::reject(format!("given up after {attempt} attempts: {problem}"));
    }
    HandlerError::retry_after(problem, FIRST_DELAY * 2_u32.pow(attempt.saturating_sub(1)))
}
