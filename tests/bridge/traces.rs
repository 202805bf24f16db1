//! The exported spans and their contents.

use opentelemetry::Context;
use opentelemetry::trace::{SpanId, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use traced_broker::Broker;
use traced_broker::verify::{Waterfall, check, otlp};

/// The exporter that all brokers of a test share.
pub(crate) struct Spans {
    exporter: InMemorySpanExporter,
    pub(crate) provider: SdkTracerProvider,
}

impl Default for Spans {
    fn default() -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        Self { exporter, provider }
    }
}

impl Spans {
    /// Configures the broker to export here.
    pub(crate) fn of(&self, broker: Broker) -> Broker {
        broker.with_tracer_provider(&self.provider)
    }

    /// Starts an application span, and returns the context in which it is current.
    pub(crate) fn root(&self, name: &'static str) -> Context {
        let tracer = self.provider.tracer("application");
        Context::new().with_span(tracer.start_with_context(name, &Context::new()))
    }

    /// Returns the spans of that name, in the order in which they started.
    pub(crate) fn named(&self, name: &str) -> Vec<SpanData> {
        let mut spans = self.all();
        spans.retain(|span| span.name == name);
        spans.sort_by_key(|span| span.start_time);
        spans
    }

    /// Returns the only span of that name.
    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> SpanData {
        let mut spans = self.named(name);
        assert_eq!(spans.len(), 1, "spans named {name}, among {:?}", self.names());
        spans.remove(0)
    }

    pub(crate) fn all(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.all().iter().map(|span| span.name.to_string()).collect()
    }

    /// Asserts that every trace is whole, and that there are this many.
    #[track_caller]
    pub(crate) fn assert_whole(&self, traces: usize) {
        let resource_spans = group_spans_by_resource_and_scope(self.all(), &Default::default());
        let exported = serde_json::to_string(&ExportTraceServiceRequest { resource_spans }).unwrap();
        let exported = otlp::read(exported.as_bytes()).unwrap();
        let report = check(&exported);
        let draw = || {
            exported.iter().map(|trace| Waterfall::new(trace).report(&report).to_string() + "\n").collect::<String>()
        };
        assert!(report.is_whole(), "{report}\n\n{}", draw());
        assert_eq!(exported.len(), traces, "traces\n\n{}", draw());
    }
}

/// Returns the attribute as text, empty if it is missing.
pub(crate) fn attribute(span: &SpanData, key: &str) -> String {
    let found = span.attributes.iter().find(|pair| pair.key.as_str() == key);
    found.map(|pair| pair.value.as_str().into_owned()).unwrap_or_default()
}

/// Returns the spans that it links.
pub(crate) fn linked(span: &SpanData) -> Vec<SpanId> {
    span.links.iter().map(|link| link.span_context.span_id()).collect()
}

pub(crate) fn id(span: &SpanData) -> SpanId {
    span.span_context.span_id()
}
