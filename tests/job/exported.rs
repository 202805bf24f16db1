//! Spans as they were exported, and spans to be referred to.

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

    /// A job of this name whose span comes here.
    pub(crate) fn job(&self, name: &str) -> Job {
        Job::new(name).with_tracer_provider(&self.provider)
    }

    /// A context in which a root span of this name is open.
    pub(crate) fn root(&self, name: &'static str) -> Context {
        let span = self.provider.tracer("application").start_with_context(name, &Context::new());
        Context::new().with_span(span)
    }

    /// References to that many spans, each the root of a trace, which have ended.
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

    /// The only span of this name.
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

/// Which spans it links to, in order.
pub(crate) fn linked(span: &SpanData) -> Vec<SpanContext> {
    span.links.iter().map(|link| link.span_context.clone()).collect()
}

/// Whether the two are the same span, whoever looks at it.
pub(crate) fn same(left: &SpanContext, right: &SpanContext) -> bool {
    (left.trace_id(), left.span_id()) == (right.trace_id(), right.span_id())
}
