//! Separate processes on each broker: whole traces as they are, and broken traces where one is
//! sabotaged.

use crate::judge::{post, trace_of_the_job, verify};
use crate::shop::{Shop, flaky, hopeless, plain};
use crate::support::{Jaeger, Kind, shared};

/// The spans that every fulfilled order produces.
const EXPECTED: [&str; 4] = ["--expect", "process orders", "--expect", "process notifications"];
/// The time that the judge waits for spans that will not arrive.
const NOT_LONG: [&str; 2] = ["--deadline", "6s"];

#[test]
fn kafka() {
    check(Kind::Kafka);
}

#[test]
fn rabbitmq() {
    check(Kind::RabbitMq);
}

#[test]
fn nats() {
    check(Kind::Nats);
}

#[test]
fn redis() {
    check(Kind::Redis);
}

fn check(kind: Kind) {
    let (jaeger, broker) = (Jaeger::start(), shared(kind));
    whole(&jaeger, broker);
    for cut in &CUTS {
        eprintln!("{kind:?}: {} does {}", cut.role, cut.what);
        cut.check(&jaeger, broker);
    }
}

/// A plain order, one that is retried, one that is dead-lettered, and the job that the first of
/// them enqueued.
fn whole(jaeger: &Jaeger, broker: &str) {
    let shop = Shop::open(broker, &jaeger.otlp_endpoint(), None);
    let judged = post(jaeger, &shop.url, &plain("ORD-1"), &EXPECTED).has_to_be_whole();
    let services = judged.json["services"].to_string();
    for service in ["order-api", "fulfillment-worker", "notification-service"] {
        assert!(services.contains(service), "{services}");
    }
    assert_eq!(judged.attempts("orders"), [1], "{judged:#?}");

    let judged = post(jaeger, &shop.url, &flaky("ORD-2"), &EXPECTED).has_to_be_whole();
    assert_eq!(judged.attempts("orders"), [1, 2, 3], "{judged:#?}");

    let expected = ["--expect", "process orders", "--expect", "process orders.dead"];
    let judged = post(jaeger, &shop.url, &hopeless("ORD-3"), &expected).has_to_be_whole();
    assert_eq!(judged.attempts("orders"), [1, 2, 3, 4], "{judged:#?}");

    let job = trace_of_the_job(jaeger);
    let expected = ["--trace-id", &job, "--expect", "job daily.reconciliation", "--expect", "compare books"];
    verify(jaeger, &expected).has_to_be_whole();
    shop.close();
}

/// The fault of one service, and the expected finding.
struct Cut {
    role: &'static str,
    what: &'static str,
    /// The last good span and its service.
    after: (&'static str, &'static str),
    /// The causes that must be listed first.
    because: &'static [&'static str],
}

const SENT: (&str, &str) = ("send orders", "order-api");
const ANNOUNCED: (&str, &str) = ("send notifications", "fulfillment-worker");

/// Possible causes if the message was processed in a separate trace; spans cannot distinguish them.
const SEVERED: &[&str] = &["no_header", "header_dropped", "not_extracted"];
/// Possible causes if the service has no spans at all.
const ABSENT: &[&str] = &["sampled_away", "exporter_dropped", "not_arrived"];

const CUTS: [Cut; 7] = [
    Cut { role: "api", what: "no-inject", after: SENT, because: SEVERED },
    Cut { role: "api", what: "garble", after: SENT, because: SEVERED },
    Cut { role: "worker", what: "no-extract", after: SENT, because: SEVERED },
    Cut { role: "worker", what: "no-inject", after: ANNOUNCED, because: SEVERED },
    Cut { role: "worker", what: "not-sampled", after: SENT, because: ABSENT },
    Cut { role: "worker", what: "not-exported", after: SENT, because: ABSENT },
    Cut { role: "notify", what: "not-exported", after: ANNOUNCED, because: ABSENT },
];

impl Cut {
    fn check(&self, jaeger: &Jaeger, broker: &str) {
        let shop = Shop::open(broker, &jaeger.otlp_endpoint(), Some((self.role, self.what)));
        let (name, service) = self.after;
        let judged = post(jaeger, &shop.url, &plain("ORD-1"), &[&EXPECTED[..], &NOT_LONG].concat());
        judged.broke_after(name, service, self.because);
        shop.close();
    }
}
