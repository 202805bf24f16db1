//! The span of a message's processing.

use crate::names::{attribute, header};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{Link, Span, SpanContext, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use super::subscription::SubscriptionTelemetry;
use crate::context::propagation::{Hop, Origin, TracePolicy};
use crate::driver::AttributeValue;
use crate::message::Received;
use crate::telemetry::metrics::{Timing, end_span};
use crate::telemetry::span::{MAX_LINKS, otel};

/// A `process` span with its measurement: current for the handler, ended after settling.
pub(crate) struct ProcessSpan {
    context: Context,
    is_open: bool,
    /// `true` once the handler has ended, so that only the settlement is missing.
    is_handled: bool,
    has_failed: bool,
    timed: Option<Timed>,
    /// Child spans for the links of a batch beyond [`MAX_LINKS`].
    more: Vec<BoxedSpan>,
}

/// The measurement of a process span.
struct Timed {
    timing: Timing,
    subscription: Arc<SubscriptionTelemetry>,
    partition: Option<i32>,
    error_type: Option<&'static str>,
}

impl ProcessSpan {
    pub(crate) fn start(subscription: &Arc<SubscriptionTelemetry>, ambient: &Context, message: &Received) -> Self {
        let origin = message.origin();
        let timed = Timed::start(subscription, message.partition());
        timed.iter().for_each(|timed| timed.waited(message.waited()));
        let parent = origin.parent();
        let span = subscription.telemetry.start(&parent, || {
            let links = links(origin, ambient);
            let started = timed.as_ref().map(|timed| timed.timing.started);
            subscription.process.builder(links, known_at_start(message, origin), started)
        });
        match span.filter(|span| span.span_context().is_valid()) {
            Some(span) => Self {
                context: parent.with_span(span),
                is_open: true,
                is_handled: false,
                has_failed: false,
                timed,
                more: Vec::new(),
            },
            None => Self {
                context: origin.context_without_spans(),
                is_open: false,
                is_handled: false,
                has_failed: false,
                timed,
                more: Vec::new(),
            },
        }
    }

    /// Starts the span of a batch in its own trace, linked to every creation context and to the
    /// current span.
    ///
    /// Links beyond [`MAX_LINKS`] go to child spans, so that none is dropped.
    pub(crate) fn start_batch(
        subscription: &Arc<SubscriptionTelemetry>,
        ambient: &Context,
        messages: &[&Received],
    ) -> Self {
        let template = &subscription.process;
        let ambient = Some(ambient.span().span_context().clone()).filter(SpanContext::is_valid).map(Link::with_context);
        let links: Vec<Link> = ambient.into_iter().chain(messages.iter().filter_map(|one| batch_link(one))).collect();
        let mut chunks = links.chunks(MAX_LINKS).map(<[Link]>::to_vec);
        let timed = Timed::start(subscription, None);
        let root = Context::new();
        let first = subscription.telemetry.start(&root, || {
            let count = KeyValue::new(attribute::BATCH_MESSAGE_COUNT, messages.len() as i64);
            let started = timed.as_ref().map(|timed| timed.timing.started);
            template.builder(chunks.next().unwrap_or_default(), [count], started)
        });
        let Some(first) = first.filter(|span| span.span_context().is_valid()) else {
            return Self {
                context: root,
                is_open: false,
                is_handled: false,
                has_failed: false,
                timed,
                more: Vec::new(),
            };
        };
        let context = root.with_span(first);
        let more =
            chunks.filter_map(|links| subscription.telemetry.start(&context, || template.builder(links, [], None)));
        let more = more.collect();
        Self { context, is_open: true, is_handled: false, has_failed: false, timed, more }
    }

    /// Returns the context for the handler: the span is current, and the sender's baggage is
    /// present.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn is_recording(&self) -> bool {
        self.is_open && self.context.span().is_recording()
    }

    /// Adds the attributes that only a recording span needs.
    pub(crate) fn describe(
        &self,
        message: &Received,
        visit: impl FnOnce(&mut dyn FnMut(&'static str, AttributeValue)),
    ) {
        let span = self.context.span();
        if let Some(id) = message.id() {
            span.set_attribute(KeyValue::new(attribute::MESSAGE_ID, id.to_owned()));
        }
        if let Some(id) = message.headers().get_str(header::CORRELATION_ID) {
            span.set_attribute(KeyValue::new(attribute::CONVERSATION_ID, id.to_owned()));
        }
        span.set_attribute(KeyValue::new(attribute::DELIVERY_ATTEMPT, i64::from(message.attempt())));
        if let Some(deliveries) = message.deliveries() {
            span.set_attribute(KeyValue::new(attribute::DELIVERY_COUNT, i64::from(deliveries)));
        }
        span.set_attribute(KeyValue::new(attribute::WAIT_DURATION, message.waited().as_secs_f64()));
        if let (Some(queued), Some(timestamp)) = (message.queued, message.timestamp()) {
            span.set_attribute(KeyValue::new(attribute::QUEUE_DURATION, queued.time.as_secs_f64()));
            span.set_attribute(KeyValue::new(attribute::QUEUE_CLOCK, timestamp.source.as_str()));
            if queued.is_skewed {
                span.set_attribute(KeyValue::new(attribute::QUEUE_IS_SKEWED, true));
            }
        }
        visit(&mut |key, value| span.set_attribute(KeyValue::new(key, otel(value))));
    }

    /// Marks the span as failed. Only the first failure counts: later ones follow from it, and the
    /// SDK keeps every value of an attribute that is set twice.
    pub(crate) fn fail(&mut self, error_type: &'static str, description: impl FnOnce() -> String) {
        if std::mem::replace(&mut self.has_failed, true) {
            return;
        }
        if let Some(timed) = &mut self.timed {
            timed.error_type = Some(error_type);
        }
        if self.is_recording() {
            let span = self.context.span();
            span.set_attribute(KeyValue::new(attribute::ERROR_TYPE, error_type));
            span.set_status(Status::error(description()));
        }
    }

    /// Notes that the handler has ended. A span that is dropped from now on tells that its message
    /// was not settled, and not that its handler was cancelled.
    pub(crate) fn mark_handled(&mut self) {
        self.is_handled = true;
    }

    /// Ends the span after settling.
    pub(crate) fn finish(mut self, settlement: &'static str) {
        self.end(settlement);
    }

    fn end(&mut self, settlement: &'static str) {
        let end = self.timed.take().map(Timed::end);
        if std::mem::take(&mut self.is_open) {
            let span = self.context.span();
            span.set_attribute(KeyValue::new(attribute::SETTLEMENT, settlement));
            match end {
                Some(end) => span.end_with_timestamp(end),
                None => span.end(),
            }
            self.more.iter_mut().for_each(|span| end_span(span, end));
        }
    }
}

impl Drop for ProcessSpan {
    /// Marks a handler as cancelled; the message is redelivered.
    fn drop(&mut self) {
        if self.is_open || self.timed.is_some() {
            if !self.is_handled {
                self.fail("cancelled", || "the handler was cancelled before it finished".to_owned());
            }
            self.end("none");
        }
    }
}

impl Timed {
    fn start(subscription: &Arc<SubscriptionTelemetry>, partition: Option<i32>) -> Option<Self> {
        let timing = Timing::start(&subscription.telemetry.metrics)?;
        Some(Self { timing, subscription: Arc::clone(subscription), partition, error_type: None })
    }

    /// Records the duration and returns the end.
    /// Measures the wait in this process.
    fn waited(&self, time: Duration) {
        let attributes = self.subscription.process.counted.at(self.partition);
        self.timing.instruments.wait_duration.record(time.as_secs_f64(), &attributes);
    }

    fn end(self) -> SystemTime {
        let (end, duration) = self.timing.end();
        let attributes = self.subscription.process.timed.of(self.partition, self.error_type);
        self.timing.instruments.process_duration.record(duration.as_secs_f64(), &attributes);
        end
    }
}

/// Returns the attributes of one message that samplers may need.
fn known_at_start(message: &Received, origin: &Origin) -> impl Iterator<Item = KeyValue> {
    let partition = message.partition().map(|id| KeyValue::new(attribute::DESTINATION_PARTITION_ID, id.to_string()));
    let hop = (origin.hop != Hop::Direct).then(|| KeyValue::new(attribute::HOP, origin.hop.as_str()));
    let is_policed = origin.policy != TracePolicy::Parent && origin.context.span().span_context().is_valid();
    let policy = is_policed.then(|| KeyValue::new(attribute::CONTEXT_POLICY, origin.policy.as_str()));
    let dialect = origin.dialect.map(|dialect| KeyValue::new(attribute::CONTEXT_DIALECT, dialect.as_str()));
    [partition, hop, policy, dialect].into_iter().flatten()
}

/// Returns the links of a process span (messaging conventions, "Trace structure").
///
/// The creation context is linked even when it is the parent. The context that is current at the
/// consumer, such as a span around the receiving loop, is only linked and never the parent:
/// otherwise unrelated messages would share its trace.
fn links(origin: &Origin, ambient: &Context) -> Vec<Link> {
    let mut links = Vec::with_capacity(2);
    let creation = (origin.policy != TracePolicy::Ignore).then_some(&origin.context);
    for context in [creation, Some(ambient)].into_iter().flatten() {
        let span = context.span();
        if span.span_context().is_valid() {
            links.push(Link::with_context(span.span_context().clone()));
        }
    }
    links
}

/// Returns the link of one message of a batch, with its attributes.
fn batch_link(message: &Received) -> Option<Link> {
    let origin = message.origin();
    if origin.policy == TracePolicy::Ignore {
        return None;
    }
    let creation = origin.context.span().span_context().clone();
    if !creation.is_valid() {
        return None;
    }
    let id = message.id().map(|id| KeyValue::new(attribute::MESSAGE_ID, id.to_owned()));
    let attempt = Some(KeyValue::new(attribute::DELIVERY_ATTEMPT, i64::from(message.attempt())));
    let queued = message.time_in_queue().map(|time| KeyValue::new(attribute::QUEUE_DURATION, time.as_secs_f64()));
    let attributes = known_at_start(message, origin).chain([id, attempt, queued].into_iter().flatten()).collect();
    Some(Link::new(creation, attributes, 0))
}
