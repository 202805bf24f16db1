//! Spans of OpenTelemetry's SDK as the model that [`verify`](crate::verify) works on.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{self, SpanContext, SpanKind};
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

use crate::verify::{self, Attributes, Event, Kind, Link, Span, SpanId, SpanRef, Status, TraceId};

/// Converts the span to the form in which a backend receives it from `service`.
pub(crate) fn span(from: SpanData, service: &Arc<str>) -> Span {
    let SpanRef { trace_id, span_id } = reference(&from.span_context);
    let mut span = Span::new(trace_id, span_id, from.name);
    span.parent = Some(own_id(from.parent_span_id)).filter(|id| !id.is_zero());
    span.dropped_links = from.links.dropped_count;
    span.links = from.links.links.into_iter().map(link).collect();
    span.kind = kind(&from.span_kind);
    span.service = Arc::clone(service);
    span.start = nanos(from.start_time);
    span.end = nanos(from.end_time);
    span.status = status(from.status);
    span.attributes = attributes(from.attributes);
    span.events = from.events.events.into_iter().map(event).collect();
    span
}

/// Returns the reference to the span with this context.
pub(crate) fn reference(context: &SpanContext) -> SpanRef {
    let trace_id = TraceId::new(u128::from_be_bytes(context.trace_id().to_bytes()));
    SpanRef { trace_id, span_id: own_id(context.span_id()) }
}

fn own_id(id: trace::SpanId) -> SpanId {
    SpanId::new(u64::from_be_bytes(id.to_bytes()))
}

fn link(from: trace::Link) -> Link {
    Link { target: reference(&from.span_context), attributes: attributes(from.attributes) }
}

fn event(from: trace::Event) -> Event {
    Event { time: nanos(from.timestamp), name: from.name.into_owned(), attributes: attributes(from.attributes) }
}

fn kind(from: &SpanKind) -> Kind {
    match from {
        SpanKind::Internal => Kind::Internal,
        SpanKind::Server => Kind::Server,
        SpanKind::Client => Kind::Client,
        SpanKind::Producer => Kind::Producer,
        SpanKind::Consumer => Kind::Consumer,
    }
}

fn status(from: trace::Status) -> Status {
    match from {
        trace::Status::Unset => Status::Unset,
        trace::Status::Ok => Status::Ok,
        trace::Status::Error { description } => Status::Error(description.into_owned()),
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn attributes(from: Vec<KeyValue>) -> Attributes {
    from.into_iter().map(|pair| (pair.key.to_string(), value(pair.value))).collect()
}

fn value(from: Value) -> verify::Value {
    match from {
        Value::Bool(flag) => verify::Value::Bool(flag),
        Value::I64(number) => verify::Value::Int(number),
        Value::F64(number) => verify::Value::Double(number),
        Value::String(text) => verify::Value::String(text.into()),
        Value::Array(values) => verify::Value::Array(array(values)),
        _ => verify::Value::Empty,
    }
}

fn array(from: Array) -> Vec<verify::Value> {
    match from {
        Array::Bool(flags) => flags.into_iter().map(verify::Value::Bool).collect(),
        Array::I64(numbers) => numbers.into_iter().map(verify::Value::Int).collect(),
        Array::F64(numbers) => numbers.into_iter().map(verify::Value::Double).collect(),
        Array::String(texts) => texts.into_iter().map(|text| verify::Value::String(text.into())).collect(),
        _ => Vec::new(),
    }
}
