//! The W3C codec against the forms that its specifications allow and forbid, arbitrary input, and
//! the SDK's spans.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use opentelemetry::Context;
use traced_broker::w3c::{Issues, encode_context};

mod allocations;
mod baggage;
mod context;
mod forms;
mod propagator;
mod properties;
mod sdk_spans;
mod traceparent;
mod tracestate;
#[path = "../../src/conformance/vectors/mod.rs"]
#[expect(dead_code, reason = "the kit asks more of a form than the codec's tests")]
mod vectors;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// Returns a `traceparent` of version `00` for the trace and span above.
fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// Returns the headers for a context, and the parts that could not be written.
fn written(context: &Context) -> (Vec<(&'static str, String)>, Issues) {
    let mut headers = Vec::new();
    let issues = encode_context(context, |name, value| headers.push((name, value.escape_ascii().to_string())));
    (headers, issues)
}

/// Returns one of the headers for a context.
fn header(context: &Context, name: &str) -> Option<String> {
    written(context).0.into_iter().find(|(written, _)| *written == name).map(|(_, value)| value)
}
