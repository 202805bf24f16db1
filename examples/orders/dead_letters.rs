//! The dead-letter desk: takes note of orders that could not be fulfilled, for a person to look at.

use std::future::Future;

use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, KeyValue};
use traced_broker::codec::{Json, decoding};
use traced_broker::{Broker, HandlerError, Received, Result, Subscription, TracedBrokerExt as _, dead_letter};

use crate::consumer;
use crate::order::Order;
use crate::run::{DEAD_ORDERS, Run};

pub(crate) const SERVICE: &str = "dead-letter-desk";
const GROUP: &str = "dead-letter-desk";

/// Subscribes; the future that is returned does the work.
pub(crate) async fn start(broker: Broker, run: Run) -> Result<impl Future<Output = ()>> {
    let desk = run.clone();
    let handler = decoding(Json, move |order, message| take_note(desk.clone(), order, message));
    consumer::start(SERVICE, &run, broker.consume(Subscription::new(DEAD_ORDERS).group(GROUP), handler)).await
}

async fn take_note(run: Run, order: Order, message: Received) -> Result<(), HandlerError> {
    let reason = message.headers().get_str(dead_letter::REASON).unwrap_or("no reason given");
    Context::current().span().set_attribute(KeyValue::new("dead_letter.reason", reason.to_owned()));
    run.ledger.dead_lettered(&order.id);
    Ok(())
}
