//! The notification service: tells customers that their order is on its way.

use std::future::Future;
use std::sync::Arc;

use opentelemetry_sdk::trace::SdkTracer;
use serde::{Deserialize, Serialize};
use traced_broker::codec::{Json, decoding};
use traced_broker::{Broker, HandlerError, Result, Subscription, TracedBrokerExt as _};

use crate::consumer;
use crate::order::Order;
use crate::outside_world;
use crate::run::{NOTIFICATIONS, Run};
use crate::telemetry::in_span;

pub(crate) const SERVICE: &str = "notification-service";
const GROUP: &str = "notification-service";
const AT_A_TIME: usize = 8;

/// What travels on the topic `notifications`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Notification {
    order_id: String,
    name: String,
    email: String,
    city: String,
    carrier: String,
    currency: String,
    total_minor: i64,
}

impl Notification {
    pub(crate) fn about(order: &Order) -> Self {
        Self {
            order_id: order.id.clone(),
            name: order.customer.name.clone(),
            email: order.customer.email.clone(),
            city: order.ship_to.city.clone(),
            carrier: order.carrier.clone(),
            currency: order.currency.clone(),
            total_minor: order.total_minor(),
        }
    }

    fn text(&self) -> String {
        let Self { order_id, name, city, carrier, currency, total_minor, .. } = self;
        // Of these currencies the two East Asian ones have no smaller unit.
        let total = match currency.as_str() {
            "JPY" | "KRW" => format!("{total_minor} {currency}"),
            _ => format!("{}.{:02} {currency}", total_minor / 100, total_minor % 100),
        };
        format!("Dear {name},\n\nyour order {order_id} over {total} is on its way to {city} with {carrier}.\n")
    }
}

/// Subscribes; the future that is returned does the work.
pub(crate) async fn start(broker: Broker, tracer: SdkTracer, run: Run) -> Result<impl Future<Output = ()>> {
    let desk = Arc::new((tracer, run.clone()));
    let handler = decoding(Json, move |notification, _| notify(Arc::clone(&desk), notification));
    let consume = broker.consume(Subscription::new(NOTIFICATIONS).group(GROUP), handler).concurrency(AT_A_TIME);
    consumer::start(SERVICE, &run, consume).await
}

async fn notify(desk: Arc<(SdkTracer, Run)>, notification: Notification) -> Result<(), HandlerError> {
    let (tracer, run) = &*desk;
    let text = notification.text();
    in_span(tracer, "e-mail customer", [], outside_world::send_mail(&notification.email, &text)).await?;
    run.ledger.notified(&notification.order_id);
    Ok(())
}
