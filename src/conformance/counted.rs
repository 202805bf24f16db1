//! Counting spans without keeping them, for cases that create more spans than fit in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};

/// The numbers of spans that were started and ended.
#[derive(Debug, Default)]
pub(super) struct Counts {
    started: AtomicUsize,
    ended: AtomicUsize,
}

impl Counts {
    pub(super) fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    pub(super) fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

/// Creates a tracer provider, with the counts of its spans.
pub(super) fn counted() -> (SdkTracerProvider, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    (SdkTracerProvider::builder().with_span_processor(Counter(Arc::clone(&counts))).build(), counts)
}

#[derive(Debug)]
struct Counter(Arc<Counts>);

impl SpanProcessor for Counter {
    fn on_start(&self, _span: &mut Span, _context: &Context) {
        self.0.started.fetch_add(1, Ordering::SeqCst);
    }

    fn on_end(&self, _span: SpanData) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
