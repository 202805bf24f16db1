//! The order API: `POST /orders` checks an order, publishes it, and answers once the broker has it.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::trace::SdkTracer;
use serde_json::json;
use traced_broker::{Broker, Message, PublishOutcome, TracedBroker as _};

use crate::order::Order;
use crate::reconciliation::JobTable;
use crate::refusal::{Refusal, current_trace_id, json_response};
use crate::run::{ORDERS, Run};
use crate::server_span::server_span;
use crate::validation;

pub(crate) const SERVICE: &str = "order-api";
/// The one path there is.
pub(crate) const ROUTE: &str = "/orders";

/// The longest body that is read. An order of fifty items has some five thousand bytes.
const MAX_BODY: usize = 64 << 10;

/// What requests need.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) broker: Broker,
    pub(crate) tracer: SdkTracer,
    pub(crate) run: Run,
    pub(crate) jobs: Arc<JobTable>,
}

impl Api {
    /// The routes, each request in its span.
    pub(crate) fn into_router(self) -> Router {
        let api = Arc::new(self);
        Router::new()
            .route(ROUTE, post(post_order).fallback(async || Refusal::no_such_method()))
            .fallback(async || Refusal::no_such_path())
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn_with_state(Arc::clone(&api), server_span))
            .with_state(api)
    }

    /// Publishes within the current span, so that the message carries on its trace.
    async fn accept(&self, order: &Order) -> Result<(), Refusal> {
        let ledger = &self.run.ledger;
        let context = Context::current();
        let span = context.span();
        if !ledger.open(&order.id, span.span_context()) {
            return Err(Refusal::duplicate(&order.id));
        }
        let message = Message::json(order).map(|message| self.run.stamp(message.key(&order.customer.id)));
        let published = match message {
            Ok(message) => self.broker.publish(ORDERS, message).await,
            Err(error) => Err(error),
        };
        if let Err(error) = published {
            // What may have been stored keeps its account, lest the client's next try become a second order.
            if error.publish_outcome() == PublishOutcome::NotSent {
                ledger.withdraw(&order.id);
            }
            ledger.trouble(error);
            return Err(Refusal::unavailable());
        }
        ledger.accepted(&order.id);
        // The order is taken, whatever becomes of the job.
        if let Err(error) = self.jobs.enqueue(&self.tracer) {
            ledger.trouble(error);
        }
        Ok(())
    }
}

async fn post_order(State(api): State<Arc<Api>>, body: Result<Bytes, BytesRejection>) -> Response {
    let answered = match read(body) {
        Ok(order) => api.accept(&order).await.map(|()| order),
        Err(refusal) => Err(refusal),
    };
    match answered {
        Ok(order) => {
            let body = json!({ "order_id": order.id, "trace_id": current_trace_id() });
            json_response(StatusCode::ACCEPTED, &body)
        }
        Err(refusal) => {
            let is_ours = refusal.is_ours();
            api.run.ledger.count(|tally| if is_ours { &mut tally.failed } else { &mut tally.refused });
            refusal.into_response()
        }
    }
}

fn read(body: Result<Bytes, BytesRejection>) -> Result<Order, Refusal> {
    Ok(validation::parse(&body?)?)
}
