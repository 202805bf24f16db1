//! The spans of a message's way: names, kinds, attributes and status, as the messaging conventions of
//! OpenTelemetry 1.44 have them.

use std::sync::Arc;

use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{Link, Span, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue, Value};

use crate::driver::{AttributeValue, Destination, Identity};
use crate::error::{Error, Result};
use crate::message::{Message, Receipt};
use crate::propagation::TracePolicy;
use crate::received::Received;
use crate::tracer::Telemetry;

/// The version of the semantic conventions that spans follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Attribute of process spans: seconds from the message's [timestamp](crate::driver::Timestamp) until it was handed out, never negative.
pub const QUEUE_DURATION: &str = "traced_broker.queue.duration";
/// Attribute of process spans: whose clock the queue duration starts from, `broker` or `producer`.
pub const QUEUE_CLOCK: &str = "traced_broker.queue.clock";
/// Attribute of process spans: which attempt at the message this is, from 1.
pub const DELIVERY_ATTEMPT: &str = "traced_broker.delivery.attempt";
/// Attribute of process spans: how the delivery was settled, `ack`, `retry`, `reject` or `none`; for a batch that was not settled in one way, `mixed`.
pub const SETTLEMENT: &str = "traced_broker.settlement";

/// OpenTelemetry's SDK keeps that many links per span and drops the rest without a word.
pub(crate) const MAX_LINKS: usize = 128;

/// An operation of the messaging conventions, with the span kind it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A message gets its creation context ahead of a batch.
    Create,
    /// One message goes out and carries this span's context.
    Send,
    /// Messages go out that carry contexts of their own: batches and forwards.
    Transfer,
    /// A handler works on a message.
    Process,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Send | Self::Transfer => "send",
            Self::Process => "process",
        }
    }

    const fn kind(self) -> SpanKind {
        match self {
            Self::Create | Self::Send => SpanKind::Producer,
            Self::Transfer => SpanKind::Client,
            Self::Process => SpanKind::Consumer,
        }
    }
}

/// What all spans of one operation at one destination have in common, made once.
#[derive(Debug)]
pub(crate) struct SpanTemplate {
    name: String,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    key_attribute: Option<&'static str>,
    offset_attribute: Option<&'static str>,
}

impl SpanTemplate {
    pub(crate) fn new(
        operation: Operation,
        identity: &Identity,
        topic: &Arc<str>,
        destination: &Destination,
        group: Option<&str>,
    ) -> Self {
        let native = destination.name.as_ref().filter(|name| *name != topic);
        let mut attributes = vec![
            KeyValue::new("messaging.system", identity.system),
            KeyValue::new("messaging.operation.name", operation.name()),
            KeyValue::new("messaging.operation.type", operation.name()),
            KeyValue::new("messaging.destination.name", Arc::clone(native.unwrap_or(topic))),
        ];
        // The name of the span stays the topic's, which is what people look for on every broker.
        attributes.extend(native.map(|_| KeyValue::new("messaging.destination.template", Arc::clone(topic))));
        attributes.extend(identity.server_address.clone().map(|host| KeyValue::new("server.address", host)));
        attributes.extend(identity.server_port.map(|port| KeyValue::new("server.port", i64::from(port))));
        attributes.extend(group.map(|group| KeyValue::new("messaging.consumer.group.name", Arc::<str>::from(group))));
        attributes.extend(destination.attributes.iter().map(|(key, value)| KeyValue::new(*key, otel(value.clone()))));
        Self {
            name: format!("{} {topic}", operation.name()),
            kind: operation.kind(),
            attributes,
            key_attribute: identity.key_attribute,
            offset_attribute: identity.offset_attribute,
        }
    }

    fn builder(&self, links: Vec<Link>, extra: Option<KeyValue>) -> SpanBuilder {
        // One allocation with room for what is set later.
        let mut attributes = Vec::with_capacity(self.attributes.len() + 8);
        attributes.extend_from_slice(&self.attributes);
        attributes.extend(extra);
        SpanBuilder {
            span_kind: Some(self.kind.clone()),
            attributes: Some(attributes),
            links: (!links.is_empty()).then_some(links),
            ..SpanBuilder::from_name(self.name.clone())
        }
    }
}

/// A `send` or `create` span: lasts until the broker answered. Empty where no SDK is installed.
pub(crate) struct SendSpan {
    span: Option<BoxedSpan>,
    offset_attribute: Option<&'static str>,
}

impl SendSpan {
    /// Starts the span of one message.
    pub(crate) fn start(template: &SpanTemplate, telemetry: &Telemetry, parent: &Context, message: &Message) -> Self {
        let mut span = telemetry.start(parent, || template.builder(Vec::new(), None));
        if let Some(span) = span.as_mut().filter(|span| span.is_recording()) {
            describe_message(span, template, message);
        }
        Self { span, offset_attribute: template.offset_attribute }
    }

    /// Starts the span of a batch or forward, linked to the creation contexts of what it moves.
    pub(crate) fn start_linked(
        template: &SpanTemplate,
        telemetry: &Telemetry,
        parent: &Context,
        links: Vec<SpanContext>,
        batch: Option<usize>,
    ) -> Self {
        let span = telemetry.start(parent, || {
            let links = links.into_iter().filter(SpanContext::is_valid).map(Link::with_context).collect();
            let count = batch.map(|count| KeyValue::new("messaging.batch.message_count", count as i64));
            template.builder(links, count)
        });
        Self { span, offset_attribute: template.offset_attribute }
    }

    /// The identity a message travels with; `None` where no span could be made, so that it travels with the parent's.
    pub(crate) fn span_context(&self) -> Option<&SpanContext> {
        self.span.as_ref().map(Span::span_context).filter(|context| context.is_valid())
    }

    /// Ends the span with what the broker answered.
    pub(crate) fn finish(mut self, result: &Result<Receipt>) {
        let Some(mut span) = self.span.take() else { return };
        if span.is_recording() {
            match result {
                Ok(receipt) => describe_receipt(&mut span, self.offset_attribute, receipt),
                Err(error) => fail(&mut span, error.kind().as_str(), error.to_string()),
            }
        }
        span.end();
    }

    /// Ends the span of a batch, with the first of its failures if there was one.
    pub(crate) fn finish_batch(mut self, first_error: Option<&Error>) {
        let Some(mut span) = self.span.take() else { return };
        if let Some(error) = first_error {
            fail(&mut span, error.kind().as_str(), error.to_string());
        }
        span.end();
    }
}

impl Drop for SendSpan {
    /// A publish that was cancelled: the message may or may not have been stored.
    fn drop(&mut self) {
        if let Some(span) = &mut self.span {
            fail(span, "cancelled", "the publish was cancelled before the broker answered".to_owned());
            span.end();
        }
    }
}

fn describe_message(span: &mut BoxedSpan, template: &SpanTemplate, message: &Message) {
    if let Some(id) = &message.id {
        span.set_attribute(KeyValue::new("messaging.message.id", id.clone()));
    }
    let key = message.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
    if let (Some(name), Some(key)) = (template.key_attribute, key) {
        span.set_attribute(KeyValue::new(name, key.to_owned()));
    }
}

fn describe_receipt(span: &mut BoxedSpan, offset_attribute: Option<&'static str>, receipt: &Receipt) {
    if let Some(partition) = receipt.partition {
        span.set_attribute(KeyValue::new("messaging.destination.partition.id", partition.to_string()));
    }
    if let (Some(name), Some(offset)) = (offset_attribute, receipt.offset) {
        span.set_attribute(KeyValue::new(name, offset));
    }
    if let Some(id) = &receipt.id {
        span.set_attribute(KeyValue::new("messaging.message.id", id.clone()));
    }
}

/// A `process` span: current for the handler, ended after settling.
pub(crate) struct ProcessSpan {
    context: Context,
    open: bool,
    /// Children that hold the links of a batch that one span has no room for.
    more: Vec<BoxedSpan>,
}

impl ProcessSpan {
    pub(crate) fn start(
        template: &SpanTemplate,
        telemetry: &Telemetry,
        policy: TracePolicy,
        creation: &Context,
        ambient: &Context,
        message: &Received,
    ) -> Self {
        let parent = match policy {
            TracePolicy::Parent => creation.clone(),
            TracePolicy::Link | TracePolicy::Ignore => Context::new(),
        };
        let span = telemetry.start(&parent, || {
            let partition = message.partition().map(|id| id.to_string());
            let partition = partition.map(|id| KeyValue::new("messaging.destination.partition.id", id));
            template.builder(links(policy, creation, ambient), partition)
        });
        match span.filter(|span| span.span_context().is_valid()) {
            Some(span) => Self { context: parent.with_span(span), open: true, more: Vec::new() },
            None => Self { context: parent, open: false, more: Vec::new() },
        }
    }

    /// Starts the span of a batch: a trace of its own, linked to every creation context and to what is current here.
    ///
    /// A span has room for [`MAX_LINKS`]: those beyond go to children of it, so that none is dropped.
    pub(crate) fn start_batch(
        template: &SpanTemplate,
        telemetry: &Telemetry,
        policy: TracePolicy,
        creations: &[Context],
        ambient: &Context,
    ) -> Self {
        let count = KeyValue::new("messaging.batch.message_count", creations.len() as i64);
        let creations = if policy == TracePolicy::Ignore { &[] } else { creations };
        let linked = std::iter::once(ambient).chain(creations).map(|context| context.span().span_context().clone());
        let links: Vec<Link> = linked.filter(SpanContext::is_valid).map(Link::with_context).collect();
        let mut chunks = links.chunks(MAX_LINKS).map(<[Link]>::to_vec);
        let root = Context::new();
        let first = telemetry.start(&root, || template.builder(chunks.next().unwrap_or_default(), Some(count)));
        let Some(first) = first.filter(|span| span.span_context().is_valid()) else {
            return Self { context: root, open: false, more: Vec::new() };
        };
        let context = root.with_span(first);
        let more = chunks.filter_map(|links| telemetry.start(&context, || template.builder(links, None))).collect();
        Self { context, open: true, more }
    }

    /// The context to work in: the span is current, the sender's baggage is there.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn is_recording(&self) -> bool {
        self.context.span().is_recording()
    }

    /// What is known once the span is known to be recorded.
    pub(crate) fn describe(
        &self,
        message: &Received,
        visit: impl FnOnce(&mut dyn FnMut(&'static str, AttributeValue)),
    ) {
        let span = self.context.span();
        if let Some(id) = message.id() {
            span.set_attribute(KeyValue::new("messaging.message.id", id.to_owned()));
        }
        span.set_attribute(KeyValue::new(DELIVERY_ATTEMPT, i64::from(message.attempt())));
        if let (Some(queued), Some(timestamp)) = (message.time_in_queue(), message.timestamp()) {
            span.set_attribute(KeyValue::new(QUEUE_DURATION, queued.as_secs_f64()));
            span.set_attribute(KeyValue::new(QUEUE_CLOCK, timestamp.source.as_str()));
        }
        visit(&mut |key, value| span.set_attribute(KeyValue::new(key, otel(value))));
    }

    pub(crate) fn fail(&self, error_type: &'static str, description: String) {
        if !self.is_recording() {
            return;
        }
        let span = self.context.span();
        span.set_attribute(KeyValue::new("error.type", error_type));
        span.set_status(Status::error(description));
    }

    /// Ends the span after settling.
    pub(crate) fn finish(mut self, settlement: &'static str) {
        if std::mem::take(&mut self.open) {
            let span = self.context.span();
            span.set_attribute(KeyValue::new(SETTLEMENT, settlement));
            span.end();
            self.more.iter_mut().for_each(Span::end);
        }
    }
}

impl Drop for ProcessSpan {
    /// A handler that was cancelled: the message is redelivered.
    fn drop(&mut self) {
        if self.open {
            self.fail("cancelled", "the handler was cancelled before it finished".to_owned());
            let span = self.context.span();
            span.set_attribute(KeyValue::new(SETTLEMENT, "none"));
            span.end();
        }
    }
}

/// The links of a process span (messaging conventions, "Trace structure").
///
/// The creation context stays a link even when it is the parent. The context that happens to be current where the message is
/// processed, such as a span around the receiving loop, is never the parent: unrelated messages would share its trace.
fn links(policy: TracePolicy, creation: &Context, ambient: &Context) -> Vec<Link> {
    let creation = (policy != TracePolicy::Ignore).then_some(creation);
    let linked = [creation, Some(ambient)].into_iter().flatten();
    let spans = linked.map(|context| context.span().span_context().clone());
    spans.filter(SpanContext::is_valid).map(Link::with_context).collect()
}

fn fail(span: &mut impl Span, error_type: &'static str, description: String) {
    span.set_attribute(KeyValue::new("error.type", error_type));
    span.set_status(Status::error(description));
}

fn otel(value: AttributeValue) -> Value {
    match value {
        AttributeValue::Text(text) => text.into(),
        AttributeValue::Integer(number) => number.into(),
        AttributeValue::Flag(flag) => flag.into(),
    }
}
