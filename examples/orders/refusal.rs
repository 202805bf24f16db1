//! What the API answers to orders that it does not take.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use serde::Serialize;
use serde_json::json;

use crate::validation::Invalid;

/// An error as JSON: what is wrong in one sentence, field by field where it is known, and the trace to ask about.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: String,
    problems: Vec<String>,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), problems: Vec::new() }
    }

    /// The order is here already.
    pub(crate) fn duplicate(order: &str) -> Self {
        Self::new(StatusCode::CONFLICT, format!("order {order} was posted before"))
    }

    /// The broker did not take it. Why is on the span, and no business of the client.
    pub(crate) fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the order could not be stored, try again later")
    }

    pub(crate) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing here: orders go to POST /orders")
    }

    /// Whether the fault is this server's.
    pub(crate) fn is_ours(&self) -> bool {
        self.status.is_server_error()
    }

    pub(crate) fn no_such_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "orders are posted: POST /orders")
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        let Invalid { error, problems } = invalid;
        Self { problems, ..Self::new(StatusCode::BAD_REQUEST, error) }
    }
}

/// A body that is too long, or that did not arrive as a whole.
impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        let status = rejection.status();
        let error = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "the order is too large: a body has at most 64 KiB".to_owned(),
            _ => rejection.body_text(),
        };
        Self::new(status, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, error, problems } = self;
        let trace_id = current_trace_id();
        let body = if problems.is_empty() {
            json!({ "error": error, "trace_id": trace_id })
        } else {
            json!({ "error": error, "problems": problems, "trace_id": trace_id })
        };
        json_response(status, &body)
    }
}

/// A response with a JSON body, with a line break at its end for those who read it in a terminal.
pub(crate) fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    let mut text = serde_json::to_vec(body).unwrap_or_default();
    text.push(b'\n');
    (status, [(CONTENT_TYPE, "application/json")], Bytes::from(text)).into_response()
}

/// The trace that the request is.
pub(crate) fn current_trace_id() -> String {
    Context::current().span().span_context().trace_id().to_string()
}
