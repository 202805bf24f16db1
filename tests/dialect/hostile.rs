//! Malformed input: read as absent, never a panic, never a guess.

use proptest::prelude::*;
use traced_broker::{Dialect, Headers};

use crate::sample::{PARENT, SPAN, TRACE, of, read};

/// Every name that a dialect looks up.
const NAMES: [&str; 22] = [
    "ce-traceparent",
    "ce_traceparent",
    "ce_tracestate",
    "ce_baggage",
    "cloudEvents:traceparent",
    "cloudEvents_traceparent",
    "MT-Activity-Id",
    "parent-id",
    "Xraceparent",
    "tracestate",
    "baggage",
    "b3",
    "X-B3-TraceId",
    "X-B3-SpanId",
    "X-B3-Sampled",
    "X-B3-Flags",
    "uber-trace-id",
    "uberctx-a",
    "Diagnostic-Id",
    "metadata",
    "data",
    "__data__",
];

#[test]
fn malformed_ids_are_no_ids() {
    let traces =
        ["", "0", "00000000000000000000000000000000", &TRACE.to_uppercase(), &TRACE[1..], &format!("{TRACE}0")];
    for trace in traces {
        let single = format!("{trace}-{SPAN}-1");
        assert_eq!(of(Dialect::B3, &[("b3", &single)]), None, "{single}");
        assert_eq!(of(Dialect::B3, &[("X-B3-TraceId", trace), ("X-B3-SpanId", SPAN)]), None, "{trace}");
    }
    for span in ["", "0000000000000000", "+0f067aa0ba902b7", &SPAN.to_uppercase(), &SPAN[1..], "00f067aa0ba902b7 "] {
        let single = format!("{TRACE}-{span}-1");
        assert_eq!(of(Dialect::B3, &[("b3", &single)]), None, "{single}");
    }
    for value in ["-1-", "-", "--1", "-1-05e3ac9a4f6e3b90-", "-2", "-D", "-1-05E3AC9A4F6E3B90", "-05e3ac9a4f6e3b90"] {
        let single = format!("{TRACE}-{SPAN}{value}");
        assert_eq!(of(Dialect::B3, &[("b3", &single)]), None, "{single}");
    }
}

#[test]
fn malformed_jaeger_ids_are_no_ids() {
    let values = [
        String::new(),
        format!("{TRACE}:{SPAN}:0"),
        format!("{TRACE}:{SPAN}:0:1:1"),
        format!("{TRACE}:{SPAN}:0:"),
        format!("{TRACE}:{SPAN}:0:100"),
        format!("{TRACE}:{SPAN}:0:g"),
        format!("{TRACE}:{SPAN}:-1:1"),
        format!("{TRACE}:0:0:1"),
        format!("0:{SPAN}:0:1"),
        format!(":{SPAN}:0:1"),
        format!("{TRACE}::0:1"),
        format!("0{TRACE}:{SPAN}:0:1"),
        format!("{TRACE}:0{SPAN}:0:1"),
        format!("{TRACE}:{SPAN}:0{SPAN}:1"),
        format!("+{}:{SPAN}:0:1", &TRACE[1..]),
        format!("{TRACE}%3A{SPAN}%3A0%3A1%ff"),
        format!("{}:{SPAN}:0:1", TRACE.to_uppercase()),
    ];
    for value in values {
        assert_eq!(of(Dialect::Jaeger, &[("uber-trace-id", &value)]), None, "{value}");
    }
}

#[test]
fn headers_that_contradict_each_other_are_absent() {
    let other = PARENT.replace("00f067aa0ba902b7", "00f067aa0ba902b8");
    for (dialect, name) in [
        (Dialect::CloudEvents, "ce-traceparent"),
        (Dialect::MassTransit, "MT-Activity-Id"),
        (Dialect::Wolverine, "parent-id"),
        (Dialect::NatsServer, "Xraceparent"),
        (Dialect::Azure, "Diagnostic-Id"),
    ] {
        assert_eq!(of(dialect, &[(name, PARENT), (name, &other)]), None, "{dialect}");
        assert!(of(dialect, &[(name, PARENT), (name, PARENT)]).is_some(), "{dialect}: the same twice");
    }
    let b3 = [format!("{TRACE}-{SPAN}-1"), format!("{TRACE}-{SPAN}-0")];
    assert_eq!(of(Dialect::B3, &[("b3", &b3[0]), ("b3", &b3[1])]), None);
    let several = [("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN), ("X-B3-Sampled", "1"), ("X-B3-Sampled", "0")];
    assert_eq!(of(Dialect::B3, &several), None);
    let jaeger = [format!("{TRACE}:{SPAN}:0:1"), format!("{TRACE}:{SPAN}:0:0")];
    assert_eq!(of(Dialect::Jaeger, &[("uber-trace-id", &jaeger[0]), ("uber-trace-id", &jaeger[1])]), None);
}

#[test]
fn baggage_has_its_limits() {
    let names: Vec<String> = (0..10_000).map(|number| format!("uberctx-k{number}")).collect();
    let id = format!("{TRACE}:{SPAN}:0:1");
    let pairs = names.iter().map(|name| (name.as_str(), "value"));
    let headers = pairs.chain([("uber-trace-id", id.as_str())]).collect();
    let said = read(Dialect::Jaeger, &headers, None).unwrap();
    assert_eq!(said.baggage.len(), 64);
}

#[test]
fn deep_and_large_json_ends_soon() {
    let deep = format!(
        r#"{{"specversion":"1.0","data":{}1{},"traceparent":"{PARENT}"}}"#,
        "[".repeat(400_000),
        "]".repeat(400_000)
    );
    let said = read(Dialect::CloudEvents, &Headers::new(), Some(deep.as_bytes()));
    assert!(said.is_some(), "what is stepped over may be as deep as it likes");
    let open = "{\"a\":".repeat(200_000);
    for dialect in Dialect::ALL {
        let headers = [("metadata", &open), ("data", &open), ("__data__", &open)].into_iter().collect();
        assert_eq!(read(dialect, &headers, Some(open.as_bytes())), None, "{dialect}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(
        pairs in prop::collection::vec((prop::sample::select(&NAMES[..]), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
        payload in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
    ) {
        let headers: Headers = pairs.into_iter().collect();
        for dialect in Dialect::ALL {
            read(dialect, &headers, payload.as_deref());
        }
    }

    #[test]
    fn nothing_panics_on_what_is_almost_right(
        at in 0_usize..200, byte in any::<u8>(), cut in 0_usize..300, name in prop::sample::select(&NAMES[..]),
        sample in prop::sample::select(&SAMPLES[..]),
    ) {
        let mut value = sample.to_vec();
        if let Some(place) = value.get_mut(at) {
            *place = byte;
        }
        value.truncate(cut);
        let headers: Headers = [(name, &value)].into_iter().collect();
        for dialect in Dialect::ALL {
            read(dialect, &headers, Some(&value));
        }
    }
}

const SAMPLES: [&[u8]; 6] = [
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    b"4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-05e3ac9a4f6e3b90",
    b"4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:1",
    b"\x82\xabtraceparent\xd9\x3700-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\xa1a\xa1b",
    b"\x89BIN\r\n\x1a\n\0\x01\0\0\0\x12\0\0\0\x5a\0\x01\0\x0btraceparent\0\x3700-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
    br#"{"specversion":"1.0","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","headers":{"traceparent":"x"}}"#,
];
