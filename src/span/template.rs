//! What the spans and measurements of one operation at one destination have in common.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanBuilder};

use super::{Operation, otel};
use crate::driver::{AttributeValue, Destination, Identity};
use crate::intern::intern;
use crate::metrics::MetricAttributes;

/// Made once for a destination, so that a message costs copies of pointers.
#[derive(Debug)]
pub(crate) struct SpanTemplate {
    pub(super) operation: Operation,
    name: Cow<'static, str>,
    attributes: Vec<KeyValue>,
    pub(super) key_attribute: Option<&'static str>,
    pub(super) offset_attribute: Option<&'static str>,
    /// Of the duration of the operation.
    pub(super) timed: MetricAttributes,
    /// Of counts of messages.
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
        let native = destination.name.as_ref().filter(|name| *name != topic);
        let text = |key: &'static str, value: &str| KeyValue::new(key, intern(value));
        let system = KeyValue::new("messaging.system", identity.system);
        let name = KeyValue::new("messaging.operation.name", operation.name());
        let kind = KeyValue::new("messaging.operation.type", operation.kind_of_operation());
        let place = [
            Some(text("messaging.destination.name", native.unwrap_or(topic))),
            // The name of the span stays the topic's, which is what people look for on every broker.
            native.map(|_| text("messaging.destination.template", topic)),
            identity.server_address.as_deref().map(|host| text("server.address", host)),
            identity.server_port.map(|port| KeyValue::new("server.port", i64::from(port))),
        ];
        let place = place.into_iter().flatten();
        let group = group.map(|group| text("messaging.consumer.group.name", group));
        let client = identity.client_id.as_deref().filter(|_| operation != Operation::Create);
        let client = client.map(|id| text("messaging.client.id", id));
        let native = destination.attributes.iter().map(|(key, value)| KeyValue::new(*key, interned(value)));

        let counted: Vec<KeyValue> = [system, name].into_iter().chain(place).chain(group).collect();
        let timed: Vec<KeyValue> = counted.iter().cloned().chain([kind]).collect();
        let attributes = timed.iter().cloned().chain(client).chain(native).collect();
        // Only the duration of a call to the broker says of which type it was.
        let timed = if operation == Operation::Process { counted.clone() } else { timed };
        Self {
            operation,
            name: intern(&format!("{} {topic}", operation.name())),
            attributes,
            key_attribute: identity.key_attribute,
            offset_attribute: identity.offset_attribute,
            timed: MetricAttributes::new(timed),
            counted: MetricAttributes::new(counted),
        }
    }

    /// What a span is begun with: all that a sampler may want to know.
    pub(super) fn builder(
        &self,
        links: Vec<Link>,
        extra: impl IntoIterator<Item = KeyValue>,
        started: Option<SystemTime>,
    ) -> SpanBuilder {
        // One allocation with room for what is set later.
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

fn interned(value: &AttributeValue) -> opentelemetry::Value {
    match value {
        AttributeValue::Text(text) => intern(text).into(),
        other => otel(other.clone()),
    }
}
