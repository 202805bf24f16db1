//! The spans and measurements of settling.

use std::sync::Arc;

use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::Span;
use opentelemetry::{Context, KeyValue};

use super::template::SpanTemplate;
use super::{Operation, fail, otel};
use crate::ambient;
use crate::consumer::Consumer;
use crate::driver::{DeliveryHandle, Disposition};
use crate::error::Result;
use crate::metrics::{Timing, end_span};

/// One template for each way to settle.
#[derive(Debug)]
pub(crate) struct SettleTemplates {
    ack: SpanTemplate,
    retry: SpanTemplate,
    reject: SpanTemplate,
}

impl SettleTemplates {
    pub(crate) fn new(template: impl Fn(Operation) -> SpanTemplate) -> Self {
        Self { ack: template(Operation::Ack), retry: template(Operation::Retry), reject: template(Operation::Reject) }
    }

    fn of(&self, disposition: Disposition) -> &SpanTemplate {
        match disposition {
            Disposition::Ack => &self.ack,
            Disposition::Retry(_) => &self.retry,
            Disposition::Discard => &self.reject,
        }
    }
}

/// A settlement under way: measured, and a span if [asked for](crate::Traced::with_settle_spans).
pub(crate) struct SettleSpan {
    consumer: Arc<Consumer>,
    disposition: Disposition,
    span: Option<BoxedSpan>,
    timing: Option<Timing>,
    partition: Option<i32>,
}

impl SettleSpan {
    /// Starts it within a context, or the current one where none is given; `None` where nobody wants to know.
    pub(crate) fn start(
        consumer: &Arc<Consumer>,
        disposition: Disposition,
        within: Option<&Context>,
        partition: Option<i32>,
    ) -> Option<Self> {
        let telemetry = &consumer.telemetry;
        let timing = Timing::start(&telemetry.metrics);
        if timing.is_none() && !telemetry.settings.settle_spans {
            return None;
        }
        let span = telemetry.settings.settle_spans.then(|| {
            let parent = within.cloned().unwrap_or_else(ambient::current);
            telemetry.start(&parent, || {
                let id = partition.map(|id| KeyValue::new("messaging.destination.partition.id", id.to_string()));
                let started = timing.as_ref().map(|timing| timing.started);
                consumer.settle.of(disposition).builder(Vec::new(), id, started)
            })
        });
        Some(Self { consumer: Arc::clone(consumer), disposition, span: span.flatten(), timing, partition })
    }

    /// Says which message it is about, if that is recorded.
    pub(crate) fn describe(&mut self, id: Option<&str>, handle: &dyn DeliveryHandle) {
        let Some(span) = self.span.as_mut().filter(|span| span.is_recording()) else { return };
        if let Some(id) = id {
            span.set_attribute(KeyValue::new("messaging.message.id", id.to_owned()));
        }
        handle.attributes(&mut |key, value| span.set_attribute(KeyValue::new(key, otel(value))));
    }

    /// Ends it with what the broker answered.
    pub(crate) fn finish(mut self, result: &Result<()>) {
        let error = result.as_ref().err();
        self.end(error.map(|error| (error.kind().as_str(), error.to_string())));
    }

    fn end(&mut self, error: Option<(&'static str, String)>) {
        let error_type = error.as_ref().map(|(error_type, _)| *error_type);
        let end = self.timing.take().map(|timing| {
            let (end, duration) = timing.end();
            let attributes = self.consumer.settle.of(self.disposition).timed.of(self.partition, error_type);
            timing.instruments.operation_duration.record(duration.as_secs_f64(), &attributes);
            end
        });
        if let Some(mut span) = self.span.take() {
            if let Some((error_type, words)) = error {
                fail(&mut span, error_type, words);
            }
            end_span(&mut span, end);
        }
    }
}

impl Drop for SettleSpan {
    /// Nobody waited for the answer: the settlement is on its way all the same.
    fn drop(&mut self) {
        if self.span.is_some() || self.timing.is_some() {
            self.end(Some(("cancelled", "nobody waited for the broker's answer".to_owned())));
        }
    }
}
