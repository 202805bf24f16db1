//! The span of an HTTP request, as the HTTP conventions of OpenTelemetry have it, around everything the API does.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, Method, Version};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::trace::{FutureExt as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use traced_broker::w3c;

use crate::api::{Api, ROUTE};

/// The header that tells a client which trace its request is.
pub(crate) const TRACE_ID: &str = "x-trace-id";

const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
    Method::CONNECT,
];

/// Runs the request inside a SERVER span, child of the caller's if the caller sent its context, and answers with its trace id.
pub(crate) async fn server_span(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let caller = callers_context(request.headers());
    let tracer = &api.tracer;
    if caller.has_active_span() {
        api.run.ledger.called_within(caller.span().span_context());
    }
    let span = tracer
        .span_builder(name(&request))
        .with_kind(SpanKind::Server)
        .with_attributes(attributes(&request))
        .start_with_context(tracer, &caller);
    let context = caller.with_span(span);
    let mut response = next.run(request).with_context(context.clone()).await;

    let span = context.span();
    let status = response.status();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    // A refused order is the client's error, not this server's.
    if status.is_server_error() {
        span.set_attribute(KeyValue::new("error.type", status.as_u16().to_string()));
        span.set_status(Status::error(""));
    }
    let trace_id = span.span_context().trace_id().to_string();
    if let Ok(value) = HeaderValue::from_str(&trace_id) {
        response.headers_mut().insert(TRACE_ID, value);
    }
    span.end();
    response
}

fn callers_context(headers: &HeaderMap) -> Context {
    let values = |name| headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    let [parent, state, baggage] = [w3c::TRACEPARENT, w3c::TRACESTATE, w3c::BAGGAGE].map(values);
    w3c::decode_all(parent, state, baggage, &Context::new()).context
}

/// Method and route. Neither is taken from a request that has another one: it could be anything.
fn name(request: &Request) -> String {
    let method = if METHODS.contains(request.method()) { request.method().as_str() } else { "HTTP" };
    if request.uri().path() == ROUTE { format!("{method} {ROUTE}") } else { method.to_owned() }
}

fn attributes(request: &Request) -> Vec<KeyValue> {
    let known = METHODS.contains(request.method());
    let mut attributes = vec![
        KeyValue::new("http.request.method", if known { request.method().to_string() } else { "_OTHER".to_owned() }),
        KeyValue::new("url.scheme", "http"),
        KeyValue::new("url.path", request.uri().path().to_owned()),
        KeyValue::new("network.protocol.version", if request.version() == Version::HTTP_10 { "1.0" } else { "1.1" }),
    ];
    if request.uri().path() == ROUTE {
        attributes.push(KeyValue::new("http.route", ROUTE));
    }
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    if let Some((host, port)) = text(HOST).and_then(|host| host.rsplit_once(':')) {
        attributes.push(KeyValue::new("server.address", host.to_owned()));
        attributes.extend(port.parse::<u16>().ok().map(|port| KeyValue::new("server.port", i64::from(port))));
    }
    attributes.extend(text(USER_AGENT).map(|agent| KeyValue::new("user_agent.original", agent.to_owned())));
    attributes
}
