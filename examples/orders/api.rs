//! The order API: `POST /orders` checks an order, publishes it, and answers once the broker has it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use opentelemetry::trace::{FutureExt as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use serde_json::{Value, json};
use traced_broker::names::header;
use traced_broker::{Broker, Message, PublishOutcome, TracedBroker as _, w3c};

use crate::ledger::trace_id;
use crate::order::Order;
use crate::reconciliation::JobTable;
use crate::shop::{ORDERS, Run};

pub(crate) const SERVICE: &str = "order-api";
pub(crate) const ROUTE: &str = "/orders";

/// Maximum length of a body. An order of 50 items has about 5,000 bytes.
const MAX_BODY: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) broker: Broker,
    pub(crate) tracer: SdkTracer,
    pub(crate) run: Run,
    pub(crate) jobs: Arc<JobTable>,
}

impl Api {
    /// Returns the route, with each request in a server span.
    pub(crate) fn into_router(self) -> Router {
        let api = Arc::new(self);
        let route = post(post_order).route_layer(from_fn_with_state(Arc::clone(&api), in_server_span));
        Router::new().route(ROUTE, route).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(api)
    }

    /// Publishes an order within the current span, so that the message continues its trace.
    async fn accept(&self, order: &Order) -> Result<(), Refusal> {
        let ledger = &self.run.ledger;
        if !ledger.open(&order.id, Context::current().span().span_context()) {
            return Err(Refusal(StatusCode::CONFLICT, format!("order {} was posted before", order.id)));
        }
        let published = match Message::json(order) {
            Ok(message) => self.broker.publish(ORDERS, self.run.stamp(message.key(&order.customer.id))).await,
            Err(error) => Err(error),
        };
        if let Err(error) = published {
            // A message that may be stored keeps its account, so that a repeated request does not
            // become a second order.
            if error.publish_outcome() == PublishOutcome::NotSent {
                ledger.update(|books| _ = books.accounts.remove(&order.id));
            }
            ledger.trouble(error);
            let error = "the order could not be stored, try again later".to_owned();
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, error));
        }
        ledger.note(&order.id, |account| account.accepted = true);
        // The order is accepted even if the job cannot be enqueued.
        if let Err(error) = self.jobs.enqueue(&self.tracer) {
            ledger.trouble(error);
        }
        Ok(())
    }
}

async fn post_order(
    State(api): State<Arc<Api>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let order = Order::parse(&body?).map_err(|error| Refusal(StatusCode::BAD_REQUEST, error))?;
    api.accept(&order).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "order_id": order.id, "trace_id": current_trace_id() }))))
}

/// Runs a request inside a SERVER span, which is a child of the client's span if the client sent
/// its context, and returns the trace id in a header.
async fn in_server_span(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let caller = callers_context(request.headers());
    if caller.has_active_span() {
        api.run.ledger.update(|books| _ = books.callers.insert(trace_id(caller.span().span_context())));
    }
    let span = api
        .tracer
        .span_builder(format!("POST {ROUTE}"))
        .with_kind(SpanKind::Server)
        .with_attributes([
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("http.route", ROUTE),
            KeyValue::new("url.path", ROUTE),
            KeyValue::new("url.scheme", "http"),
        ])
        .start_with_context(&api.tracer, &caller);
    let context = caller.with_span(span);
    let mut response = next.run(request).with_context(context.clone()).await;

    let (span, status) = (context.span(), response.status());
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() {
        span.set_attribute(KeyValue::new("error.type", status.as_u16().to_string()));
        span.set_status(Status::error(""));
        api.run.ledger.update(|books| books.failed += 1);
    } else if status.is_client_error() {
        // The client's error, so that the span of the server is not failed.
        api.run.ledger.update(|books| books.refused += 1);
    }
    if let Ok(value) = HeaderValue::from_str(&span.span_context().trace_id().to_string()) {
        response.headers_mut().insert("x-trace-id", value);
    }
    span.end();
    response
}

fn callers_context(headers: &HeaderMap) -> Context {
    let values = |name| headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    let [parent, state, baggage] = [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE].map(values);
    w3c::decode_all(parent, state, baggage, &Context::new()).context
}

fn current_trace_id() -> String {
    Context::current().span().span_context().trace_id().to_string()
}

/// An error answer: the reason and the trace id.
#[derive(Debug)]
struct Refusal(StatusCode, String);

/// A body that is too long, or that did not arrive completely.
impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        let status = rejection.status();
        let too_large = status == StatusCode::PAYLOAD_TOO_LARGE;
        Self(
            status,
            if too_large { "the order is too large: at most 64 KiB".to_owned() } else { rejection.body_text() },
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1, "trace_id": current_trace_id() }))).into_response()
    }
}
