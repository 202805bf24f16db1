//! Exported spans, and spans to refer to.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use traced_broker::{Job, TraceReference};

/// A provider that exports every span to memory when it ends.
pub(crate) struct Exported {
    pub(crate) provider: SdkTracerProvider,
    exporter: InMemorySpanExporter,
}

impl Exported {
    pub(crate) fn new() -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        Self { provider, exporter }
    }

    /// Returns a job of this name whose span is exported here.
    pub(crate) fn job(&self, name: &str) -> Job {
        Job::new(name).with_tracer_provider(&self.provider)
    }

    /// Returns a context in which a root span of this name is open.
    pub(crate) fn root(&self, name: &'static str) -> Context {
        let span = self.provider.tracer("application").start_with_context(name, &Context::new());
        Context::new().with_span(span)
    }

    /// Returns references to this many spans, each the root of a trace, which have ended.
    pub(crate) fn references(&self, count: usize) -> Vec<TraceReference> {
        let ended = |_| {
            let context = self.root("request");
            context.span().end();
            TraceReference::of_context(&context).unwrap()
        };
        (0..count).map(ended).collect()
    }

    pub(crate) fn all(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }

    pub(crate) fn named(&self, name: &str) -> Vec<SpanData> {
        self.all().into_iter().filter(|span| span.name == name).collect()
    }

    /// Returns the only span of this name.
    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> SpanData {
        let spans = self.named(name);
        let [span] = &*spans else { panic!("{} spans are called {name}: {:#?}", spans.len(), self.all()) };
        span.clone()
    }
}

pub(crate) fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string())
}

/// Returns the linked spans, in order.
pub(crate) fn linked(span: &SpanData) -> Vec<SpanContext> {
    span.links.iter().map(|link| link.span_context.clone()).collect()
}

/// Returns `true` if both are the same span, local or remote.
pub(crate) fn same(left: &SpanContext, right: &SpanContext) -> bool {
    (left.trace_id(), left.span_id()) == (right.trace_id(), right.span_id())
}
