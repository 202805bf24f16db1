//! The spans of publishing.

use crate::names::{attribute, header};
use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{Link, Span, SpanContext};
use opentelemetry::{Context, KeyValue};

use super::template::SpanTemplate;
use crate::context::propagation::Hop;
use crate::error::Result;
use crate::message::{Message, Receipt};
use crate::telemetry::metrics::{Timing, end_span};
use crate::telemetry::span::{Operation, fail};
use crate::telemetry::tracer::Telemetry;

/// A `send` or `create` span with its measurement, which lasts until the broker has answered.
/// Without an SDK there is no span.
pub(crate) struct SendSpan<'a> {
    template: &'a SpanTemplate,
    span: Option<BoxedSpan>,
    timing: Option<Timing>,
    messages: usize,
    /// `true` if the sender gave the message an id, by which consumers know it.
    has_id: bool,
    /// `true` once the span has ended with the broker's answer.
    is_over: bool,
}

impl<'a> SendSpan<'a> {
    /// Starts the span of one message.
    pub(crate) fn start(
        template: &'a SpanTemplate,
        telemetry: &Telemetry,
        parent: &Context,
        message: &Message,
    ) -> Self {
        let mut started = Self::begin(template, telemetry, parent, Vec::new(), message.hop_kind(), None);
        if let Some(span) = started.span.as_mut().filter(|span| span.is_recording()) {
            describe_message(span, template, message);
        }
        started.has_id = message.id.is_some();
        started
    }

    /// Starts the span of a batch or forward, linked to the creation contexts of its messages.
    pub(crate) fn start_linked(
        template: &'a SpanTemplate,
        telemetry: &Telemetry,
        parent: &Context,
        links: Vec<SpanContext>,
        hop: Hop,
        batch: Option<usize>,
    ) -> Self {
        let links = links.into_iter().filter(SpanContext::is_valid).map(Link::with_context).collect();
        Self::begin(template, telemetry, parent, links, hop, batch)
    }

    fn begin(
        template: &'a SpanTemplate,
        telemetry: &Telemetry,
        parent: &Context,
        links: Vec<Link>,
        hop: Hop,
        batch: Option<usize>,
    ) -> Self {
        // Creating a context is not a call to the broker, so it is not measured.
        let is_call = template.operation != Operation::Create;
        let timing = is_call.then(|| Timing::start(&telemetry.metrics)).flatten();
        let started = timing.as_ref().map(|timing| timing.started);
        let span = telemetry.start(parent, || {
            let hop = (hop != Hop::Direct).then(|| KeyValue::new(attribute::HOP, hop.as_str()));
            let count = batch.map(|count| KeyValue::new(attribute::BATCH_MESSAGE_COUNT, count as i64));
            template.builder(links, hop.into_iter().chain(count), started)
        });
        Self { template, span, timing, messages: batch.unwrap_or(1), has_id: false, is_over: false }
    }

    /// Returns the span context that the message carries; `None` if there is no span, and the
    /// message carries that of the parent.
    pub(crate) fn span_context(&self) -> Option<&SpanContext> {
        self.span.as_ref().map(Span::span_context).filter(|context| context.is_valid())
    }

    /// Ends the span of one message with the broker's answer.
    pub(crate) fn finish(mut self, result: &Result<Receipt>) {
        self.is_over = true;
        if let Some(span) = self.span.as_mut().filter(|span| span.is_recording()) {
            match result {
                Ok(receipt) => describe_receipt(span, self.template.offset_attribute, receipt, self.has_id),
                Err(error) => fail(span, error.kind().as_str(), error.to_string()),
            }
        }
        self.end(std::slice::from_ref(result));
    }

    /// Ends the span of a batch, with its first failure if there is one.
    pub(crate) fn finish_batch(mut self, results: &[Result<Receipt>]) {
        self.is_over = true;
        let first_error = results.iter().find_map(|result| result.as_ref().err());
        let recording = self.span.as_mut().filter(|span| span.is_recording());
        if let (Some(span), Some(error)) = (recording, first_error) {
            fail(span, error.kind().as_str(), error.to_string());
        }
        self.end(results);
    }

    fn end(&mut self, results: &[Result<Receipt>]) {
        let end = self.timing.take().map(|timing| {
            let (end, duration) = timing.end();
            let partition = |result: &Result<Receipt>| result.as_ref().ok().and_then(|receipt| receipt.partition);
            let error_type = |result: &Result<Receipt>| result.as_ref().err().map(|error| error.kind().as_str());
            let only = if let [only] = results { partition(only) } else { None };
            let failed = results.iter().find_map(error_type);
            timing.instruments.operation_duration.record(duration.as_secs_f64(), &self.template.timed.of(only, failed));
            for result in results {
                let attributes = self.template.counted.of(partition(result), error_type(result));
                timing.instruments.sent.add(1, &attributes);
            }
            end
        });
        if let Some(mut span) = self.span.take() {
            end_span(&mut span, end);
        }
    }
}

impl Drop for SendSpan<'_> {
    /// Marks a publish as cancelled; its message may or may not have been stored.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Some(span) = &mut self.span {
            fail(span, "cancelled", "the publish was cancelled before the broker answered".to_owned());
        }
        let end = self.timing.take().map(|timing| {
            let (end, duration) = timing.end();
            let failed = Some("cancelled");
            timing.instruments.operation_duration.record(duration.as_secs_f64(), &self.template.timed.of(None, failed));
            timing.instruments.sent.add(self.messages as u64, &self.template.counted.of(None, failed));
            end
        });
        if let Some(span) = &mut self.span {
            end_span(span, end);
        }
    }
}

fn describe_message(span: &mut BoxedSpan, template: &SpanTemplate, message: &Message) {
    if let Some(id) = &message.id {
        span.set_attribute(KeyValue::new(attribute::MESSAGE_ID, id.clone()));
    }
    if let Some(id) = message.headers.get_str(header::CORRELATION_ID) {
        span.set_attribute(KeyValue::new(attribute::CONVERSATION_ID, id.to_owned()));
    }
    let key = message.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
    if let (Some(name), Some(key)) = (template.key_attribute, key) {
        span.set_attribute(KeyValue::new(name, key.to_owned()));
    }
}

fn describe_receipt(span: &mut BoxedSpan, offset_attribute: Option<&'static str>, receipt: &Receipt, has_id: bool) {
    if let Some(partition) = receipt.partition {
        span.set_attribute(KeyValue::new(attribute::DESTINATION_PARTITION_ID, partition.to_string()));
    }
    if let (Some(name), Some(offset)) = (offset_attribute, receipt.offset) {
        span.set_attribute(KeyValue::new(name, offset));
    }
    // Only one of the two ids: the SDK keeps every value of an attribute that is set twice.
    if let Some(id) = receipt.id.as_ref().filter(|_| !has_id) {
        span.set_attribute(KeyValue::new(attribute::MESSAGE_ID, id.clone()));
    }
}
