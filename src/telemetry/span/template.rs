//! The common part of the spans and measurements of one operation at one destination.

use crate::names::attribute;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanBuilder};

use crate::driver::{AttributeValue, Destination, Disposition, Identity};
use crate::message::temporary_template;
use crate::telemetry::intern::intern;
use crate::telemetry::metrics::MetricAttributes;
use crate::telemetry::span::{Operation, otel};

/// The template of an operation's spans, created once per destination, so that a message only
/// copies pointers.
#[derive(Debug)]
pub(crate) struct SpanTemplate {
    pub(super) operation: Operation,
    name: Cow<'static, str>,
    attributes: Vec<KeyValue>,
    pub(super) key_attribute: Option<&'static str>,
    pub(super) offset_attribute: Option<&'static str>,
    /// The attributes of the operation's duration.
    pub(super) timed: MetricAttributes,
    /// The attributes of counts of messages.
    pub(crate) counted: MetricAttributes,
}

impl SpanTemplate {
    pub(crate) fn new(
        operation: Operation,
        identity: &Identity,
        topic: &Arc<str>,
        destination: &Destination,
        group: Option<&str>,
    ) -> Self {
        // One topic per process or request: its name is too rare for a span's name or a metric.
        let temporary = temporary_template(topic);
        let shown: Arc<str> = temporary.as_deref().map_or_else(|| Arc::clone(topic), Arc::from);
        let native = destination.name.as_ref().filter(|name| *name != topic && temporary.is_none());
        let text = |key: &'static str, value: &str| KeyValue::new(key, intern(value));
        let system = KeyValue::new(attribute::SYSTEM, identity.system);
        let name = KeyValue::new(attribute::OPERATION_NAME, operation.name());
        let kind = KeyValue::new(attribute::OPERATION_TYPE, operation.kind_of_operation());
        let place = [
            temporary.is_none().then(|| text(attribute::DESTINATION_NAME, native.unwrap_or(topic))),
            // The span keeps the name of the topic, which users look for on every broker.
            native.or(temporary.is_some().then_some(topic)).map(|_| text(attribute::DESTINATION_TEMPLATE, &shown)),
            identity.server_address.as_deref().map(|host| text(attribute::SERVER_ADDRESS, host)),
            identity.server_port.map(|port| KeyValue::new(attribute::SERVER_PORT, i64::from(port))),
        ];
        let place = place.into_iter().flatten();
        let group = group.map(|group| text(attribute::CONSUMER_GROUP_NAME, group));
        let client = identity.client_id.as_deref().filter(|_| operation != Operation::Create);
        let client = client.map(|id| text(attribute::CLIENT_ID, id));
        let native = destination.attributes.iter().map(|(key, value)| KeyValue::new(*key, interned(value)));

        let counted: Vec<KeyValue> = [system, name].into_iter().chain(place).chain(group).collect();
        let timed: Vec<KeyValue> = counted.iter().cloned().chain([kind]).collect();
        let is_marked = destination.attributes.iter().any(|(key, _)| *key == attribute::DESTINATION_TEMPORARY);
        let named = temporary.iter().flat_map(|_| {
            let mark = (!is_marked).then(|| KeyValue::new(attribute::DESTINATION_TEMPORARY, true));
            [Some(KeyValue::new(attribute::DESTINATION_NAME, topic.to_string())), mark].into_iter().flatten()
        });
        let attributes = timed.iter().cloned().chain(named).chain(client).chain(native).collect();
        // Only the duration of a call to the broker has the operation type.
        let timed = if operation == Operation::Process { counted.clone() } else { timed };
        Self {
            operation,
            name: intern(&format!("{} {shown}", operation.name())),
            attributes,
            key_attribute: identity.key_attribute,
            offset_attribute: identity.offset_attribute,
            timed: MetricAttributes::new(timed),
            counted: MetricAttributes::new(counted),
        }
    }

    /// Returns the builder of a span, with all attributes that a sampler may need.
    pub(super) fn builder(
        &self,
        links: Vec<Link>,
        extra: impl IntoIterator<Item = KeyValue>,
        started: Option<SystemTime>,
    ) -> SpanBuilder {
        // One allocation, with room for the attributes that are set later.
        let mut attributes = Vec::with_capacity(self.attributes.len() + 8);
        attributes.extend_from_slice(&self.attributes);
        attributes.extend(extra);
        SpanBuilder {
            span_kind: Some(self.operation.span_kind()),
            attributes: Some(attributes),
            links: (!links.is_empty()).then_some(links),
            start_time: started,
            ..SpanBuilder::from_name(self.name.clone())
        }
    }
}

impl AsRef<Self> for SpanTemplate {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// The templates, one for each way to settle.
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

    pub(super) fn of(&self, disposition: Disposition) -> &SpanTemplate {
        match disposition {
            Disposition::Ack => &self.ack,
            Disposition::Retry(_) | Disposition::GiveBack => &self.retry,
            Disposition::Discard => &self.reject,
        }
    }
}

fn interned(value: &AttributeValue) -> opentelemetry::Value {
    match value {
        AttributeValue::Text(text) => intern(text).into(),
        other => otel(other.clone()),
    }
}
