//! The dead-letter desk: records orders that could not be fulfilled, for a person to look at.

use std::future::Future;

use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, KeyValue};
use traced_broker::codec::{Json, decoding};
use traced_broker::names::header;
use traced_broker::{Broker, HandlerError, Received, Result, Subscription, TracedBrokerExt as _};

use crate::order::Order;
use crate::shop::{DEAD_ORDERS, Run};

pub(crate) const SERVICE: &str = "dead-letter-desk";

/// Subscribes, and returns the future that does the work.
pub(crate) async fn start(broker: Broker, run: Run) -> Result<impl Future<Output = ()>> {
    let desk = run.clone();
    let handler = decoding(Json, move |order, message| record(desk.clone(), order, message));
    run.consumer(SERVICE, broker.consume(Subscription::new(DEAD_ORDERS).group(SERVICE), handler)).await
}

async fn record(run: Run, order: Order, message: Received) -> Result<(), HandlerError> {
    let reason = message.headers().get_str(header::DEAD_LETTER_REASON).unwrap_or("no reason given");
    Context::current().span().set_attribute(KeyValue::new("dead_letter.reason", reason.to_owned()));
    run.ledger.note(&order.id, |account| account.dead_lettered = true);
    Ok(())
}
