//! Every attribute that a span of this library may have.

use crate::conformance::conventions::{
    ALL, CONSUMING, CREATE, JOB, NAMESPACES, Operations, PROCESS, RECEIVE, SEND, SETTLE, TRANSFER, Type,
};
use crate::context::dialect::Dialect;
use crate::context::w3c::Malformed;
use crate::names::attribute;

/// The definition of an attribute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute {
    pub(super) name: &'static str,
    pub(super) kind: Type,
    /// The operations whose spans may have it.
    pub(super) on: Operations,
    /// The operations whose spans must have it.
    pub(super) required: Operations,
    /// The operations whose spans must have it if they are about a single message that is settled
    /// with the broker.
    pub(super) settled: Operations,
    /// The only system that has it, if it is specific to one.
    pub(super) system: Option<&'static str>,
    /// The only values it may have; empty if any value is allowed.
    pub(super) values: &'static [&'static str],
    /// The operations whose spans must begin with it if they have it, because samplers use it
    /// (`sampling_relevant` in the conventions).
    pub(super) at_start: Operations,
    /// `true` if it describes a single message, and therefore is not on the span of a batch.
    pub(super) single: bool,
    /// `true` if it is in our own registry and not in the conventions.
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

/// Creates an attribute of our own registry.
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

    /// Returns the attribute of that name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        ATTRIBUTES.iter().find(|attribute| attribute.name == name)
    }
}

/// Returns `true` if the tables govern attributes with such names.
pub(super) fn is_governed(name: &str) -> bool {
    NAMESPACES.iter().any(|namespace| name.starts_with(namespace))
}

/// Error types: the names of [`ErrorKind`](crate::ErrorKind), and those of failures of handlers and
/// jobs.
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

/// The dialects of other systems from which a context may be read.
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

/// Reasons why a header was not used: those of the codec, and those that only the layers around it
/// can detect.
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

/// All attributes.
pub(super) const ATTRIBUTES: &[Attribute] = &[
    // All systems.
    attribute(attribute::SYSTEM, Text).required().at_start(),
    attribute(attribute::OPERATION_NAME, Text)
        .required()
        .at_start()
        .one_of(&["create", "send", "receive", "process", "ack", "retry", "reject", "discard"]),
    attribute(attribute::OPERATION_TYPE, Text)
        .required()
        .at_start()
        .one_of(&["create", "send", "receive", "process", "settle"]),
    attribute(attribute::DESTINATION_NAME, Text).required().at_start(),
    attribute(attribute::DESTINATION_TEMPLATE, Text).at_start(),
    // For a sent message, it is known only once the broker has answered.
    attribute(attribute::DESTINATION_PARTITION_ID, Text).at_start_of(PROCESS),
    attribute(attribute::DESTINATION_ANONYMOUS, Flag).one_of(&["true"]),
    attribute(attribute::DESTINATION_TEMPORARY, Flag).one_of(&["true"]),
    attribute(attribute::CONSUMER_GROUP_NAME, Text).on(CONSUMING).at_start(),
    attribute(attribute::CLIENT_ID, Text).on(ALL & !CREATE),
    attribute(attribute::BATCH_MESSAGE_COUNT, Integer).on(TRANSFER | CONSUMING),
    attribute(attribute::MESSAGE_ID, Text).single(),
    attribute(attribute::CONVERSATION_ID, Text).single(),
    attribute("messaging.message.body.size", Integer).on(ALL & !SETTLE).single(),
    attribute("messaging.message.envelope.size", Integer).on(ALL & !SETTLE).single(),
    attribute(attribute::SERVER_ADDRESS, Text).at_start(),
    attribute(attribute::SERVER_PORT, Integer).at_start(),
    attribute("network.peer.address", Text).on(ALL & !CREATE & !PROCESS),
    attribute("network.peer.port", Integer).on(ALL & !CREATE & !PROCESS),
    attribute(attribute::ERROR_TYPE, Text).on(ALL | JOB).one_of(ERRORS),
    // Kafka.
    attribute(attribute::KAFKA_CLUSTER_ID, Text).of("kafka"),
    attribute(attribute::KAFKA_MESSAGE_KEY, Text).of("kafka").single(),
    attribute(attribute::KAFKA_TOMBSTONE, Flag).of("kafka").one_of(&["true"]).single(),
    attribute(attribute::KAFKA_OFFSET, Integer).of("kafka").required_if_settled(PROCESS | SETTLE).single(),
    // RabbitMQ.
    attribute(attribute::RABBITMQ_ROUTING_KEY, Text).of("rabbitmq"),
    attribute(attribute::RABBITMQ_DELIVERY_TAG, Integer)
        .on(CONSUMING)
        .of("rabbitmq")
        .required_if_settled(PROCESS | SETTLE)
        .single(),
    // Systems without conventions.
    ours(attribute::NATS_STREAM, Text).of("nats"),
    ours(attribute::NATS_CONSUMER, Text).on(CONSUMING).of("nats"),
    ours(attribute::NATS_STREAM_SEQUENCE, Integer).of("nats").required_if_settled(PROCESS | SETTLE).single(),
    ours(attribute::NATS_CONSUMER_SEQUENCE, Integer).on(CONSUMING).of("nats").single(),
    ours(attribute::REDIS_CONSUMER_NAME, Text).on(CONSUMING).of("redis"),
    ours(attribute::REDIS_ENTRY_ID, Text).on(CONSUMING).of("redis").required_if_settled(PROCESS | SETTLE).single(),
    ours(attribute::MEMORY_SEQUENCE, Integer).on(CONSUMING).of("memory").required_if_settled(PROCESS | SETTLE).single(),
    // This library.
    ours(attribute::DELIVERY_ATTEMPT, Integer).on(RECEIVE | PROCESS).required_if_settled(PROCESS).single(),
    ours(attribute::DELIVERY_COUNT, Integer).on(PROCESS).single(),
    ours(attribute::WAIT_DURATION, Double).on(PROCESS).required_if_settled(PROCESS).single(),
    ours(attribute::SETTLEMENT, Text).on(PROCESS).one_of(&["ack", "retry", "reject", "none", "mixed"]),
    ours(attribute::QUEUE_DURATION, Double).on(RECEIVE | PROCESS).single(),
    ours(attribute::QUEUE_CLOCK, Text).on(RECEIVE | PROCESS).one_of(&["broker", "producer"]).single(),
    ours(attribute::QUEUE_IS_SKEWED, Flag).on(RECEIVE | PROCESS).one_of(&["true"]).single(),
    ours(attribute::HOP, Text)
        .on(SEND | TRANSFER | CREATE | PROCESS)
        .one_of(&["delayed", "scheduled", "dead_letter", "replay", "bridge"])
        .at_start(),
    ours(attribute::CONTEXT_POLICY, Text).on(PROCESS).one_of(&["link", "ignore"]).at_start().single(),
    ours(attribute::CONTEXT_DIALECT, Text).on(PROCESS).one_of(DIALECTS).at_start().single(),
    // Jobs, and the links of their spans.
    ours(attribute::JOB_NAME, Text).on(JOB).required().at_start(),
    ours(attribute::JOB_TRIGGER, Text).on(JOB).at_start(),
    ours(attribute::JOB_TYPE, Text).on(JOB).at_start(),
    ours(attribute::REFERENCE_AGE, Double).on(0),
    ours(attribute::REFERENCE_NOTE, Text).on(0),
    // Metrics only.
    ours(attribute::WAITING_REASON, Text).on(0).one_of(&["retry", "lane"]),
    ours(attribute::CONTEXT_HEADER, Text).on(0).one_of(&["traceparent", "tracestate", "baggage", "other"]),
    ours(attribute::CONTEXT_REASON, Text).on(0).one_of(REASONS),
];
