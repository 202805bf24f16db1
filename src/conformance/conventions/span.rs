//! The check of one exported span against the tables.

use crate::names::attribute;
use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

use super::attributes::{ATTRIBUTES, Attribute, is_governed};
use crate::conformance::conventions::{CREATE, JOB, Operations, PROCESS, RECEIVE, SEND, SETTLE, TRANSFER};
use crate::driver::Identity;
use crate::names::SCHEMA_URL;

/// The facts that a span is checked against, in addition to the tables.
#[derive(Debug)]
pub(in crate::conformance) struct Surroundings<'a> {
    /// The identity that the driver reports.
    pub(in crate::conformance) identity: &'a Identity,
    /// Attributes that the adapter under test adds to the tables.
    pub(in crate::conformance) own: &'a [&'a str],
    /// The spans of batches, whose children may hold links that do not fit on the batch span.
    pub(in crate::conformance) batches: &'a [SpanId],
}

/// Returns a description of each violation; empty for a span that is not this library's.
pub(in crate::conformance) fn check_span(span: &SpanData, surroundings: &Surroundings<'_>) -> Vec<String> {
    let scope = &span.instrumentation_scope;
    if scope.name() != env!("CARGO_PKG_NAME") {
        return Vec::new();
    }
    let mut found = Found { span, surroundings, complaints: Vec::new() };
    found.require(scope.version() == Some(env!("CARGO_PKG_VERSION")), "the scope has the version of the library");
    found.require(scope.schema_url() == Some(SCHEMA_URL), "the scope names the version of the conventions");
    match operation(span) {
        Some(operation) => found.check(operation),
        None => found.complain("the kind and messaging.operation.type fit each other"),
    }
    found.complaints
}

/// Returns the operation according to the span's kind and operation type.
pub(super) fn operation(span: &SpanData) -> Option<Operations> {
    Some(match (text(span, "messaging.operation.type"), &span.span_kind) {
        ("create", SpanKind::Producer) => CREATE,
        ("send", SpanKind::Producer) => SEND,
        ("send", SpanKind::Client) => TRANSFER,
        ("receive", SpanKind::Client) => RECEIVE,
        ("process", SpanKind::Consumer) => PROCESS,
        ("settle", SpanKind::Client) => SETTLE,
        ("", SpanKind::Internal) => JOB,
        _ => return None,
    })
}

/// The findings about one span.
struct Found<'a> {
    span: &'a SpanData,
    surroundings: &'a Surroundings<'a>,
    complaints: Vec<String>,
}

impl Found<'_> {
    fn complain(&mut self, required: &str) {
        self.complaints.push(format!("{} ({:?}): {required}", self.span.name, self.span.span_kind));
    }

    fn require(&mut self, holds: bool, required: &str) {
        if !holds {
            self.complain(required);
        }
    }

    fn check(&mut self, operation: Operations) {
        for pair in &self.span.attributes {
            self.check_attribute(pair, operation);
        }
        self.check_presence(operation);
        self.check_name(operation);
        self.check_outcome();
        self.check_links(operation);
        self.require(self.span.start_time <= self.span.end_time, "it begins before it ends");
        self.require(self.span.dropped_attributes_count == 0, "no attribute is dropped");
        self.require(self.span.links.dropped_count == 0, "no link is dropped");
    }

    /// Checks that an attribute is allowed on the span, and that it conforms to the table.
    fn check_attribute(&mut self, pair: &KeyValue, operation: Operations) {
        let (name, value) = (pair.key.as_str(), &pair.value);
        let times = self.span.attributes.iter().filter(|other| other.key == pair.key).count();
        self.require(times == 1, &format!("{name} is there once"));
        if !is_governed(name) || self.surroundings.own.contains(&name) {
            return;
        }
        let Some(known) = Attribute::find(name) else {
            return self.complain(&format!("{name} is in the conventions or in our registry"));
        };
        let system = text(self.span, "messaging.system");
        self.require(known.kind.is_of(value), &format!("{name} is of the type {:?}: {value:?}", known.kind));
        self.require(known.on & operation != 0, &format!("{name} does not belong on it"));
        self.require(known.system.is_none_or(|own| own == system), &format!("{name} does not belong to {system}"));
        self.require(
            !known.single || !self.is_batch(),
            &format!("{name} is about one message, and this is about many"),
        );
        let listed = known.values.is_empty() || known.values.contains(&&*value.as_str());
        self.require(listed, &format!("{name} is one of {:?}: {value}", known.values));
        self.require(*value != Value::from(""), &format!("{name} is not empty"));
    }

    /// Checks that all required attributes are present.
    fn check_presence(&mut self, operation: Operations) {
        let system = text(self.span, "messaging.system");
        let said = ["ack", "retry", "reject"].contains(&text(self.span, attribute::SETTLEMENT));
        let settled = operation == SETTLE || said && !self.is_batch();
        for known in ATTRIBUTES.iter().filter(|known| known.system.is_none_or(|own| own == system)) {
            let required = known.required | if settled { known.settled } else { 0 };
            if required & operation != 0 {
                self.require(self.has(known.name), &format!("{} is there", known.name));
            }
        }
        if operation != JOB {
            self.check_surroundings(operation, system);
        }
        self.require(
            operation != PROCESS || self.has(attribute::SETTLEMENT) || self.holds_links(),
            "it says how it was settled",
        );
        self.require(
            self.has(attribute::QUEUE_DURATION) == self.has(attribute::QUEUE_CLOCK),
            "the time in the queue has a clock",
        );
        let queued = attribute(self.span, attribute::QUEUE_DURATION);
        self.require(!matches!(queued, Some(Value::F64(queued)) if *queued < 0.0), "no time in a queue is negative");
    }

    /// Checks that the span has exactly the attributes that the driver knows about itself.
    fn check_surroundings(&mut self, operation: Operations, system: &str) {
        let identity = self.surroundings.identity;
        let named = identity.client_id.is_some() && operation != CREATE;
        self.require(self.has("messaging.client.id") == named, "messaging.client.id is there if the driver has one");
        self.require(system == identity.system, &format!("the system is {}: {system}", identity.system));
        for (name, known) in
            [("server.address", identity.server_address.is_some()), ("server.port", identity.server_port.is_some())]
        {
            self.require(self.has(name) == known, &format!("{name} is there if the driver knows it"));
        }
    }

    /// Checks that the name consists of the operation and the destination, or its template if there
    /// is one.
    fn check_name(&mut self, operation: Operations) {
        if operation == JOB {
            let own = format!("job {}", text(self.span, attribute::JOB_NAME));
            let more = format!("{own} links");
            return self.require([own, more].contains(&self.span.name.to_string()), "it is called after the job");
        }
        let (name, kind) = (text(self.span, "messaging.operation.name"), text(self.span, "messaging.operation.type"));
        let template = text(self.span, "messaging.destination.template");
        let destination = if template.is_empty() { text(self.span, "messaging.destination.name") } else { template };
        let expected = format!("{name} {destination}");
        self.require(self.span.name == expected, &format!("its name is {expected:?}"));
        self.require(operation == SETTLE || name == kind, &format!("{name} is an operation of the type {kind}"));
    }

    /// Checks that a failure has a status and a type, and a success has neither.
    fn check_outcome(&mut self) {
        let failed = matches!(self.span.status, Status::Error { .. });
        self.require(self.span.status != Status::Ok, "the status Ok is the application's to set");
        self.require(failed == self.has("error.type"), "it has error.type if and only if its status is an error");
    }

    /// Checks that a span that sends messages with contexts links them, and that a received parent
    /// is also a link.
    fn check_links(&mut self, operation: Operations) {
        let mut linked = self.span.links.iter().map(|link| link.span_context.clone());
        match operation {
            TRANSFER => self.require(linked.next().is_some(), "what is sent is linked"),
            PROCESS if self.span.parent_span_is_remote => {
                let parent = self.span.parent_span_id;
                self.require(linked.any(|link| link.span_id() == parent), "the creation context is linked, too");
            }
            _ => {}
        }
        for link in self.span.links.iter() {
            self.require(link.span_context.is_valid(), "each link has a valid context");
            for pair in link.attributes.iter().filter(|pair| is_governed(pair.key.as_str())) {
                let known = Attribute::find(pair.key.as_str()).is_some_and(|known| known.kind.is_of(&pair.value));
                self.require(known, &format!("{} of a link is in the tables, and of its type", pair.key));
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        attribute(self.span, name).is_some()
    }

    fn is_batch(&self) -> bool {
        self.has("messaging.batch.message_count")
    }

    /// Returns `true` if the span exists only for links that do not fit on the span of a batch.
    fn holds_links(&self) -> bool {
        self.surroundings.batches.contains(&self.span.parent_span_id)
    }
}

pub(super) fn attribute<'a>(span: &'a SpanData, name: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|pair| pair.key.as_str() == name).map(|pair| &pair.value)
}

/// Returns the attribute if it is text, otherwise an empty text.
pub(super) fn text<'a>(span: &'a SpanData, name: &str) -> &'a str {
    match attribute(span, name) {
        Some(Value::String(text)) => text.as_str(),
        _ => "",
    }
}
