//! The notification service: tells customers that their order was shipped.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracer;
use serde::{Deserialize, Serialize};
use traced_broker::codec::{Json, decoding};
use traced_broker::{Broker, HandlerError, Result, Subscription, TracedBrokerExt as _};

use crate::order::Order;
use crate::shop::{NOTIFICATIONS, Run};
use crate::telemetry::{Obstacle, in_span};

pub(crate) const SERVICE: &str = "notification-service";

/// The payload on the topic `notifications`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Notification {
    order_id: String,
    email: String,
    text: String,
}

impl Notification {
    pub(crate) fn about(order: &Order) -> Self {
        let Order { id, customer, carrier, .. } = order;
        let text = format!("Dear {},\n\nyour order {id} was shipped with {carrier}.\n", customer.name);
        Self { order_id: id.clone(), email: customer.email.clone(), text }
    }
}

/// Subscribes, and returns the future that does the work.
pub(crate) async fn start(broker: Broker, tracer: SdkTracer, run: Run) -> Result<impl Future<Output = ()>> {
    let service = Arc::new((tracer, run.clone()));
    let handler = decoding(Json, move |notification, _| notify(Arc::clone(&service), notification));
    let topic = Subscription::new(NOTIFICATIONS).group(SERVICE);
    run.consumer(SERVICE, broker.consume(topic, handler).concurrency(8)).await
}

async fn notify(service: Arc<(SdkTracer, Run)>, notification: Notification) -> Result<(), HandlerError> {
    let (tracer, run) = &*service;
    in_span(tracer, "e-mail customer", send_mail(&notification)).await?;
    run.ledger.note(&notification.order_id, |account| account.notified = true);
    Ok(())
}

/// Stands in for the mail provider.
async fn send_mail(Notification { email: _, text: _, .. }: &Notification) -> Result<(), Obstacle> {
    tokio::time::sleep(Duration::from_millis(3)).await;
    Ok(())
}
