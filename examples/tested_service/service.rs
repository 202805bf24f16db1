//! The service: two consumers, without any code for tests.

use std::time::Duration;

use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, global};
use serde::{Deserialize, Serialize};
use tokio::task::{JoinError, JoinHandle};
use traced_broker::codec::{Json, decoding};
use traced_broker::{
    Broker, HandlerError, Message, Received, Report, Result, Retry, Subscription, TracedBroker as _,
    TracedBrokerExt as _,
};

use crate::bank::{Bank, Refusal};

/// Maximum number of attempts, one second apart.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) card: String,
}

/// The running consumers.
#[derive(Debug)]
pub(crate) struct Service {
    biller: JoinHandle<Result<Report>>,
    mailer: JoinHandle<Result<Report>>,
}

impl Service {
    /// Subscribes both consumers, each on its own connection; they run until it is closed.
    pub(crate) async fn start(biller: &Broker, mailer: &Broker, bank: Bank) -> Result<Self> {
        let broker = biller.clone();
        let handler = decoding(Json, move |order, _: Received| bill(broker.clone(), bank.clone(), order));
        let orders = Subscription::new("orders").group("billers").dead_letter("orders.dead");
        let retry = Retry::fixed(MAX_ATTEMPTS, Duration::from_secs(1));
        let biller = biller.consume(orders, handler).concurrency(8).retry(retry).subscribed().await?;
        let mailer = mailer.consume(Subscription::new("invoices").group("mailers"), mail).subscribed().await?;
        Ok(Self { biller: tokio::spawn(biller.run()), mailer: tokio::spawn(mailer.run()) })
    }

    /// Returns the reports of the consumers, once their connections are closed.
    pub(crate) async fn ended(self) -> std::result::Result<Result<(Report, Report)>, JoinError> {
        let (biller, mailer) = (self.biller.await?, self.mailer.await?);
        Ok(biller.and_then(|biller| Ok((biller, mailer?))))
    }
}

/// Runs inside the span `process orders`: spans started and messages published here belong to the
/// trace of the order.
async fn bill(broker: Broker, bank: Bank, order: Order) -> std::result::Result<(), HandlerError> {
    let span = global::tracer("tested_service").start("charge card");
    let context = Context::current_with_span(span);
    let charged = bank.charge(&order).with_context(context.clone()).await;
    if let Err(refusal) = &charged {
        context.span().set_status(Status::error(refusal.to_string()));
    }
    context.span().end();
    match charged {
        Ok(()) => {}
        Err(refusal @ Refusal::Declined) => return Err(HandlerError::reject(refusal)),
        Err(refusal @ Refusal::Busy) => return Err(HandlerError::retry(refusal)),
    }
    broker.publish("invoices", Message::json(&order)?.key(&order.id)).await?;
    Ok(())
}

async fn mail(message: Received) -> std::result::Result<(), HandlerError> {
    let _: Order = message.json()?;
    tokio::task::yield_now().await;
    Ok(())
}
