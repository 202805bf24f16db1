//! Checks of a case's spans at the end of an export pipeline: the same spans, and whole traces if
//! the case requires them.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

use super::case_context::CaseContext;
use super::failure::{Checked, Failure, check, check_eq};
use crate::verify::{self, Traces};

/// Exports the spans of the case through the harness's pipeline, if it has one, and compares the
/// spans that arrive.
pub(super) async fn check(case: &CaseContext) -> Checked {
    let spans = case.spans.all();
    spans.iter().try_for_each(check_names_are_unique)?;
    let Some(lines) =
        case.harness.export(spans.clone()).await.map_err(|error| Failure::from(error).during("export"))?
    else {
        return Ok(());
    };
    let traces =
        verify::otlp::read(lines.as_bytes()).map_err(|error| Failure::new(format!("spans are read back: {error}")))?;
    let arrived: Vec<&verify::Span> = traces.iter().flat_map(|trace| trace.spans()).collect();
    check_eq!(arrived.len(), spans.len(), "how many spans arrive at the end of the pipeline");
    let arrived: HashMap<String, &verify::Span> = arrived.into_iter().map(|span| (place_of(span), span)).collect();
    for span in &spans {
        let place = format!("{}/{}", span.span_context.trace_id(), span.span_context.span_id());
        let Some(found) = arrived.get(&place) else {
            return Err(Failure::new(format!("{} arrives at the end of the pipeline", span.name)));
        };
        check_same(span, found).map_err(|failure| failure.during("at the end of the pipeline"))?;
    }
    check_whole(case, &traces)
}

/// Checks that no attribute is set twice, because backends read duplicates differently.
fn check_names_are_unique(span: &SpanData) -> Checked {
    for attributes in std::iter::once(&span.attributes).chain(span.links.iter().map(|link| &link.attributes)) {
        let mut names: Vec<&str> = attributes.iter().map(|pair| pair.key.as_str()).collect();
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
        check!(twice.is_none(), "each attribute of {} is there once: {twice:?}", span.name);
    }
    Ok(())
}

fn place_of(span: &verify::Span) -> String {
    format!("{}/{}", span.trace_id, span.span_id)
}

fn check_whole(case: &CaseContext, traces: &Traces) -> Checked {
    if !case.whole.load(Ordering::Relaxed) {
        return Ok(());
    }
    let report = verify::check(traces);
    check!(report.is_whole(), "the traces are whole: {report}");
    Ok(())
}

fn check_same(span: &SpanData, found: &verify::Span) -> Checked {
    let name = &span.name;
    let parent = (span.parent_span_id != SpanId::INVALID).then(|| span.parent_span_id.to_string());
    check_eq!(found.parent.map(|parent| parent.to_string()), parent, "the parent of {name}");
    check_eq!(found.name, span.name.to_string(), "the name of {name}");
    check_eq!(found.kind.as_str(), kind(&span.span_kind), "the kind of {name}");
    let status = match &span.status {
        Status::Unset => verify::Status::Unset,
        Status::Ok => verify::Status::Ok,
        Status::Error { description } => verify::Status::Error(description.to_string()),
    };
    check_eq!(found.status, status, "the status of {name}");
    check_eq!((found.start, found.end), (nanos(span.start_time), nanos(span.end_time)), "the times of {name}");
    check_eq!(found.dropped_links, span.links.dropped_count, "the links that {name} dropped");
    check_eq!(attributes(&found.attributes), expected(&span.attributes), "the attributes of {name}");
    let links: Vec<(String, Vec<(String, String)>)> = found
        .links
        .iter()
        .map(|link| (format!("{}/{}", link.target.trace_id, link.target.span_id), attributes(&link.attributes)))
        .collect();
    let due: Vec<(String, Vec<(String, String)>)> = span
        .links
        .iter()
        .map(|link| {
            let to = &link.span_context;
            (format!("{}/{}", to.trace_id(), to.span_id()), expected(&link.attributes))
        })
        .collect();
    check_eq!(links, due, "the links of {name}");
    Ok(())
}

fn kind(kind: &SpanKind) -> &'static str {
    match kind {
        SpanKind::Client => "client",
        SpanKind::Server => "server",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal => "internal",
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns names and values, including the type of each value, ordered by name.
fn attributes(attributes: &verify::Attributes) -> Vec<(String, String)> {
    let typed = |value: &verify::Value| match value {
        verify::Value::String(text) => format!("text {text}"),
        verify::Value::Int(number) => format!("int {number}"),
        verify::Value::Double(number) => double(*number),
        verify::Value::Bool(flag) => format!("bool {flag}"),
        other => format!("{other:?}"),
    };
    sorted(attributes.iter().map(|(name, value)| (name.to_owned(), typed(value))))
}

fn expected(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let typed = |value: &Value| match value {
        Value::String(text) => format!("text {text}"),
        Value::I64(number) => format!("int {number}"),
        Value::F64(number) => double(*number),
        Value::Bool(flag) => format!("bool {flag}"),
        other => format!("{other:?}"),
    };
    sorted(attributes.iter().map(|pair| (pair.key.to_string(), typed(&pair.value))))
}

/// Formats a number without its last digits, because a JSON reader may be off by the last bit.
fn double(number: f64) -> String {
    format!("double {number:.12e}")
}

fn sorted(pairs: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = pairs.collect();
    pairs.sort();
    pairs
}
