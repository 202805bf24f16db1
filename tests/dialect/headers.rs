//! Dialects that use headers.

use traced_broker::Dialect;

use crate::sample::{PARENT, SPAN, Said, TRACE, UNSAMPLED, members, of, unsampled, usual, with_state};

#[test]
fn cloud_events_in_binary_mode() {
    // The attribute names in the bindings of Kafka, NATS and HTTP, of AMQP, and of AMQP for readers
    // over JMS.
    for prefix in ["ce_", "ce-", "cloudEvents:", "cloudEvents_", "Ce-"] {
        let name = |attribute: &str| format!("{prefix}{attribute}");
        let event = [
            (name("specversion"), "1.0"),
            (name("id"), "A234-1234-1234"),
            (name("source"), "/orders"),
            (name("type"), "com.example.order.placed"),
            (name("traceparent"), PARENT),
            (name("tracestate"), "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            (name("baggage"), "tenant=acme"),
            ("content-type".to_owned(), "application/json"),
        ];
        let event: Vec<(&str, &str)> = event.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let expected = with_state("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
        let expected = Said { baggage: members(&[("tenant", "acme")]), ..expected };
        assert_eq!(of(Dialect::CloudEvents, &event), Some(expected), "{prefix}");
    }
    assert_eq!(of(Dialect::CloudEvents, &[("ce_traceparent", UNSAMPLED)]), Some(unsampled()));
}

#[test]
fn mass_transit() {
    let headers =
        [("MT-Activity-Id", PARENT), ("MT-MessageType", "urn:message:Orders:OrderPlaced"), ("publishId", "1")];
    assert_eq!(of(Dialect::MassTransit, &headers), Some(usual()));
    // .NET's format before W3C Trace Context, which does not contain a span id.
    assert_eq!(of(Dialect::MassTransit, &[("MT-Activity-Id", "|7d2a8c14-4d1b0a6e6bd4a5c3.1.")]), None);
}

#[test]
fn wolverine() {
    let headers = [
        ("id", "018f3c1e-8a7b-7c3d-9e2f-1a2b3c4d5e6f"),
        ("message-type", "Orders.OrderPlaced"),
        ("conversation-id", "018f3c1e-8a7b-7c3d-9e2f-1a2b3c4d5e6f"),
        ("parent-id", PARENT),
        ("attempts", "0"),
    ];
    assert_eq!(of(Dialect::Wolverine, &headers), Some(usual()));
}

#[test]
fn what_a_nats_server_renames() {
    // The state and the baggage keep their names, and belong to the renamed header.
    let headers = [("Xraceparent", PARENT), ("tracestate", "rojo=1"), ("baggage", "tenant=acme")];
    let expected = Said { baggage: members(&[("tenant", "acme")]), ..with_state("rojo=1") };
    assert_eq!(of(Dialect::NatsServer, &headers), Some(expected));
}

#[test]
fn azure() {
    assert_eq!(of(Dialect::Azure, &[("Diagnostic-Id", PARENT)]), Some(usual()));
    // The `tracestate` beside it belongs to another header.
    assert_eq!(of(Dialect::Azure, &[("Diagnostic-Id", UNSAMPLED), ("tracestate", "rojo=1")]), Some(unsampled()));
}

#[test]
fn b3_in_one_header() {
    let cases = [
        (format!("{TRACE}-{SPAN}-1"), Some(usual())),
        (format!("{TRACE}-{SPAN}-d"), Some(usual())),
        (format!("{TRACE}-{SPAN}-0"), Some(unsampled())),
        (format!("{TRACE}-{SPAN}"), Some(unsampled())),
        (format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90"), Some(usual())),
        (format!(" {TRACE}-{SPAN}-1\t"), Some(usual())),
        (
            format!("a3ce929d0e0e4736-{SPAN}-1"),
            Some(Said { trace: "0000000000000000a3ce929d0e0e4736".to_owned(), ..usual() }),
        ),
        ("0".to_owned(), None),
        ("1".to_owned(), None),
        ("d".to_owned(), None),
    ];
    for (value, expected) in cases {
        assert_eq!(of(Dialect::B3, &[("b3", &value)]), expected, "{value}");
    }
}

#[test]
fn b3_in_several_headers() {
    let ids = [("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN), ("X-B3-ParentSpanId", "05e3ac9a4f6e3b90")];
    let with = |more: &[(&'static str, &'static str)]| of(Dialect::B3, &[&ids[..], more].concat());
    assert_eq!(with(&[("X-B3-Sampled", "1")]), Some(usual()));
    assert_eq!(with(&[("X-B3-Sampled", "true")]), Some(usual()));
    assert_eq!(with(&[("X-B3-Sampled", "0")]), Some(unsampled()));
    assert_eq!(with(&[("X-B3-Sampled", "false")]), Some(unsampled()));
    assert_eq!(with(&[]), Some(unsampled()), "the decision is left to the reader, who was told nothing");
    assert_eq!(with(&[("X-B3-Flags", "1")]), Some(usual()), "debug");
    assert_eq!(with(&[("X-B3-Flags", "0"), ("X-B3-Sampled", "0")]), Some(unsampled()));
    assert_eq!(with(&[("X-B3-Sampled", "yes")]), None);
    // As written by a client that uses lower case, with a short trace id.
    let short = [("x-b3-traceid", "a3ce929d0e0e4736"), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")];
    let expected = Said { trace: "0000000000000000a3ce929d0e0e4736".to_owned(), ..usual() };
    assert_eq!(of(Dialect::B3, &short), Some(expected));
    assert_eq!(of(Dialect::B3, &[("X-B3-Sampled", "0")]), None, "a decision without ids");
}

#[test]
fn b3_prefers_the_one_header() {
    let other = "00000000000000000000000000000001";
    let both = format!("{TRACE}-{SPAN}-1");
    let several = [("X-B3-TraceId", other), ("X-B3-SpanId", SPAN), ("X-B3-Sampled", "0")];
    assert_eq!(of(Dialect::B3, &[&several[..], &[("b3", &both)]].concat()), Some(usual()));
    let fallen_back = of(Dialect::B3, &[&several[..], &[("b3", "nonsense")]].concat());
    assert_eq!(fallen_back.unwrap().trace, other);
}

#[test]
fn b3_has_the_baggage_that_stands_beside() {
    let headers = [("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"), ("baggage", "tenant=acme,plan=pro")];
    let expected = Said { baggage: members(&[("tenant", "acme"), ("plan", "pro")]), ..usual() };
    assert_eq!(of(Dialect::B3, &headers), Some(expected));
}

#[test]
fn jaeger() {
    let cases = [
        (format!("{TRACE}:{SPAN}:0:1"), Some(usual())),
        (format!("{TRACE}:{SPAN}:05e3ac9a4f6e3b90:3"), Some(usual())),
        (format!("{TRACE}:{SPAN}:0:0"), Some(unsampled())),
        (format!("{TRACE}:{SPAN}:0:00"), Some(unsampled())),
        (format!("{TRACE}:{SPAN}::01"), Some(usual())),
        // Debug without sampled, firehose: neither says that this trace is recorded.
        (format!("{TRACE}:{SPAN}:0:2"), Some(unsampled())),
        (format!("{TRACE}:{SPAN}:0:8"), Some(unsampled())),
        // Ids without their leading zeros.
        (format!("{TRACE}:f067aa0ba902b7:0:1"), Some(usual())),
        (
            "a3ce929d0e0e4736:f067aa0ba902b7:0:1".to_owned(),
            Some(Said { trace: "0000000000000000a3ce929d0e0e4736".to_owned(), ..usual() }),
        ),
        // As if the header were an HTTP header.
        (format!("{TRACE}%3A{SPAN}%3A0%3a1"), Some(usual())),
    ];
    for (value, expected) in cases {
        assert_eq!(of(Dialect::Jaeger, &[("uber-trace-id", &value)]), expected, "{value}");
    }
}

#[test]
fn jaegers_baggage() {
    let id = format!("{TRACE}:{SPAN}:0:1");
    let headers = [
        ("Uber-Trace-Id", id.as_str()),
        ("uberctx-tenant", "acme"),
        ("Uberctx-name", "Am%C3%A9lie%20%26%20co"),
        ("uberctx-", "no key"),
        ("uberctx-a b", "no token"),
        ("uberct", "another header"),
    ];
    let expected = Said { baggage: members(&[("tenant", "acme"), ("name", "Amélie & co")]), ..usual() };
    assert_eq!(of(Dialect::Jaeger, &headers), Some(expected));
}

#[test]
fn one_dialect_does_not_read_another() {
    let id = format!("{TRACE}:{SPAN}:0:1");
    let b3 = format!("{TRACE}-{SPAN}-1");
    let samples = [
        (Dialect::CloudEvents, ("ce_traceparent", PARENT)),
        (Dialect::MassTransit, ("MT-Activity-Id", PARENT)),
        (Dialect::Wolverine, ("parent-id", PARENT)),
        (Dialect::NatsServer, ("Xraceparent", PARENT)),
        (Dialect::B3, ("b3", b3.as_str())),
        (Dialect::Jaeger, ("uber-trace-id", id.as_str())),
        (Dialect::Azure, ("Diagnostic-Id", PARENT)),
    ];
    for (own, sample) in samples {
        for dialect in Dialect::ALL {
            assert_eq!(of(dialect, &[sample]), (dialect == own).then(usual), "{dialect} reading {own}");
        }
    }
}

#[test]
fn names_are_stable_and_different() {
    let names: Vec<String> = Dialect::ALL.iter().map(ToString::to_string).collect();
    let expected = "cloudevents masstransit wolverine nats-server b3 jaeger azure watermill dapr faststream";
    assert_eq!(names.join(" "), expected);
}
