//! The measured results of each library, which the tests here measure again.

use traced_broker::verify::FindingKind::{NoContext, NoCreationLink, OutsideProcess};

use crate::library::{Library, Measured, Tie};
use crate::program::Language;
use crate::support::Kind;

/// Names each library, and creates a module of that name with a test for each direction.
macro_rules! combinations {
    ($($name:ident [$($direction:ident),*] $library:expr;)*) => {
        /// Every library, in the order of the page, with its tested directions.
        pub(crate) const ALL: &[(&Library, &[&str])] = &[$((&$name::LIBRARY, &[$(stringify!($direction)),*])),*];
        $(
            mod $name {
                use super::*;
                use crate::directions;

                pub(super) static LIBRARY: Library = $library;

                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $direction() {
                        directions::$direction(&LIBRARY).await;
                    }
                )*
            }
        )*
    };
}

/// Names and types of the trace headers.
type Headers = &'static [(&'static str, &'static str)];

// Types on the wire.
const BYTES: Headers = &[("baggage", "bytes"), ("traceparent", "bytes")];
const LONG_STRINGS: Headers = &[("baggage", "long string"), ("traceparent", "long string")];
const BYTE_ARRAYS: Headers = &[("baggage", "byte array"), ("traceparent", "byte array")];
const TEXT: Headers = &[("baggage", "text"), ("traceparent", "text")];
const CANONICAL: Headers = &[("Baggage", "text"), ("Traceparent", "text")];
const FIELDS: Headers = &[("baggage", "field"), ("traceparent", "field")];
// Types as libraries return them: Go, Python, Java.
const GO_BYTES: Headers = &[("baggage", "[]byte"), ("traceparent", "[]byte")];
const GO_STRING: Headers = &[("baggage", "string"), ("traceparent", "string")];
const GO_CANONICAL: Headers = &[("Baggage", "string"), ("Traceparent", "string")];
const PYTHON_BYTES: Headers = &[("baggage", "bytes"), ("traceparent", "bytes")];
const PYTHON_STR: Headers = &[("baggage", "str"), ("traceparent", "str")];
const JAVA_BYTES: Headers = &[("baggage", "byte[]"), ("traceparent", "byte[]")];

/// A result with one whole trace and these spans of the other program.
const fn whole(chain: &'static [&'static str], headers: Headers) -> Measured {
    Measured { tie: Tie::Child, chain, rewritten: None, keeps_baggage: true, findings: &[], headers }
}

/// The result of sending with a hand-written carrier, in a span that follows the conventions.
const fn sends(headers: Headers) -> Measured {
    whole(&["place order (internal)", "send orders (producer)"], headers)
}

/// The result of sending without a context.
const fn sends_nothing() -> Measured {
    Measured { tie: Tie::Nothing, keeps_baggage: false, findings: &[NoContext], ..whole(&[], &[]) }
}

/// The result of receiving with a hand-written carrier.
const fn receives(headers: Headers) -> Option<Measured> {
    Some(whole(PROCESS, headers))
}

/// The result of receiving without finding a context.
const fn finds_nothing(headers: Headers) -> Option<Measured> {
    let found = whole(PROCESS, headers);
    Some(Measured { tie: Tie::Nothing, keeps_baggage: false, findings: &[NoContext], ..found })
}

const PROCESS: &[&str] = &["process orders (consumer)", "reserve stock (internal)"];

combinations! {
    sarama [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Go,
        name: "sarama",
        title: "Go: sarama, own carrier",
        broker: Kind::Kafka,
        options: "",
        sends: sends(BYTES),
        receives: receives(GO_BYTES),
    };
    sarama_by_value [theirs_to_ours] Library {
        language: Language::Go,
        name: "sarama-by-value",
        title: "Go: sarama, own carrier by value",
        broker: Kind::Kafka,
        options: "",
        sends: sends_nothing(),
        receives: None,
    };
    otelsarama [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Go,
        name: "otelsarama",
        title: "Go: otelsarama",
        broker: Kind::Kafka,
        options: "",
        sends: whole(&["place order (internal)", "orders publish (producer)"], BYTES),
        receives: Some(Measured {
            rewritten: Some("orders receive"),
            findings: &[NoCreationLink, OutsideProcess],
            ..whole(&["orders receive (consumer)", "reserve stock (internal)"], GO_BYTES)
        }),
    };
    otelsarama_bare [theirs_to_ours] Library {
        language: Language::Go,
        name: "otelsarama-bare",
        title: "Go: otelsarama, caller's context not injected",
        broker: Kind::Kafka,
        options: "",
        sends: Measured {
            tie: Tie::Torn,
            keeps_baggage: false,
            ..whole(&["orders publish (producer)"], &[("traceparent", "bytes")])
        },
        receives: None,
    };
    otelsarama_copied [theirs_to_ours] Library {
        language: Language::Go,
        name: "otelsarama-copied",
        title: "Go: otelsarama, headers copied from another message",
        broker: Kind::Kafka,
        options: "",
        sends: Measured {
            tie: Tie::Torn,
            keeps_baggage: false,
            ..whole(&["earlier request (internal)", "orders publish (producer)"], &[("traceparent", "bytes")])
        },
        receives: None,
    };
    confluent_kafka [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Python,
        name: "confluent-kafka",
        title: "Python: confluent-kafka, own carrier",
        broker: Kind::Kafka,
        options: "",
        sends: sends(BYTES),
        receives: receives(PYTHON_BYTES),
    };
    confluent_kafka_instrumented [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Python,
        name: "confluent-kafka-instrumented",
        title: "Python: confluent-kafka, instrumented",
        broker: Kind::Kafka,
        options: "",
        sends: whole(&["place order (internal)", "orders send (producer)"], BYTES),
        receives: Some(Measured {
            tie: Tie::Link,
            keeps_baggage: false,
            findings: &[NoContext],
            ..whole(&["recv (consumer)", "orders process (consumer)", "reserve stock (internal)"], PYTHON_BYTES)
        }),
    };
    confluent_kafka_instrumented_late [theirs_to_ours] Library {
        language: Language::Python,
        name: "confluent-kafka-instrumented-late",
        title: "Python: confluent-kafka, instrumented after its import",
        broker: Kind::Kafka,
        options: "",
        sends: sends_nothing(),
        receives: None,
    };
    confluent_kafka_dictionary [theirs_to_ours, ours_to_theirs] Library {
        language: Language::Python,
        name: "confluent-kafka-dictionary",
        title: "Python: confluent-kafka, no carrier but a dictionary",
        broker: Kind::Kafka,
        options: "",
        sends: sends(BYTES),
        receives: Some(Measured { tie: Tie::Fails("TypeError"), ..whole(&[], PYTHON_BYTES) }),
    };
    kafka_clients [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Java,
        name: "kafka-clients",
        title: "Java: kafka-clients, own carrier",
        broker: Kind::Kafka,
        options: "",
        sends: sends(BYTES),
        receives: receives(JAVA_BYTES),
    };
    amqp091 [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Go,
        name: "amqp091",
        title: "Go: amqp091-go, own carrier",
        broker: Kind::RabbitMq,
        options: "",
        sends: sends(LONG_STRINGS),
        receives: receives(GO_STRING),
    };
    amqp091_bytes [theirs_to_ours] Library {
        language: Language::Go,
        name: "amqp091-bytes",
        title: "Go: amqp091-go, own carrier of []byte",
        broker: Kind::RabbitMq,
        options: "",
        sends: sends(BYTE_ARRAYS),
        receives: None,
    };
    pika [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Python,
        name: "pika",
        title: "Python: pika",
        broker: Kind::RabbitMq,
        options: "",
        sends: sends(LONG_STRINGS),
        receives: receives(PYTHON_STR),
    };
    pika_instrumented [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Python,
        name: "pika-instrumented",
        title: "Python: pika, instrumented",
        broker: Kind::RabbitMq,
        options: "",
        sends: whole(
            &["place order (internal)", "orders send (producer)", "orders send (producer)"],
            LONG_STRINGS
        ),
        receives: Some(Measured {
            findings: &[NoCreationLink],
            ..whole(&["orders receive (consumer)", "reserve stock (internal)"], PYTHON_STR)
        }),
    };
    pika_instrumented_channel [theirs_to_ours] Library {
        language: Language::Python,
        name: "pika-instrumented-channel",
        title: "Python: pika, one channel instrumented",
        broker: Kind::RabbitMq,
        options: "",
        sends: whole(&["place order (internal)", "orders send (producer)"], LONG_STRINGS),
        receives: None,
    };
    nats_go [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Go,
        name: "nats",
        title: "Go: nats.go on JetStream, own carrier",
        broker: Kind::Nats,
        options: "",
        sends: sends(TEXT),
        receives: receives(GO_STRING),
    };
    nats_go_http [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Go,
        name: "nats-http",
        title: "Go: nats.go on JetStream, propagation.HeaderCarrier",
        broker: Kind::Nats,
        options: "",
        sends: sends(CANONICAL),
        receives: finds_nothing(GO_STRING),
    };
    nats_go_http_canonical [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Go,
        name: "nats-http",
        title: "Go: nats.go on JetStream, propagation.HeaderCarrier, ours with header_names=canonical",
        broker: Kind::Nats,
        options: "?header_names=canonical",
        sends: sends(CANONICAL),
        receives: receives(GO_CANONICAL),
    };
    nats_py [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Python,
        name: "nats-py",
        title: "Python: nats-py on JetStream",
        broker: Kind::Nats,
        options: "",
        sends: sends(TEXT),
        receives: receives(PYTHON_STR),
    };
    nats_py_canonical [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Python,
        name: "nats-py",
        title: "Python: nats-py on JetStream, ours with header_names=canonical",
        broker: Kind::Nats,
        options: "?header_names=canonical",
        sends: sends(TEXT),
        receives: finds_nothing(&[("Baggage", "str"), ("Traceparent", "str")]),
    };
    nats_go_core [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Go,
        name: "nats-core",
        title: "Go: nats.go on core NATS, own carrier",
        broker: Kind::Nats,
        options: "?mode=core",
        sends: sends(TEXT),
        receives: receives(GO_STRING),
    };
    nats_go_core_http [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Go,
        name: "nats-core-http",
        title: "Go: nats.go on core NATS, propagation.HeaderCarrier",
        broker: Kind::Nats,
        options: "?mode=core",
        sends: sends(CANONICAL),
        receives: finds_nothing(GO_STRING),
    };
    nats_go_core_http_canonical [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Go,
        name: "nats-core-http",
        title: "Go: nats.go on core NATS, propagation.HeaderCarrier, ours with header_names=canonical",
        broker: Kind::Nats,
        options: "?mode=core&header_names=canonical",
        sends: sends(CANONICAL),
        receives: receives(GO_CANONICAL),
    };
    nats_py_core [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Python,
        name: "nats-py-core",
        title: "Python: nats-py on core NATS",
        broker: Kind::Nats,
        options: "?mode=core",
        sends: sends(TEXT),
        receives: receives(PYTHON_STR),
    };
    go_redis [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Go,
        name: "go-redis",
        title: "Go: go-redis",
        broker: Kind::Redis,
        options: "",
        sends: sends(FIELDS),
        receives: receives(GO_STRING),
    };
    redis_py [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Python,
        name: "redis-py",
        title: "Python: redis-py, decode_responses",
        broker: Kind::Redis,
        options: "",
        sends: sends(FIELDS),
        receives: receives(PYTHON_STR),
    };
    redis_py_bytes [theirs_to_ours, ours_to_theirs, theirs_to_ours_to_theirs] Library {
        language: Language::Python,
        name: "redis-py-bytes",
        title: "Python: redis-py",
        broker: Kind::Redis,
        options: "",
        sends: sends(FIELDS),
        receives: finds_nothing(PYTHON_BYTES),
    };
}
