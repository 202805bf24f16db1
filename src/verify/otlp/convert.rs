//! Conversion from the data types of OTLP to the model.

use std::sync::Arc;

use super::ReadErrorKind;
use super::wire::{AnyValue, Id, KeyValue, ResourceSpans, Scalar, WireEvent, WireLink, WireSpan, WireStatus};
use crate::verify::attributes::{Attributes, Value};
use crate::verify::id::{SpanId, SpanRef, TraceId};
use crate::verify::span::{Event, Kind, Link, Span, Status};

/// Converts the spans under one resource, each with the resource's service name.
pub(in crate::verify) fn spans(from: ResourceSpans) -> impl Iterator<Item = Result<Span, ReadErrorKind>> {
    let resource = attributes(from.resource.attributes);
    // The resource conventions define this fallback for a missing service name.
    let service: Arc<str> = Arc::from(resource.text("service.name").unwrap_or("unknown_service"));
    let wires = from.scope_spans.into_iter().flat_map(|scope| scope.spans);
    wires.map(move |wire| span(wire, &service))
}

fn span(from: WireSpan, service: &Arc<str>) -> Result<Span, ReadErrorKind> {
    let (Some(trace_id), Some(span_id)) = (trace_id(from.trace_id), span_id(from.span_id)) else {
        return Err(ReadErrorKind::MissingId(from.name));
    };
    Ok(Span {
        trace_id,
        span_id,
        parent: self::span_id(from.parent_span_id),
        links: from.links.into_iter().map(link).collect(),
        dropped_links: from.dropped_links_count,
        name: from.name,
        kind: kind(&from.kind),
        service: Arc::clone(service),
        start: from.start_time_unix_nano,
        end: from.end_time_unix_nano,
        status: status(from.status),
        attributes: attributes(from.attributes),
        events: from.events.into_iter().map(event).collect(),
    })
}

fn trace_id(from: Id<TraceId>) -> Option<TraceId> {
    from.0.filter(|id| !id.is_zero())
}

fn span_id(from: Id<SpanId>) -> Option<SpanId> {
    from.0.filter(|id| !id.is_zero())
}

/// Converts a link. Missing ids become zero, and the check reports them.
fn link(from: WireLink) -> Link {
    let trace_id = from.trace_id.0.unwrap_or(TraceId::new(0));
    let span_id = from.span_id.0.unwrap_or(SpanId::new(0));
    Link { target: SpanRef { trace_id, span_id }, attributes: attributes(from.attributes) }
}

fn event(from: WireEvent) -> Event {
    Event { time: from.time_unix_nano, name: from.name, attributes: attributes(from.attributes) }
}

/// Converts OTLP's `Span.SpanKind`.
fn kind(from: &Scalar) -> Kind {
    match from {
        Scalar::Unsigned(1) => Kind::Internal,
        Scalar::Unsigned(2) => Kind::Server,
        Scalar::Unsigned(3) => Kind::Client,
        Scalar::Unsigned(4) => Kind::Producer,
        Scalar::Unsigned(5) => Kind::Consumer,
        Scalar::Text(name) => match name.as_str() {
            "SPAN_KIND_INTERNAL" => Kind::Internal,
            "SPAN_KIND_SERVER" => Kind::Server,
            "SPAN_KIND_CLIENT" => Kind::Client,
            "SPAN_KIND_PRODUCER" => Kind::Producer,
            "SPAN_KIND_CONSUMER" => Kind::Consumer,
            _ => Kind::Unspecified,
        },
        _ => Kind::Unspecified,
    }
}

/// Converts OTLP's `Status.StatusCode`.
fn status(from: WireStatus) -> Status {
    match from.code {
        Scalar::Unsigned(1) => Status::Ok,
        Scalar::Unsigned(2) => Status::Error(from.message),
        Scalar::Text(name) if name == "STATUS_CODE_OK" => Status::Ok,
        Scalar::Text(name) if name == "STATUS_CODE_ERROR" => Status::Error(from.message),
        _ => Status::Unset,
    }
}

fn attributes(from: Vec<KeyValue>) -> Attributes {
    from.into_iter().map(|pair| (pair.key, value(pair.value))).collect()
}

fn value(from: AnyValue) -> Value {
    let AnyValue { string_value, bool_value, int_value, double_value, array_value, kvlist_value, bytes_value } = from;
    let int = || int_value.and_then(|number| int(&number)).map(Value::Int);
    let double = || double_value.and_then(|number| double(&number)).map(Value::Double);
    let array = || array_value.map(|list| Value::Array(list.values.into_iter().map(value).collect()));
    let map = || kvlist_value.map(|list| Value::Map(attributes(list.values)));
    string_value
        .map(Value::String)
        .or_else(int)
        .or_else(|| bool_value.map(Value::Bool))
        .or_else(double)
        .or_else(array)
        .or_else(map)
        .or_else(|| bytes_value.map(Value::Bytes))
        .unwrap_or(Value::Empty)
}

fn int(from: &Scalar) -> Option<i64> {
    match from {
        Scalar::Unsigned(number) => i64::try_from(*number).ok(),
        Scalar::Signed(number) => Some(*number),
        Scalar::Text(text) => text.parse().ok(),
        Scalar::Float(_) => None,
    }
}
fn double(from: &Scalar) -> Option<f64> {
    match from {
        Scalar::Unsigned(number) => Some(*number as f64),
        Scalar::Signed(number) => Some(*number as f64),
        Scalar::Float(number) => Some(*number),
        // Also reads `NaN`, `Infinity` and `-Infinity`, protobuf's words for numbers that JSON
        // lacks.
        Scalar::Text(text) => text.parse().ok(),
    }
}
