//! A message that is recognized on arrival, and the changes to its context.

use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::trace::{SpanContext, SpanKind, TraceContextExt as _, TraceState, Tracer as _};
use opentelemetry::{Context, KeyValue, global};
use serde_json::json;
use traced_broker::names::header;
use traced_broker::w3c::{self};
use traced_broker::{Message, Received};

use crate::context::CarriedContext;
use crate::telemetry;

/// The header that identifies the messages of a probe; its value identifies one message.
pub(crate) const MARK: &str = "traced-broker-probe";

/// The `tracestate` entry of the probe.
const STATE: (&str, &str) = ("traced-broker", "probe");

/// A message that is published and recognized on arrival.
pub(super) struct Marked {
    mark: String,
    /// The context of the span that creates the message.
    span: Context,
    /// The context that the message carries.
    carried: Context,
}

/// A part of the context that did not arrive as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) what: &'static str,
    pub(super) sent: String,
    pub(super) arrived: String,
    /// `true` if the change breaks the trace.
    pub(super) breaks: bool,
}

impl Marked {
    /// Creates the next message and begins its trace.
    pub(super) fn new(topic: &str, system: &'static str) -> Self {
        let mark = format!("{:016x}", fastrand::u64(..));
        let tracer = global::tracer(telemetry::SCOPE);
        let builder = tracer.span_builder(format!("create {topic}")).with_kind(SpanKind::Producer).with_attributes([
            KeyValue::new("messaging.system", system),
            KeyValue::new("messaging.operation.type", "create"),
            KeyValue::new("messaging.operation.name", "create"),
            KeyValue::new("messaging.destination.name", topic.to_owned()),
        ]);
        let span = Context::new().with_span(builder.start_with_context(&tracer, &Context::new()));
        let carried = carried(span.span().span_context(), &mark);
        Self { mark, span, carried }
    }

    /// Ends the span that created the message.
    pub(super) fn end(&self) {
        self.span.span().end();
    }

    pub(super) fn trace_id(&self) -> String {
        self.span.span().span_context().trace_id().to_string()
    }

    /// Returns the message, with every part that a context can have.
    pub(super) fn message(&self) -> Message {
        let payload = json!({ MARK: self.mark }).to_string();
        let mut message =
            Message::new(payload).header(header::CONTENT_TYPE, "application/json").header(MARK, &self.mark);
        let headers = message.headers_mut();
        w3c::encode_context(&self.carried, |name, value| headers.append(name, value));
        message.context(self.span.clone())
    }

    /// Returns `true` if `received` is this message.
    pub(super) fn is(&self, received: &Received) -> bool {
        received.headers().get(MARK) == Some(self.mark.as_bytes())
    }

    /// Compares the context that arrived; with another target, a new parent span id is allowed.
    pub(super) fn changes(&self, received: &Received, has_other_target: bool) -> Vec<Change> {
        let arrived = CarriedContext::read(received.headers(), received.payload());
        let mut changes = compare(&self.carried, &arrived.context, has_other_target);
        let states: Vec<_> = received.headers().get_all(header::TRACESTATE).map(String::from_utf8_lossy).collect();
        let (sent, arrived) = (format!("{}={}", STATE.0, STATE.1), states.join(","));
        if sent != arrived {
            changes.push(Change { what: "tracestate", sent, arrived, breaks: true });
        }
        changes
    }
}

fn carried(span: &SpanContext, mark: &str) -> Context {
    let state = TraceState::from_key_value([STATE]).unwrap_or_default();
    let span = SpanContext::new(span.trace_id(), span.span_id(), span.trace_flags(), true, state);
    Context::new().with_remote_span_context(span).with_baggage([KeyValue::new(MARK, mark.to_owned())])
}

fn compare(sent: &Context, arrived: &Context, has_other_target: bool) -> Vec<Change> {
    let facts = |context: &Context| {
        let span = context.span().span_context().clone();
        let id = |id: String| if span.is_valid() { id } else { String::new() };
        let sampled = if !span.is_valid() {
            ""
        } else if span.is_sampled() {
            "sampled"
        } else {
            "not sampled"
        };
        let baggage = context.baggage().get(MARK).map(|value| format!("{MARK}={value}")).unwrap_or_default();
        [id(span.trace_id().to_string()), id(span.span_id().to_string()), sampled.to_owned(), baggage]
    };
    let names = ["trace id", "parent span id", "sampled flag", "baggage"];
    let pairs = facts(sent).into_iter().zip(facts(arrived));
    let changes = names.into_iter().zip(pairs).filter(|(_, (sent, arrived))| sent != arrived);
    changes
        .map(|(what, (sent, arrived))| {
            let breaks = !(has_other_target && what == "parent span id" && !arrived.is_empty());
            Change { what, sent, arrived, breaks }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId};

    use super::*;

    fn span(trace: u8, span: u8, sampled: bool) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(sampled);
        SpanContext::new(TraceId::from_bytes([trace; 16]), SpanId::from_bytes([span; 8]), flags, true, TraceState::NONE)
    }

    fn changed(arrived: &Context, has_other_target: bool) -> Vec<(&'static str, bool)> {
        let sent = carried(&span(1, 1, true), "m");
        compare(&sent, arrived, has_other_target).iter().map(|change| (change.what, change.breaks)).collect()
    }

    #[test]
    fn each_part_of_a_context_counts() {
        assert_eq!(changed(&carried(&span(1, 1, true), "m"), false), []);
        assert_eq!(changed(&carried(&span(2, 1, true), "m"), false), [("trace id", true)]);
        assert_eq!(changed(&carried(&span(1, 2, true), "m"), false), [("parent span id", true)]);
        assert_eq!(changed(&carried(&span(1, 1, false), "m"), false), [("sampled flag", true)]);
        assert_eq!(changed(&carried(&span(1, 1, true), "other"), false), [("baggage", true)]);
        let all = ["trace id", "parent span id", "sampled flag", "baggage"].map(|what| (what, true));
        assert_eq!(changed(&Context::new(), false), all);
        assert_eq!(changed(&Context::new(), true), all);
    }

    #[test]
    fn a_span_on_the_way_breaks_nothing() {
        assert_eq!(changed(&carried(&span(1, 2, true), "m"), true), [("parent span id", false)]);
    }
}
