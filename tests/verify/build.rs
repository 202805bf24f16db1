//! Spans as OTLP/JSON text, as exporters write them.

use serde_json::{Value, json};
use traced_broker::verify::{self, FindingKind, SpanId, TraceReport, Traces};

/// The trace of spans without an explicit one.
pub(crate) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// The trace of the reconciliation job.
pub(crate) const JOB: &str = "9f86d081884c7d659a2feaa0c55ad015";
/// Microsecond 0 of the tests, in nanoseconds since the Unix epoch.
pub(crate) const EPOCH: u64 = 1_795_368_288_498_000_000;

/// A span to be written.
#[derive(Clone)]
pub(crate) struct Span {
    pub service: &'static str,
    pub json: Value,
}

/// Creates a span of `service` from microsecond `start` to `end`; kinds are OTLP's numbers.
pub(crate) fn span(service: &'static str, id: u64, name: &str, kind: u8, (start, end): (u64, u64)) -> Span {
    let json = json!({
        "traceId": TRACE,
        "spanId": span_id(id),
        "parentSpanId": "",
        "flags": 257,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": (EPOCH + start * 1_000).to_string(),
        "endTimeUnixNano": (EPOCH + end * 1_000).to_string(),
        "attributes": [],
        "links": [],
        "status": {},
    });
    Span { service, json }
}

pub(crate) fn server(service: &'static str, id: u64, name: &str, period: (u64, u64)) -> Span {
    span(service, id, name, 2, period)
}

pub(crate) fn internal(service: &'static str, id: u64, name: &str, period: (u64, u64)) -> Span {
    span(service, id, name, 1, period)
}

/// Creates a `send` span whose context the message carries.
pub(crate) fn send(service: &'static str, id: u64, topic: &str, period: (u64, u64)) -> Span {
    let span = span(service, id, &format!("send {topic}"), 4, period);
    span.messaging("send", topic).text("messaging.message.id", "m-1")
}

/// Creates a `process` span, child of the span that sent its message and linked to it.
pub(crate) fn process(service: &'static str, id: u64, topic: &str, sent_by: u64, period: (u64, u64)) -> Span {
    let span = span(service, id, &format!("process {topic}"), 5, period).messaging("process", topic);
    span.text("messaging.consumer.group.name", &format!("{service}s")).child_of(sent_by).links(sent_by)
}

impl Span {
    pub(crate) fn child_of(mut self, parent: u64) -> Self {
        self.json["parentSpanId"] = json!(span_id(parent));
        self
    }

    pub(crate) fn links(self, id: u64) -> Self {
        self.links_to(TRACE, id, &[])
    }

    pub(crate) fn links_to(mut self, trace: &str, id: u64, attributes: &[(&str, Value)]) -> Self {
        let attributes: Vec<_> = attributes.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let link = json!({ "traceId": trace, "spanId": span_id(id), "attributes": attributes });
        self.json["links"].as_array_mut().unwrap().push(link);
        self
    }

    pub(crate) fn unlinked(mut self) -> Self {
        self.json["links"] = json!([]);
        self
    }

    pub(crate) fn in_trace(mut self, trace: &str) -> Self {
        self.json["traceId"] = json!(trace);
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.attribute(key, json!({ "stringValue": value }))
    }

    pub(crate) fn int(self, key: &str, value: i64) -> Self {
        self.attribute(key, json!({ "intValue": value.to_string() }))
    }

    pub(crate) fn double(self, key: &str, value: f64) -> Self {
        self.attribute(key, json!({ "doubleValue": value }))
    }

    /// Adds the wait that the consumer measured.
    pub(crate) fn queued(self, seconds: f64) -> Self {
        self.double("traced_broker.queue.duration", seconds)
    }

    pub(crate) fn error(mut self, class: &str, message: &str) -> Self {
        self.json["status"] = json!({ "code": 2, "message": message });
        self.text("error.type", class)
    }

    pub(crate) fn set(mut self, field: &str, value: Value) -> Self {
        self.json[field] = value;
        self
    }

    fn messaging(self, operation: &str, topic: &str) -> Self {
        self.text("messaging.system", "kafka")
            .text("messaging.operation.name", operation)
            .text("messaging.operation.type", operation)
            .text("messaging.destination.name", topic)
    }

    fn attribute(mut self, key: &str, value: Value) -> Self {
        let attributes = self.json["attributes"].as_array_mut().unwrap();
        attributes.push(json!({ "key": key, "value": value }));
        self
    }
}

/// Returns the file that a Collector would write: one export request for each span, with the
/// services interleaved.
pub(crate) fn file(spans: &[Span]) -> String {
    let line = |span: &Span| {
        let resource = json!({ "attributes": [
            { "key": "service.name", "value": { "stringValue": span.service } },
            { "key": "telemetry.sdk.language", "value": { "stringValue": "rust" } },
        ] });
        let scope = json!({ "name": "traced-broker", "version": "0.1.0" });
        let scope_spans = json!([{ "scope": scope, "spans": [span.json] }]);
        json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": scope_spans }] }).to_string() + "\n"
    };
    spans.iter().map(line).collect()
}

pub(crate) fn traces(spans: &[Span]) -> Traces {
    verify::otlp::read(file(spans).as_bytes()).unwrap()
}

pub(crate) fn check(spans: &[Span]) -> TraceReport {
    verify::check(&traces(spans))
}

pub(crate) fn span_id(id: u64) -> String {
    SpanId::new(id).to_string()
}

/// Replaces the span with the same id.
pub(crate) fn with(mut spans: Vec<Span>, changed: Span) -> Vec<Span> {
    let position = spans.iter().position(|span| span.json["spanId"] == changed.json["spanId"]);
    spans[position.unwrap()] = changed;
    spans
}

/// Removes the span with this id.
pub(crate) fn without(mut spans: Vec<Span>, id: u64) -> Vec<Span> {
    spans.retain(|span| span.json["spanId"] != span_id(id).as_str());
    spans
}

/// Asserts exactly these findings, on the spans with these ids; returns their messages.
#[track_caller]
pub(crate) fn finds(spans: &[Span], expected: &[(FindingKind, u64)]) -> Vec<String> {
    let report = check(spans);
    let findings = report.findings();
    let found: Vec<_> = findings.iter().map(|finding| (finding.kind, finding.span.to_string())).collect();
    let expected: Vec<_> = expected.iter().map(|(kind, id)| (*kind, span_id(*id))).collect();
    assert_eq!(found, expected, "{report}");
    assert_eq!(report.is_whole(), expected.is_empty());
    findings.iter().map(|finding| finding.message.clone()).collect()
}
