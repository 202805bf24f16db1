//! The spans of publishing.

use std::sync::Arc;

use crate::names::{attribute, header};
use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{Link, Span, SpanContext};
use opentelemetry::{Context, KeyValue};

use super::template::SpanTemplate;
use crate::context::propagation::Hop;
use crate::error::Result;
use crate::message::{Message, Receipt};
use crate::telemetry::metrics::{Instruments, Timing, end_span};
use crate::telemetry::span::{Operation, fail};
use crate::telemetry::tracer::Telemetry;

/// The error type of a publish that its sender gave up.
const CANCELLED: &str = "cancelled";

/// A `send` or `create` span with its measurement, which lasts until the broker has answered.
/// Without an SDK there is no span.
pub(crate) struct SendSpan<T: AsRef<SpanTemplate>> {
    template: T,
    span: Option<BoxedSpan>,
    timing: Option<Timing>,
    /// `true` if the sender gave the message an id, by which consumers know it.
    has_id: bool,
    /// `true` once the span has ended with the broker's answer.
    is_over: bool,
}

impl<T: AsRef<SpanTemplate>> SendSpan<T> {
    /// Starts the span of one message.
    pub(crate) fn start(template: T, telemetry: &Telemetry, parent: &Context, message: &Message) -> Self {
        let mut started = Self::begin(template, telemetry, parent, Vec::new(), message.hop_kind(), None);
        if let Some(span) = started.span.as_mut().filter(|span| span.is_recording()) {
            describe_message(span, started.template.as_ref(), message);
        }
        started.has_id = message.id.is_some();
        started
    }

    /// Starts the span of a batch or forward, linked to the creation contexts of its messages.
    pub(crate) fn start_linked(
        template: T,
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
        template: T,
        telemetry: &Telemetry,
        parent: &Context,
        links: Vec<Link>,
        hop: Hop,
        batch: Option<usize>,
    ) -> Self {
        // Creating a context is not a call to the broker, so it is not measured.
        let shape = template.as_ref();
        let is_call = shape.operation != Operation::Create;
        let timing = is_call.then(|| Timing::start(&telemetry.metrics)).flatten();
        let started = timing.as_ref().map(|timing| timing.started);
        let span = telemetry.start(parent, || {
            let hop = (hop != Hop::Direct).then(|| KeyValue::new(attribute::HOP, hop.as_str()));
            let count = batch.map(|count| KeyValue::new(attribute::BATCH_MESSAGE_COUNT, count as i64));
            shape.builder(links, hop.into_iter().chain(count), started)
        });
        Self { template, span, timing, has_id: false, is_over: false }
    }

    /// Returns the template, or the handle to it.
    pub(crate) fn template(&self) -> &T {
        &self.template
    }

    /// Returns the span context that the message carries; `None` if there is no span, and the
    /// message carries that of the parent.
    pub(crate) fn span_context(&self) -> Option<&SpanContext> {
        self.span.as_ref().map(Span::span_context).filter(|context| context.is_valid())
    }

    /// Ends the span of one message with the broker's answer. The message counts as sent if the
    /// driver was given it.
    pub(crate) fn finish(mut self, result: &Result<Receipt>, was_sent: bool) {
        self.is_over = true;
        if let Some(span) = self.span.as_mut().filter(|span| span.is_recording()) {
            match result {
                Ok(receipt) => describe_receipt(span, self.template.as_ref().offset_attribute, receipt, self.has_id),
                Err(error) => fail(span, error.kind().as_str(), error.to_string()),
            }
        }
        let (partition, error_type) = outcome(result);
        if let Some(timing) = self.timing.as_ref().filter(|_| was_sent) {
            count_unroutable(&timing.instruments, self.template.as_ref(), result);
        }
        self.end(partition, error_type, was_sent);
    }

    /// Ends the span of a batch, with its first failure if there is one.
    pub(crate) fn finish_batch(mut self, results: &[Result<Receipt>]) {
        self.is_over = true;
        let first_error = results.iter().find_map(|result| result.as_ref().err());
        let recording = self.span.as_mut().filter(|span| span.is_recording());
        if let (Some(span), Some(error)) = (recording, first_error) {
            fail(span, error.kind().as_str(), error.to_string());
        }
        let only = if let [only] = results { outcome(only).0 } else { None };
        self.end(only, first_error.map(|error| error.kind().as_str()), false);
    }

    /// Ends the span of a publish that its sender gave up. The message may or may not have been
    /// stored, and counts as sent if the driver was given it.
    pub(crate) fn cancel(mut self, was_sent: bool) {
        self.cancelled(was_sent);
    }

    fn cancelled(&mut self, was_sent: bool) {
        self.is_over = true;
        if let Some(span) = &mut self.span {
            fail(span, CANCELLED, "the publish was cancelled before the broker answered".to_owned());
        }
        self.end(None, Some(CANCELLED), was_sent);
    }

    fn end(&mut self, partition: Option<i32>, error_type: Option<&'static str>, was_sent: bool) {
        let template = self.template.as_ref();
        let end = self.timing.take().map(|timing| {
            let (end, duration) = timing.end();
            let (timed, instruments) = (template.timed.of(partition, error_type), timing.instruments);
            instruments.operation_duration.record(duration.as_secs_f64(), &timed);
            if was_sent {
                instruments.sent.add(1, &template.counted.of(partition, error_type));
            }
            end
        });
        if let Some(mut span) = self.span.take() {
            end_span(&mut span, end);
        }
    }
}

impl<T: AsRef<SpanTemplate>> Drop for SendSpan<T> {
    fn drop(&mut self) {
        if !self.is_over {
            self.cancelled(false);
        }
    }
}

/// The count of one message of a batch.
pub(crate) struct SentCount<T> {
    template: T,
    instruments: Option<Arc<Instruments>>,
}

impl<T: AsRef<SpanTemplate>> SentCount<T> {
    pub(crate) fn new(template: T, telemetry: &Telemetry) -> Self {
        Self { template, instruments: telemetry.metrics.instruments() }
    }

    /// Counts the message with its outcome; `None` if its sender gave it up.
    pub(crate) fn add(&self, result: Option<&Result<Receipt>>) {
        if let Some(instruments) = &self.instruments {
            let (partition, error_type) = result.map_or((None, Some(CANCELLED)), outcome);
            instruments.sent.add(1, &self.template.as_ref().counted.of(partition, error_type));
            result.iter().for_each(|result| count_unroutable(instruments, self.template.as_ref(), result));
        }
    }
}

fn count_unroutable(instruments: &Instruments, template: &SpanTemplate, result: &Result<Receipt>) {
    if result.as_ref().is_ok_and(|receipt| receipt.unroutable) {
        instruments.unroutable.add(1, &template.counted.of(None, None));
    }
}

fn outcome(result: &Result<Receipt>) -> (Option<i32>, Option<&'static str>) {
    match result {
        Ok(receipt) => (receipt.partition, None),
        Err(error) => (None, Some(error.kind().as_str())),
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
