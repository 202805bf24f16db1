//! Every header, attribute and metric that this library writes: its contract on the wire and in
//! telemetry, on one page.
//!
//! Names of the semantic conventions change as the conventions do; see [`SCHEMA_URL`]. The other
//! names are listed in the registry of this library, `docs/registry`, and change only with a new
//! minor version.

/// The version of the semantic conventions that spans and metrics follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Headers of messages. Names are matched in any case.
///
/// ```
/// use traced_broker::Message;
/// use traced_broker::names::header;
///
/// # fn main() -> traced_broker::Result<()> {
/// let message = Message::json(&42)?;
/// assert_eq!(message.headers().get_str(header::CONTENT_TYPE), Some("application/json"));
/// assert_eq!(message.headers().get_str(header::CORRELATION_ID), None);
/// # Ok(()) }
/// ```
pub mod header {
    // W3C Trace Context, W3C Baggage.

    /// The parent span: trace id, span id and flags (Trace Context Level 2, "Traceparent
    /// Header"). Written in lower case, matched in any case.
    pub const TRACEPARENT: &str = "traceparent";
    /// Data of tracing systems (Trace Context Level 2, "Tracestate Header"). Written in
    /// lower case, matched in any case.
    pub const TRACESTATE: &str = "tracestate";
    /// Key-value pairs of the application (Baggage, "Header Name"). Written in lower case,
    /// matched in any case.
    pub const BAGGAGE: &str = "baggage";

    // Messages.

    /// The media type of the payload. Adapters map it to the broker's own property if there
    /// is one.
    pub const CONTENT_TYPE: &str = "content-type";
    /// The encoding of the payload, such as `gzip`. RabbitMQ has a property for it.
    pub const CONTENT_ENCODING: &str = "content-encoding";
    /// The identity of a request, on the request and on its reply. RabbitMQ has a property
    /// for it.
    pub const CORRELATION_ID: &str = "correlation-id";
    /// The topic on which the sender of a request awaits its reply.
    pub const REPLY_TO: &str = "reply-to";
    /// The sender's id of the message, on Kafka and Redis, which have no field for it, and that of
    /// a copy on NATS.
    pub const MESSAGE_ID: &str = "message-id";

    // Hops.

    /// The kind of hop that a message is on, unless it is a direct one: a value of
    /// [`Hop::as_str`](crate::propagation::Hop::as_str).
    pub const TRACE_HOP: &str = "trace-hop";
    /// The relation of the process span to the message's context that the sender asks for: a value
    /// of [`TracePolicy::as_str`](crate::propagation::TracePolicy::as_str).
    pub const TRACE_POLICY: &str = "trace-policy";

    // Dead letters.

    /// The reason for the dead letter, in words: one line of at most 1,024 bytes.
    pub const DEAD_LETTER_REASON: &str = "dead-letter-reason";
    /// The kind of error, which is the `error.type` of the last process span (`panic`, `timeout`,
    /// `invalid_message`, …). Absent if the application rejected the message explicitly.
    pub const DEAD_LETTER_ERROR_TYPE: &str = "dead-letter-error-type";
    /// The original topic of the message.
    pub const DEAD_LETTER_TOPIC: &str = "dead-letter-topic";
    /// The number of attempts to process the message.
    pub const DEAD_LETTER_ATTEMPTS: &str = "dead-letter-attempts";
    /// The original partition of the message, on brokers that have partitions.
    pub const DEAD_LETTER_PARTITION: &str = "dead-letter-partition";
    /// The original offset or sequence number of the message, on brokers that have one.
    pub const DEAD_LETTER_OFFSET: &str = "dead-letter-offset";
    /// The time at which the original message was stored or sent, in milliseconds since 1970.
    /// Absent if the message has no time.
    pub const DEAD_LETTER_TIMESTAMP: &str = "dead-letter-timestamp";
    /// The parts that had to be cut off so that the dead-letter topic takes the message, separated
    /// by commas: `reason` (shortened), `headers` (those that are not of this library), `payload`,
    /// `key`. Absent if the letter is whole.
    pub const DEAD_LETTER_CUT: &str = "dead-letter-cut";
    /// The size in bytes of a payload that was cut off.
    pub const DEAD_LETTER_PAYLOAD_SIZE: &str = "dead-letter-payload-size";

    // Bridges.

    /// The number of bridges that the message has crossed.
    pub const BRIDGE_HOPS: &str = "bridge-hops";
    /// `true` on a message that had no payload at its source, if the target broker does not support
    /// messages without a payload.
    pub const BRIDGE_TOMBSTONE: &str = "bridge-tombstone";
    /// The prefix of a header whose name is reserved at the target of a bridge.
    pub const BRIDGE_RENAMED: &str = "bridged-";
    /// The prefix of a header of a copy whose value the target cannot carry, such as bytes on NATS.
    /// The value is percent-encoded.
    pub const ENCODED: &str = "encoded-";
    /// The redrives that have sent the message back: a random id of each, the oldest first,
    /// separated by commas, at most 16.
    pub const REDRIVEN: &str = "redriven";

    // RabbitMQ and NATS.

    /// The key of the message, on RabbitMQ and NATS, which have no field for it.
    pub const KEY: &str = "message-key";
    /// The key in base64, on NATS, if it is not text that a header can hold.
    pub const KEY_BASE64: &str = "message-key-base64";
    /// The sender's id of a message, on NATS, beside or in place of `Nats-Msg-Id`: the server takes
    /// that from a delayed message, and for a stream of several topics it contains the topic.
    pub const DELAYED_ID: &str = "delayed-message-id";
    /// The time of publishing in milliseconds since 1970, on RabbitMQ. RabbitMQ's timestamp plugin
    /// uses the same name.
    pub const TIMESTAMP_IN_MS: &str = "timestamp_in_ms";
    /// The topic or queue for which a delayed message waits, on RabbitMQ.
    pub const DELAYED_FOR: &str = "delayed-for";
    /// The number of attempts before the message was put back for a later retry, on RabbitMQ.
    pub const PRIOR_ATTEMPTS: &str = "prior-attempts";
    /// The property `type` of a message on RabbitMQ.
    pub const AMQP_TYPE: &str = "amqp-type";
    /// The property `app-id` of a message on RabbitMQ.
    pub const AMQP_APP_ID: &str = "amqp-app-id";
    /// The property `reply-to` of a message on RabbitMQ, which names a queue.
    pub const AMQP_REPLY_TO: &str = "amqp-reply-to";
    /// The property `priority` of a message on RabbitMQ, 0 to 255.
    pub const AMQP_PRIORITY: &str = "amqp-priority";
    /// The property `expiration` of a message on RabbitMQ, in milliseconds. Dead letters and
    /// delayed messages keep it as a header, so that they do not expire.
    pub const AMQP_EXPIRATION: &str = "amqp-expiration";
    /// The routing key of a message on RabbitMQ, unless it is empty or the message's key. Dead
    /// letters keep it as a header.
    pub const AMQP_ROUTING_KEY: &str = "amqp-routing-key";
    /// The number of deliveries of the message before it was copied, on RabbitMQ.
    pub const PRIOR_DELIVERIES: &str = "prior-deliveries";
    /// The routing key of a message that was copied straight to its queue, on RabbitMQ.
    pub const RETRY_ROUTING_KEY: &str = "retry-routing-key";
    /// The number of a publish, on RabbitMQ, by which a message is known that the broker returns
    /// because no queue takes it.
    pub const PUBLISH_NUMBER: &str = "publish-number";

    // Redis Streams.

    /// The field of an entry that holds the payload.
    pub const REDIS_PAYLOAD: &str = "payload";
    /// The field of an entry that holds the key.
    pub const REDIS_KEY: &str = "key";
    /// The prefix of a header that could be mistaken for another field: a header named `payload` or
    /// `key`, or one whose name begins with this prefix.
    pub const REDIS_ESCAPE: &str = "header:";

    /// Every header that dead-lettering sets.
    pub const DEAD_LETTER: [&str; 9] = [
        DEAD_LETTER_REASON,
        DEAD_LETTER_ERROR_TYPE,
        DEAD_LETTER_TOPIC,
        DEAD_LETTER_ATTEMPTS,
        DEAD_LETTER_PARTITION,
        DEAD_LETTER_OFFSET,
        DEAD_LETTER_TIMESTAMP,
        DEAD_LETTER_CUT,
        DEAD_LETTER_PAYLOAD_SIZE,
    ];

    /// The digits of a delay, lowest first. RabbitMQ routes a waiting message to its next queue by
    /// these headers.
    pub const DELAY_DIGITS: [&str; 7] = ["delay-0", "delay-1", "delay-2", "delay-3", "delay-4", "delay-5", "delay-6"];
}

/// Attributes of spans, links and metrics.
///
/// ```
/// use traced_broker::names::attribute;
///
/// assert_eq!(attribute::QUEUE_DURATION, "traced_broker.queue.duration");
/// ```
pub mod attribute {
    // Messaging conventions (semantic conventions 1.44, "Messaging spans").

    /// The messaging system: `kafka`, `rabbitmq`, `nats`, `redis` or `memory`.
    pub const SYSTEM: &str = "messaging.system";
    /// The operation: `create`, `send`, `process`, `ack`, `retry` or `reject`.
    pub const OPERATION_NAME: &str = "messaging.operation.name";
    /// The type of the operation: `create`, `send`, `process` or `settle`.
    pub const OPERATION_TYPE: &str = "messaging.operation.type";
    /// The native name of the destination.
    pub const DESTINATION_NAME: &str = "messaging.destination.name";
    /// The topic, if the native name of the destination differs from it.
    pub const DESTINATION_TEMPLATE: &str = "messaging.destination.template";
    /// The partition, as text.
    pub const DESTINATION_PARTITION_ID: &str = "messaging.destination.partition.id";
    /// `true` if the destination is anonymous.
    pub const DESTINATION_ANONYMOUS: &str = "messaging.destination.anonymous";
    /// `true` if the destination ends with its subscription.
    pub const DESTINATION_TEMPORARY: &str = "messaging.destination.temporary";
    /// The consumer group.
    pub const CONSUMER_GROUP_NAME: &str = "messaging.consumer.group.name";
    /// The name by which the client identifies itself to the broker.
    pub const CLIENT_ID: &str = "messaging.client.id";
    /// The number of messages in a batch.
    pub const BATCH_MESSAGE_COUNT: &str = "messaging.batch.message_count";
    /// The message id: the sender's if there is one, otherwise the broker's.
    pub const MESSAGE_ID: &str = "messaging.message.id";
    /// The value of the header [`CORRELATION_ID`](super::header::CORRELATION_ID).
    pub const CONVERSATION_ID: &str = "messaging.message.conversation_id";
    /// The host of the broker, without credentials.
    pub const SERVER_ADDRESS: &str = "server.address";
    /// The port of the broker.
    pub const SERVER_PORT: &str = "server.port";
    /// The kind of error: [`ErrorKind::as_str`](crate::ErrorKind::as_str), `handler_error`,
    /// `job_error`, `panic` or `cancelled`.
    pub const ERROR_TYPE: &str = "error.type";
    /// The id of the cluster on Kafka, which stays when the addresses of its servers change.
    pub const KAFKA_CLUSTER_ID: &str = "messaging.kafka.cluster.id";
    /// The key of a message on Kafka.
    pub const KAFKA_MESSAGE_KEY: &str = "messaging.kafka.message.key";
    /// The offset of a message on Kafka.
    pub const KAFKA_OFFSET: &str = "messaging.kafka.offset";
    /// `true` for a message without a payload on Kafka.
    pub const KAFKA_TOMBSTONE: &str = "messaging.kafka.message.tombstone";
    /// The routing key of a message on RabbitMQ.
    pub const RABBITMQ_ROUTING_KEY: &str = "messaging.rabbitmq.destination.routing_key";
    /// The delivery tag of a message on RabbitMQ.
    pub const RABBITMQ_DELIVERY_TAG: &str = "messaging.rabbitmq.message.delivery_tag";

    // Brokers without conventions (`docs/registry/attributes.yaml`).

    /// The JetStream stream.
    pub const NATS_STREAM: &str = "messaging.nats.stream";
    /// The JetStream consumer.
    pub const NATS_CONSUMER: &str = "messaging.nats.consumer";
    /// The sequence number of the message in its stream.
    pub const NATS_STREAM_SEQUENCE: &str = "messaging.nats.message.stream_sequence";
    /// The sequence number of the delivery at its consumer.
    pub const NATS_CONSUMER_SEQUENCE: &str = "messaging.nats.message.consumer_sequence";
    /// The name of the consumer in its group.
    pub const REDIS_CONSUMER_NAME: &str = "messaging.redis.consumer.name";
    /// The id of the entry in its stream.
    pub const REDIS_ENTRY_ID: &str = "messaging.redis.entry.id";
    /// The sequence number of the message in its topic.
    pub const MEMORY_SEQUENCE: &str = "messaging.memory.sequence";

    // This library (`docs/registry/attributes.yaml`).

    /// Seconds from the [timestamp](crate::driver::Timestamp) of the message until it was
    /// handed out, never negative. On process spans.
    pub const QUEUE_DURATION: &str = "traced_broker.queue.duration";
    /// The clock from which the queue duration starts: `broker` or `producer`. On process
    /// spans and queue metrics.
    pub const QUEUE_CLOCK: &str = "traced_broker.queue.clock";
    /// `true` if the timestamp lies in the future, so that the queue duration is 0; absent
    /// otherwise. On process spans.
    pub const QUEUE_IS_SKEWED: &str = "traced_broker.queue.is_skewed";
    /// The attempt number of the delivery, from 1. On process spans.
    pub const DELIVERY_ATTEMPT: &str = "traced_broker.delivery.attempt";
    /// The number of times that the broker has handed the message out to the group, from 1; absent
    /// on brokers that do not count. On process spans.
    pub const DELIVERY_COUNT: &str = "traced_broker.delivery.count";
    /// Seconds from the hand-out of the message until its handler began: the wait in this
    /// process. On process spans; also the name of a metric.
    pub const WAIT_DURATION: &str = "traced_broker.wait.duration";
    /// The reason why messages wait in the consumer's process: `retry` for their next attempt,
    /// `lane` behind an earlier message of their key. On [`WAITING`](super::metric::WAITING).
    pub const WAITING_REASON: &str = "traced_broker.waiting.reason";
    /// The settlement of the delivery: `ack`, `retry`, `reject` or `none`; `mixed` for a
    /// batch whose messages were settled in different ways. On process spans.
    pub const SETTLEMENT: &str = "traced_broker.settlement";
    /// The [kind of hop](crate::propagation::Hop), unless it is a direct one. On send and
    /// process spans and on queue metrics.
    pub const HOP: &str = "traced_broker.hop";
    /// The relation of the span to the creation context: `link` or `ignore`; absent for a
    /// child. On process spans.
    pub const CONTEXT_POLICY: &str = "traced_broker.context.policy";
    /// The [dialect](crate::dialect) of another system from which the context was read;
    /// absent for the usual headers. On process spans.
    pub const CONTEXT_DIALECT: &str = "traced_broker.context.dialect";
    /// The rejected header: `traceparent`, `tracestate`, `baggage`, or `other` for every
    /// other header. On [`CONTEXT_REJECTED`](super::metric::CONTEXT_REJECTED).
    pub const CONTEXT_HEADER: &str = "traced_broker.context.header";
    /// The reason of a rejection: a name of [`Malformed`](crate::w3c::Malformed), `member`
    /// for parts of a list that were left out, `unrecognized` for headers that the user's
    /// propagator could not read, `unreadable` for headers that could not be represented.
    /// On [`CONTEXT_REJECTED`](super::metric::CONTEXT_REJECTED).
    pub const CONTEXT_REASON: &str = "traced_broker.context.reason";

    // Jobs (`docs/registry/attributes.yaml`).

    /// The name of the job. On job spans.
    pub const JOB_NAME: &str = "job.name";
    /// The trigger of the job, as set by the application. On job spans.
    pub const JOB_TRIGGER: &str = "job.trigger";
    /// The type of the job, as set by the application. On job spans.
    pub const JOB_TYPE: &str = "job.type";
    /// Seconds from the [creation](crate::TraceReference::made_at) of a reference until the job
    /// ran. On the links of job spans.
    pub const REFERENCE_AGE: &str = "job.reference.age";
    /// The [note](crate::TraceReference::note) of a reference. On the links of job spans.
    pub const REFERENCE_NOTE: &str = "job.reference.note";
}

/// Events, written as logs through the crate `tracing`.
///
/// ```
/// use traced_broker::names::event;
/// use tracing_subscriber::EnvFilter;
///
/// // All logs of the library but the failures of handlers.
/// let filter = EnvFilter::new(format!("info,{}=off", event::TARGET));
/// # drop(filter);
/// ```
pub mod event {
    /// The target of events, by which they can be filtered apart from the library's other logs.
    pub const TARGET: &str = "traced_broker::exception";
    /// The failure of a handler, with `exception.type` and `exception.message`, at level error
    /// (semantic conventions, "Messaging process exception").
    pub const PROCESS_EXCEPTION: &str = "messaging.process.exception";
}

/// Metrics.
///
/// | name | instrument, unit | counts |
/// |---|---|---|
/// | `messaging.client.operation.duration` | histogram, s | each send and each settlement, until the broker answered |
/// | `messaging.process.duration` | histogram, s | each message or batch given to a handler, until it was settled |
/// | `messaging.client.sent.messages` | counter, {message} | each message to be sent; failures have an `error.type` |
/// | `messaging.client.consumed.messages` | counter, {message} | each delivery handed to the application |
/// | `traced_broker.queue.duration` | histogram, s | each delivery with a timestamp: its time in the queue |
/// | `traced_broker.wait.duration` | histogram, s | each attempt: the wait in this process before it |
/// | `traced_broker.waiting.messages` | up-down counter, {message} | messages that wait in this process now, by reason |
/// | `traced_broker.queue.skewed` | counter, {message} | deliveries whose timestamp lies in the future; their time in the queue counts as zero |
/// | `traced_broker.context.rejected` | counter, {header} | headers whose context was not used |
/// | `traced_broker.message.discarded` | counter, {message} | messages that were rejected without a dead-letter topic |
///
/// They are recorded through the global meter provider, or through [the one that was
/// set](crate::Traced::with_meter_provider). Without a provider, nothing is recorded. Durations
/// equal those of the spans, to the nanosecond.
///
/// ```
/// use traced_broker::names::metric;
///
/// let names: Vec<&str> = metric::ALL.iter().map(|metric| metric.name).collect();
/// assert!(names.contains(&"traced_broker.queue.duration"));
/// assert_eq!(metric::QUEUE_SKEWED.unit, "{message}");
/// ```
pub mod metric {
    /// The definition of a metric.
    #[derive(Debug, Clone, Copy, PartialEq)]
    #[non_exhaustive]
    pub struct Metric {
        /// The name.
        pub name: &'static str,
        /// The instrument: `histogram`, `counter` or `updowncounter`.
        pub instrument: &'static str,
        /// The unit, in the notation of UCUM.
        pub unit: &'static str,
        /// The description, as exported.
        pub description: &'static str,
        /// The bucket boundaries of a histogram in the metric's unit; empty for other instruments.
        pub buckets: &'static [f64],
    }

    impl Metric {
        const fn seconds(name: &'static str, description: &'static str, buckets: &'static [f64]) -> Self {
            Self { name, instrument: "histogram", unit: "s", description, buckets }
        }

        const fn counter(name: &'static str, unit: &'static str, description: &'static str) -> Self {
            Self { name, instrument: "counter", unit, description, buckets: &[] }
        }
    }

    /// The buckets that the conventions recommend for durations, in seconds.
    pub const DURATION_BUCKETS: [f64; 14] =
        [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

    /// The buckets of the time in the queue, in seconds: those for durations, extended to one week,
    /// because messages may wait for their consumer over a weekend.
    pub const QUEUE_BUCKETS: [f64; 20] = [
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 600.0, 3_600.0,
        86_400.0, 604_800.0,
    ];

    /// Duration of sends and settlements. (Semantic conventions.)
    pub const OPERATION_DURATION: Metric = Metric::seconds(
        "messaging.client.operation.duration",
        "Duration of messaging operations of the client, from the call to the broker's answer.",
        &DURATION_BUCKETS,
    );
    /// Duration of processing. (Semantic conventions.)
    pub const PROCESS_DURATION: Metric = Metric::seconds(
        "messaging.process.duration",
        "Duration of processing, from handing out to settlement.",
        &DURATION_BUCKETS,
    );
    /// Messages to be sent. (Semantic conventions.)
    pub const SENT_MESSAGES: Metric =
        Metric::counter("messaging.client.sent.messages", "{message}", "Messages that were to be sent to the broker.");
    /// Messages handed to the application. (Semantic conventions.)
    pub const CONSUMED_MESSAGES: Metric = Metric::counter(
        "messaging.client.consumed.messages",
        "{message}",
        "Messages that were handed to the application.",
    );
    /// Time in the queue. (Registry of this library.)
    pub const QUEUE_DURATION: Metric = Metric::seconds(
        super::attribute::QUEUE_DURATION,
        "Time from a message's timestamp until it was handed out.",
        &QUEUE_BUCKETS,
    );
    /// Time that a message waited in this process, from its hand-out until its handler began.
    /// (Registry of this library.)
    pub const WAIT_DURATION: Metric = Metric::seconds(
        super::attribute::WAIT_DURATION,
        "Time from the hand-out of a message until its handler began.",
        &QUEUE_BUCKETS,
    );
    /// Deliveries whose timestamp lies in the future, because two clocks disagree. (Registry of
    /// this library.)
    pub const QUEUE_SKEWED: Metric =
        Metric::counter("traced_broker.queue.skewed", "{message}", "Messages whose timestamp lies in the future.");
    /// Headers whose context was not used. (Registry of this library.)
    pub const CONTEXT_REJECTED: Metric = Metric::counter(
        "traced_broker.context.rejected",
        "{header}",
        "Headers whose trace context or baggage was not used.",
    );

    /// Messages that were rejected and are kept nowhere. (Registry of this library.)
    pub const DISCARDED: Metric = Metric::counter(
        "traced_broker.message.discarded",
        "{message}",
        "Messages that were rejected without a dead-letter topic.",
    );

    /// Messages that the broker confirmed and keeps nowhere. (Registry of this library.)
    pub const UNROUTABLE: Metric = Metric::counter(
        "traced_broker.publish.unroutable",
        "{message}",
        "Messages that were confirmed and are kept nowhere, because their topic has no subscribers.",
    );

    /// Messages that wait in the consumer's process now. (Registry of this library.)
    pub const WAITING: Metric = Metric {
        instrument: "updowncounter",
        ..Metric::counter(
            "traced_broker.waiting.messages",
            "{message}",
            "Messages that wait in the consumer's process, for another attempt or behind one of their key.",
        )
    };

    /// Every metric.
    pub const ALL: [Metric; 11] = [
        OPERATION_DURATION,
        PROCESS_DURATION,
        SENT_MESSAGES,
        CONSUMED_MESSAGES,
        QUEUE_DURATION,
        WAIT_DURATION,
        QUEUE_SKEWED,
        CONTEXT_REJECTED,
        DISCARDED,
        UNROUTABLE,
        WAITING,
    ];
}
