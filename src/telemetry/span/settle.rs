//! The spans and measurements of settlements.

use crate::names::attribute;
use std::sync::Arc;

use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::Span;
use opentelemetry::{Context, KeyValue};

use super::subscription::SubscriptionTelemetry;
use crate::context::ambient;
use crate::driver::{DeliveryHandle, Disposition};
use crate::error::Result;
use crate::telemetry::metrics::{Timing, end_span};
use crate::telemetry::span::{fail, otel};

/// A settlement under way: measured, and with a span if
/// [enabled](crate::Traced::with_settle_spans).
pub(crate) struct SettleSpan {
    subscription: Arc<SubscriptionTelemetry>,
    disposition: Disposition,
    span: Option<BoxedSpan>,
    timing: Option<Timing>,
    partition: Option<i32>,
}

impl SettleSpan {
    /// Starts it within the given context or the current one; `None` if it is neither measured nor
    /// traced.
    pub(crate) fn start(
        subscription: &Arc<SubscriptionTelemetry>,
        disposition: Disposition,
        within: Option<&Context>,
        partition: Option<i32>,
    ) -> Option<Self> {
        let telemetry = &subscription.telemetry;
        let timing = Timing::start(&telemetry.metrics);
        if timing.is_none() && !telemetry.settings.settle_spans {
            return None;
        }
        let span = telemetry.settings.settle_spans.then(|| {
            let parent = within.cloned().unwrap_or_else(ambient::current);
            telemetry.start(&parent, || {
                let id = partition.map(|id| KeyValue::new(attribute::DESTINATION_PARTITION_ID, id.to_string()));
                let started = timing.as_ref().map(|timing| timing.started);
                subscription.settle.of(disposition).builder(Vec::new(), id, started)
            })
        });
        Some(Self { subscription: Arc::clone(subscription), disposition, span: span.flatten(), timing, partition })
    }

    /// Adds the message id and the driver's attributes, if the span is recording.
    pub(crate) fn describe(&mut self, id: Option<&str>, handle: &dyn DeliveryHandle) {
        let Some(span) = self.span.as_mut().filter(|span| span.is_recording()) else { return };
        if let Some(id) = id {
            span.set_attribute(KeyValue::new(attribute::MESSAGE_ID, id.to_owned()));
        }
        handle.attributes(&mut |key, value| span.set_attribute(KeyValue::new(key, otel(value))));
    }

    /// Ends it with the broker's answer.
    pub(crate) fn finish(mut self, result: &Result<()>) {
        let error = result.as_ref().err();
        self.end(error.map(|error| (error.kind().as_str(), error.to_string())));
    }

    fn end(&mut self, error: Option<(&'static str, String)>) {
        let error_type = error.as_ref().map(|(error_type, _)| *error_type);
        let end = self.timing.take().map(|timing| {
            let (end, duration) = timing.end();
            let attributes = self.subscription.settle.of(self.disposition).timed.of(self.partition, error_type);
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
    /// Marks a settlement as cancelled whose answer was not awaited; it is under way all the same.
    fn drop(&mut self) {
        if self.span.is_some() || self.timing.is_some() {
            self.end(Some(("cancelled", "the broker's answer was not awaited".to_owned())));
        }
    }
}
