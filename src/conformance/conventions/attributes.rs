//! Every attribute that a span of this library may have.

use super::{ALL, CONSUMING, CREATE, JOB, NAMESPACES, Operations, PROCESS, RECEIVE, SEND, SETTLE, TRANSFER, Type};
use crate::dialect::Dialect;
use crate::w3c::Malformed;
use crate::{job, metrics, span};

/// An attribute, and where it belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute {
    pub(super) name: &'static str,
    pub(super) kind: Type,
    /// The operations whose spans may have it.
    pub(super) on: Operations,
    /// The operations whose spans must have it.
    pub(super) required: Operations,
    /// The operations whose spans must have it if they are about a single message that is settled with the broker.
    pub(super) settled: Operations,
    /// The only system that has it, where it is one's own.
    pub(super) system: Option<&'static str>,
    /// The only values it may have, where they are few.
    pub(super) values: &'static [&'static str],
    /// The operations whose spans begin with it if they have it, since samplers decide by it (`sampling_relevant` in the conventions).
    pub(super) at_start: Operations,
    /// It is about one message, and so not on the span of a batch.
    pub(super) single: bool,
    /// It is in our own registry and not in the conventions.
    #[cfg_attr(not(test), expect(dead_code, reason = "the registry is compared by tests"))]
    pub(super) ours: bool,
}

const fn attribute(name: &'static str, kind: Type) -> Attribute {
    Attribute {
        name,
        kind,
        on: ALL,
        required: 0,
        settled: 0,
        system: None,
        values: &[],
        at_start: 0,
        single: false,
        ours: false,
    }
}

/// One of our own registry.
const fn ours(name: &'static str, kind: Type) -> Attribute {
    Attribute { ours: true, ..attribute(name, kind) }
}

impl Attribute {
    const fn on(self, on: Operations) -> Self {
        Self { on, ..self }
    }

    const fn required(self) -> Self {
        Self { required: self.on, ..self }
    }

    const fn required_if_settled(self, settled: Operations) -> Self {
        Self { settled, ..self }
    }

    const fn of(self, system: &'static str) -> Self {
        Self { system: Some(system), ..self }
    }

    const fn one_of(self, values: &'static [&'static str]) -> Self {
        Self { values, ..self }
    }

    const fn at_start(self) -> Self {
        Self { at_start: self.on, ..self }
    }

    const fn at_start_of(self, at_start: Operations) -> Self {
        Self { at_start, ..self }
    }

    const fn single(self) -> Self {
        Self { single: true, ..self }
    }

    /// The attribute of that name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        ATTRIBUTES.iter().find(|attribute| attribute.name == name)
    }
}

/// Whether the tables speak of attributes with such names.
pub(super) fn is_governed(name: &str) -> bool {
    NAMESPACES.iter().any(|namespace| name.starts_with(namespace))
}

/// What went wrong: the names of [`ErrorKind`](crate::ErrorKind), and those of what befalls handlers and jobs.
const ERRORS: &[&str] = &[
    "busy",
    "cancelled",
    "closed",
    "conflict",
    "feature_disabled",
    "handler_error",
    "invalid_config",
    "invalid_message",
    "job_error",
    "not_found",
    "panic",
    "permission_denied",
    "rejected",
    "settlement_lost",
    "timeout",
    "too_large",
    "unauthenticated",
    "unavailable",
    "unexpected",
    "unsupported",
];

/// The forms of other systems that a context may be read from.
const DIALECTS: &[&str] = &[
    Dialect::CloudEvents.as_str(),
    Dialect::MassTransit.as_str(),
    Dialect::Wolverine.as_str(),
    Dialect::NatsServer.as_str(),
    Dialect::B3.as_str(),
    Dialect::Jaeger.as_str(),
    Dialect::Azure.as_str(),
    Dialect::Watermill.as_str(),
    Dialect::Dapr.as_str(),
    Dialect::FastStream.as_str(),
];

/// Why a header was not used: what the codec finds, and what only the layers around it can know.
const REASONS: &[&str] = &[
    Malformed::Length.as_str(),
    Malformed::Version.as_str(),
    Malformed::Delimiter.as_str(),
    Malformed::Character.as_str(),
    Malformed::ZeroTraceId.as_str(),
    Malformed::ZeroSpanId.as_str(),
    Malformed::Conflicting.as_str(),
    Malformed::Orphaned.as_str(),
    Malformed::TooLong.as_str(),
    Malformed::TooManyMembers.as_str(),
    Malformed::Member.as_str(),
    Malformed::Key.as_str(),
    Malformed::Value.as_str(),
    "unrecognized",
    "unreadable",
];

use Type::{Double, Flag, Integer, Text};

/// All of them.
pub(super) const ATTRIBUTES: &[Attribute] = &[
    // Of every system.
    attribute("messaging.system", Text).required().at_start(),
    attribute("messaging.operation.name", Text)
        .required()
        .at_start()
        .one_of(&["create", "send", "receive", "process", "ack", "retry", "reject", "discard"]),
    attribute("messaging.operation.type", Text)
        .required()
        .at_start()
        .one_of(&["create", "send", "receive", "process", "settle"]),
    attribute("messaging.destination.name", Text).required().at_start(),
    attribute("messaging.destination.template", Text).at_start(),
    // Of what is sent it is known only when the broker has answered.
    attribute("messaging.destination.partition.id", Text).at_start_of(PROCESS),
    attribute("messaging.destination.anonymous", Flag).one_of(&["true"]),
    attribute("messaging.destination.temporary", Flag).one_of(&["true"]),
    attribute("messaging.consumer.group.name", Text).on(CONSUMING).at_start(),
    attribute("messaging.client.id", Text).on(ALL & !CREATE),
    attribute("messaging.batch.message_count", Integer).on(TRANSFER | CONSUMING),
    attribute("messaging.message.id", Text).single(),
    attribute("messaging.message.conversation_id", Text).single(),
    attribute("messaging.message.body.size", Integer).on(ALL & !SETTLE).single(),
    attribute("messaging.message.envelope.size", Integer).on(ALL & !SETTLE).single(),
    attribute("server.address", Text).at_start(),
    attribute("server.port", Integer).at_start(),
    attribute("network.peer.address", Text).on(ALL & !CREATE & !PROCESS),
    attribute("network.peer.port", Integer).on(ALL & !CREATE & !PROCESS),
    attribute("error.type", Text).on(ALL | JOB).one_of(ERRORS),
    // Of Kafka.
    attribute("messaging.kafka.message.key", Text).of("kafka").single(),
    attribute("messaging.kafka.message.tombstone", Flag).of("kafka").one_of(&["true"]).single(),
    attribute("messaging.kafka.offset", Integer).of("kafka").required_if_settled(PROCESS | SETTLE).single(),
    // Of RabbitMQ.
    attribute("messaging.rabbitmq.destination.routing_key", Text).of("rabbitmq"),
    attribute("messaging.rabbitmq.message.delivery_tag", Integer)
        .on(CONSUMING)
        .of("rabbitmq")
        .required_if_settled(PROCESS | SETTLE)
        .single(),
    // Of the systems for which there are no conventions.
    ours("messaging.nats.stream", Text).of("nats"),
    ours("messaging.nats.consumer", Text).on(CONSUMING).of("nats"),
    ours("messaging.nats.message.stream_sequence", Integer).of("nats").required_if_settled(PROCESS | SETTLE).single(),
    ours("messaging.nats.message.consumer_sequence", Integer).on(CONSUMING).of("nats").single(),
    ours("messaging.redis.consumer.name", Text).on(CONSUMING).of("redis"),
    ours("messaging.redis.entry.id", Text).on(CONSUMING).of("redis").required_if_settled(PROCESS | SETTLE).single(),
    ours("messaging.memory.sequence", Integer)
        .on(CONSUMING)
        .of("memory")
        .required_if_settled(PROCESS | SETTLE)
        .single(),
    // Of this library.
    ours(span::DELIVERY_ATTEMPT, Integer).on(RECEIVE | PROCESS).required_if_settled(PROCESS).single(),
    ours(span::SETTLEMENT, Text).on(PROCESS).one_of(&["ack", "retry", "reject", "none", "mixed"]),
    ours(span::QUEUE_DURATION, Double).on(RECEIVE | PROCESS).single(),
    ours(span::QUEUE_CLOCK, Text).on(RECEIVE | PROCESS).one_of(&["broker", "producer"]).single(),
    ours(span::QUEUE_IS_SKEWED, Flag).on(RECEIVE | PROCESS).one_of(&["true"]).single(),
    ours(span::HOP, Text)
        .on(SEND | TRANSFER | CREATE | PROCESS)
        .one_of(&["delayed", "scheduled", "dead_letter", "replay", "bridge"])
        .at_start(),
    ours(span::CONTEXT_POLICY, Text).on(PROCESS).one_of(&["link", "ignore"]).at_start().single(),
    ours(span::CONTEXT_DIALECT, Text).on(PROCESS).one_of(DIALECTS).at_start().single(),
    // Of jobs, and of the links of their spans.
    ours(job::JOB_NAME, Text).on(JOB).required().at_start(),
    ours(job::JOB_TRIGGER, Text).on(JOB).at_start(),
    ours(job::JOB_TYPE, Text).on(JOB).at_start(),
    ours(job::REFERENCE_AGE, Double).on(0),
    ours(job::REFERENCE_NOTE, Text).on(0),
    // Of metrics alone.
    ours(metrics::CONTEXT_HEADER, Text).on(0).one_of(&["traceparent", "tracestate", "baggage", "other"]),
    ours(metrics::CONTEXT_REASON, Text).on(0).one_of(REASONS),
];
