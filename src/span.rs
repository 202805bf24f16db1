//! The spans of a message's way: names, kinds, attributes and status, as the messaging conventions of
//! OpenTelemetry 1.44 have them.

use std::sync::{Arc, OnceLock};

use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{Link, Span, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value, global};

use crate::driver::{AttributeValue, Destination, Identity};
use crate::error::{Error, Result};
use crate::message::{Message, Receipt};
use crate::propagation::{Propagation, TracePolicy};
use crate::received::Received;

/// The version of the semantic conventions that spans follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Attribute of process spans: seconds from the message's [timestamp](crate::driver::Timestamp) until it was handed out, never negative.
pub const QUEUE_DURATION: &str = "traced_broker.queue.duration";
/// Attribute of process spans: whose clock the queue duration starts from, `broker` or `producer`.
pub const QUEUE_CLOCK: &str = "traced_broker.queue.clock";
/// Attribute of process spans: which attempt at the message this is, from 1.
pub const DELIVERY_ATTEMPT: &str = "traced_broker.delivery.attempt";
/// Attribute of process spans: how the delivery was settled, `ack`, `retry`, `reject` or `none`.
pub const SETTLEMENT: &str = "traced_broker.settlement";

/// Makes spans and moves contexts; shared by all that one broker publishes and consumes.
#[derive(Debug)]
pub(crate) struct Telemetry {
    tracer: OnceLock<BoxedTracer>,
    pub(crate) propagation: Propagation,
}

impl Telemetry {
    /// Spans go to the tracer, or to the global provider as it is set when the first span is made.
    pub(crate) fn new(tracer: Option<BoxedTracer>, propagation: Propagation) -> Self {
        Self { tracer: tracer.map(OnceLock::from).unwrap_or_default(), propagation }
    }

    /// The instrumentation scope of every span of this library.
    pub(crate) fn scope() -> InstrumentationScope {
        InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(SCHEMA_URL)
            .build()
    }

    fn tracer(&self) -> &BoxedTracer {
        self.tracer.get_or_init(|| global::tracer_with_scope(Self::scope()))
    }
}

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

    fn start(
        &self,
        telemetry: &Telemetry,
        parent: &Context,
        links: Vec<Link>,
        extra: impl IntoIterator<Item = KeyValue>,
    ) -> global::BoxedSpan {
        // One allocation with room for what is set later.
        let mut attributes = Vec::with_capacity(self.attributes.len() + 8);
        attributes.extend_from_slice(&self.attributes);
        attributes.extend(extra);
        let builder = SpanBuilder {
            span_kind: Some(self.kind.clone()),
            attributes: Some(attributes),
            links: (!links.is_empty()).then_some(links),
            ..SpanBuilder::from_name(self.name.clone())
        };
        telemetry.tracer().build_with_context(builder, parent)
    }
}

/// A `send` or `create` span: lasts until the broker answered.
pub(crate) struct SendSpan {
    span: global::BoxedSpan,
    key_attribute: Option<&'static str>,
    offset_attribute: Option<&'static str>,
    open: bool,
}

impl SendSpan {
    pub(crate) fn start(template: &SpanTemplate, telemetry: &Telemetry, parent: &Context) -> Self {
        Self::over(template, template.start(telemetry, parent, Vec::new(), None))
    }

    fn over(template: &SpanTemplate, span: global::BoxedSpan) -> Self {
        let SpanTemplate { key_attribute, offset_attribute, .. } = *template;
        Self { span, key_attribute, offset_attribute, open: true }
    }

    /// A span of a batch or forward, linked to the creation contexts of what it moves.
    pub(crate) fn start_linked(
        template: &SpanTemplate,
        telemetry: &Telemetry,
        parent: &Context,
        links: Vec<SpanContext>,
        batch: Option<usize>,
    ) -> Self {
        let links = links.into_iter().filter(SpanContext::is_valid).map(Link::with_context).collect();
        let count = batch.map(|count| KeyValue::new("messaging.batch.message_count", count as i64));
        Self::over(template, template.start(telemetry, parent, links, count))
    }

    /// The context a message travels with: this span's, or the parent's where no span could be made.
    pub(crate) fn context(&self, parent: &Context) -> Context {
        let own = self.span.span_context();
        if own.is_valid() { parent.with_remote_span_context(own.clone()) } else { parent.clone() }
    }

    pub(crate) fn span_context(&self) -> SpanContext {
        self.span.span_context().clone()
    }

    /// Adds what is particular to the message, if the span is recorded.
    pub(crate) fn describe(&mut self, message: &Message) {
        if !self.span.is_recording() {
            return;
        }
        if let Some(id) = &message.id {
            self.span.set_attribute(KeyValue::new("messaging.message.id", id.clone()));
        }
        let key = message.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        if let (Some(name), Some(key)) = (self.key_attribute, key) {
            self.span.set_attribute(KeyValue::new(name, key.to_owned()));
        }
    }

    /// Ends the span with what the broker answered.
    pub(crate) fn finish(mut self, result: &Result<Receipt>) {
        if self.span.is_recording() {
            match result {
                Ok(receipt) => self.describe_receipt(receipt),
                Err(error) => fail(&mut self.span, error.kind().as_str(), error.to_string()),
            }
        }
        self.open = false;
        self.span.end();
    }

    fn describe_receipt(&mut self, receipt: &Receipt) {
        if let Some(partition) = receipt.partition {
            self.span.set_attribute(KeyValue::new("messaging.destination.partition.id", partition.to_string()));
        }
        if let (Some(name), Some(offset)) = (self.offset_attribute, receipt.offset) {
            self.span.set_attribute(KeyValue::new(name, offset));
        }
        if let Some(id) = &receipt.id {
            self.span.set_attribute(KeyValue::new("messaging.message.id", id.clone()));
        }
    }

    /// Ends the span of a batch, with the first of its failures if there was one.
    pub(crate) fn finish_batch(mut self, first_error: Option<&Error>) {
        if let Some(error) = first_error {
            fail(&mut self.span, error.kind().as_str(), error.to_string());
        }
        self.open = false;
        self.span.end();
    }
}

impl Drop for SendSpan {
    /// A publish that was cancelled: the message may or may not have been stored.
    fn drop(&mut self) {
        if self.open {
            fail(&mut self.span, "cancelled", "the publish was cancelled before the broker answered".to_owned());
            self.span.end();
        }
    }
}

/// A `process` span: current for the handler, ended after settling.
pub(crate) struct ProcessSpan {
    context: Context,
    open: bool,
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
        let (parent, links) = correlate(policy, creation, ambient);
        let partition =
            message.partition().map(|id| KeyValue::new("messaging.destination.partition.id", id.to_string()));
        let span = template.start(telemetry, &parent, links, partition);
        let context = if span.span_context().is_valid() { parent.with_span(span) } else { parent };
        Self { context, open: true }
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
        let span = self.context.span();
        span.set_attribute(KeyValue::new("error.type", error_type));
        span.set_status(Status::error(description));
    }

    /// Ends the span after settling.
    pub(crate) fn finish(mut self, settlement: &'static str) {
        self.open = false;
        let span = self.context.span();
        span.set_attribute(KeyValue::new(SETTLEMENT, settlement));
        span.end();
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

/// The parent and the links of a process span (messaging conventions, "Trace structure").
///
/// The creation context stays a link even when it is the parent. The context that happens to be current where the message is
/// processed, such as a span around the receiving loop, is never the parent: unrelated messages would share its trace.
fn correlate(policy: TracePolicy, creation: &Context, ambient: &Context) -> (Context, Vec<Link>) {
    let created = creation.span().span_context().clone();
    let around = ambient.span().span_context().clone();
    let mut links = Vec::new();
    if created.is_valid() && policy != TracePolicy::Ignore {
        links.push(Link::with_context(created));
    }
    if around.is_valid() {
        links.push(Link::with_context(around));
    }
    let parent = match policy {
        TracePolicy::Parent => creation.clone(),
        TracePolicy::Link | TracePolicy::Ignore => Context::new(),
    };
    (parent, links)
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
