//! Conversion from the data types of Jaeger's older interface to the model.

use std::collections::HashMap;
use std::sync::Arc;

use super::AnswerError;
use super::shapes::{ClassicSpan, ClassicTrace, Log, Reference, Tag, TagValue};
use crate::verify::attributes::{Attributes, Value};
use crate::verify::id::{SpanId, SpanRef, TraceId};
use crate::verify::span::{Event, Kind, Link, Span, Status};

const KIND: &str = "span.kind";
const STATUS: &str = "otel.status_code";
const DESCRIPTION: &str = "otel.status_description";
const ERROR: &str = "error";

pub(super) fn spans(trace: ClassicTrace) -> Result<Vec<Span>, AnswerError> {
    let services: HashMap<String, Arc<str>> =
        trace.processes.into_iter().map(|(id, process)| (id, Arc::from(process.service_name))).collect();
    trace.spans.into_iter().map(|span| self::span(span, &services)).collect()
}

fn span(from: ClassicSpan, services: &HashMap<String, Arc<str>>) -> Result<Span, AnswerError> {
    let (Some(trace_id), Some(span_id)) = (trace_id(&from.trace_id), span_id(&from.span_id)) else {
        return Err(AnswerError::MissingId(from.operation_name));
    };
    let Some(service) = services.get(&from.process_id) else {
        return Err(AnswerError::UnknownProcess(from.operation_name, from.process_id));
    };
    let mut span = Span::new(trace_id, span_id, from.operation_name);
    span.service = Arc::clone(service);
    span.start = nanos(from.start_time);
    // A duration below one microsecond reads as zero, but must not look like an empty span.
    span.end = span.start.saturating_add(nanos(from.duration).max(1));
    (span.kind, span.status) = (kind(&from.tags), status(&from.tags));
    span.parent = parent(trace_id, &from.references);
    let links = from.references.iter().filter(|reference| reference.ref_type != "CHILD_OF");
    span.links = links.map(|to| Link { target: target(to), attributes: Attributes::default() }).collect();
    span.attributes = attributes(from.tags.into_iter().filter(is_own));
    span.events = from.logs.into_iter().map(event).collect();
    Ok(span)
}

/// Finds the parent as Jaeger's `model.Span.ParentSpanID` does.
fn parent(trace: TraceId, references: &[Reference]) -> Option<SpanId> {
    let within = || references.iter().filter(|reference| trace_id(&reference.trace_id) == Some(trace));
    let child_of = within().find(|reference| reference.ref_type == "CHILD_OF");
    child_of.or_else(|| within().next()).and_then(|reference| span_id(&reference.span_id))
}

/// Converts the target of a reference. Missing ids become zero, and the check reports them.
fn target(to: &Reference) -> SpanRef {
    SpanRef {
        trace_id: trace_id(&to.trace_id).unwrap_or(TraceId::new(0)),
        span_id: span_id(&to.span_id).unwrap_or(SpanId::new(0)),
    }
}

/// Parses a trace id. Ids of 64 bits have half the digits, and old versions omit leading zeros.
fn trace_id(text: &str) -> Option<TraceId> {
    format!("{text:0>32}").parse().ok().filter(|id: &TraceId| !id.is_zero())
}

fn span_id(text: &str) -> Option<SpanId> {
    format!("{text:0>16}").parse().ok().filter(|id: &SpanId| !id.is_zero())
}

fn nanos(micros: u64) -> u64 {
    micros.saturating_mul(1_000)
}

fn text<'t>(tags: &'t [Tag], key: &str) -> Option<&'t str> {
    tags.iter().find(|tag| tag.key == key).and_then(|tag| match &tag.value {
        TagValue::Text(text) => Some(&**text),
        _ => None,
    })
}

fn kind(tags: &[Tag]) -> Kind {
    match text(tags, KIND) {
        Some("internal") => Kind::Internal,
        Some("server") => Kind::Server,
        Some("client") => Kind::Client,
        Some("producer") => Kind::Producer,
        Some("consumer") => Kind::Consumer,
        _ => Kind::Unspecified,
    }
}

fn status(tags: &[Tag]) -> Status {
    let failed = tags.iter().any(|tag| tag.key == ERROR && matches!(tag.value, TagValue::Bool(true)));
    match text(tags, STATUS) {
        Some("OK") => Status::Ok,
        Some("ERROR") => Status::Error(text(tags, DESCRIPTION).unwrap_or_default().to_owned()),
        _ if failed => Status::Error(String::new()),
        _ => Status::Unset,
    }
}

/// Returns `true` unless Jaeger derives the tag from another field of the span.
fn is_own(tag: &Tag) -> bool {
    let made = [KIND, STATUS, DESCRIPTION, ERROR, "otel.scope.name", "otel.scope.version", "w3c.tracestate"];
    !made.contains(&&*tag.key)
}

fn attributes(tags: impl Iterator<Item = Tag>) -> Attributes {
    tags.map(|tag| (tag.key, value(&tag.of_type, tag.value))).collect()
}

fn value(of_type: &str, from: TagValue) -> Value {
    match from {
        TagValue::Bool(flag) => Value::Bool(flag),
        // Round numbers have lost their fraction in JSON.
        TagValue::Int(number) if of_type == "float64" => Value::Double(number as f64),
        TagValue::Int(number) => Value::Int(number),
        TagValue::Double(number) => Value::Double(number),
        TagValue::Text(text) => match of_type {
            "int64" => text.parse().map_or(Value::String(text), Value::Int),
            "binary" => Value::Bytes(text),
            _ => Value::String(text),
        },
    }
}

/// Converts a log to an event, whose name is a field of the log.
fn event(from: Log) -> Event {
    let name = text(&from.fields, "event").unwrap_or_default().to_owned();
    let attributes = attributes(from.fields.into_iter().filter(|field| field.key != "event"));
    Event { time: nanos(from.timestamp), name, attributes }
}
