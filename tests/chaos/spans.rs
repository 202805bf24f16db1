//! The spans of the consumers, as part of the history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor};
use traced_broker::names::attribute;

use crate::history::{Event, Outcome};
use crate::recorder::Recorder;
use crate::secrets;

/// Counts spans, and notes the settlement that each process span tells.
#[derive(Debug, Clone)]
pub(crate) struct Spans {
    recorder: Recorder,
    started: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
}

impl Spans {
    pub(crate) fn new(recorder: Recorder) -> Self {
        Self { recorder, started: Arc::default(), ended: Arc::default() }
    }

    /// Returns a provider whose spans are all recorded here.
    pub(crate) fn provider(&self) -> SdkTracerProvider {
        let builder = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn);
        builder.with_span_processor(self.clone()).build()
    }

    /// Notes the counts of a process.
    pub(crate) fn close(&self, member: &str) {
        let (started, ended) = (self.started.load(Ordering::SeqCst), self.ended.load(Ordering::SeqCst));
        self.recorder.note(Event::Spans { member: member.to_owned(), started, ended });
    }
}

impl SpanProcessor for Spans {
    fn on_start(&self, _: &mut Span, _: &Context) {
        self.started.fetch_add(1, Ordering::SeqCst);
    }

    fn on_end(&self, span: SpanData) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        secrets::look("a span", &span);
        if !span.name.starts_with("process ") {
            return;
        }
        let delivery = span.span_context.span_id().to_string();
        let settlement = span.attributes.iter().find(|pair| pair.key.as_str() == attribute::SETTLEMENT);
        let is_settled = settlement.is_some_and(|pair| pair.value.as_str() != "none");
        let outcome = if is_settled { Outcome::Settled } else { Outcome::Lost };
        self.recorder.note(Event::Settled { delivery: delivery.clone(), outcome });
        self.recorder.note(Event::SpanEnded { delivery });
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
