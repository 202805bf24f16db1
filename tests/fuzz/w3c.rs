//! Properties of the W3C codecs: values that are read are within their limits and can be written,
//! and values that are written can be read, without a loss.

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::trace::{TraceContextExt, TraceState};
use traced_broker::w3c::{self, TraceParent, baggage, tracestate};

const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The input is the value of a `traceparent`.
pub fn traceparent(input: &[u8]) {
    let decoded = w3c::decode(Some(input), None, None, &Context::new());
    let Ok(parent) = TraceParent::parse(input) else { return };
    assert!(decoded.context.has_active_span() && decoded.issues.is_empty());
    let written = parent.encode();
    assert_eq!(TraceParent::parse(&written), Ok(parent));
    assert_eq!(parent.to_string().as_bytes(), written);
    let is_plain = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
    assert!(written.starts_with(b"00-") && written.iter().all(is_plain));
    assert_eq!(TraceParent::from_span_context(&parent.to_span_context(TraceState::NONE)), Ok(parent));
}

/// The input is the value of a `tracestate`.
pub fn tracestate(input: &[u8]) {
    let decoded = w3c::decode(Some(PARENT), Some(input), None, &Context::new());
    let sent = sent(&decoded.context);
    let forwarded = sent.iter().find(|(name, _)| name == "tracestate").map(|(_, value)| value.as_slice());
    match tracestate::normalize(input) {
        Ok(list) => {
            assert!(list.text.len() <= tracestate::MAX_BYTES.min(input.len()));
            let members = list.text.split(',').filter(|member| !member.is_empty()).count();
            assert!(members + list.duplicates <= tracestate::MAX_MEMBERS);
            let again = tracestate::normalize(list.text.as_bytes()).expect("a normal list is a list");
            assert_eq!((&again.text, again.duplicates), (&list.text, 0));
            // Also the members that OpenTelemetry's type rejects.
            assert_eq!(forwarded.unwrap_or_default(), list.text.as_bytes());
        }
        Err(_) => assert_eq!(forwarded, None, "a malformed list is not passed on"),
    }
    // A list of the application, which OpenTelemetry's type hardly checks.
    if let Some(Ok(state)) = str::from_utf8(input).ok().map(str::parse::<TraceState>) {
        let written = tracestate::encode(&state);
        let read = tracestate::normalize(written.text.as_bytes());
        assert!(written.text.is_empty() || read.is_ok_and(|list| list.text == written.text), "{written:?}");
    }
}

/// The input is the value of a `baggage`, and a list of keys, values and metadata of an
/// application.
pub fn baggage(input: &[u8]) {
    let parsed = baggage::parse(input);
    assert!(parsed.baggage.len() <= baggage::MAX_MEMBERS);
    written_baggage(&parsed.baggage);
    let mut own = Baggage::new();
    for member in String::from_utf8_lossy(input).split('\n') {
        let mut parts = member.splitn(3, '\t');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        own.insert_with_metadata(part(), part(), part());
    }
    written_baggage(&own);
}

fn written_baggage(baggage: &Baggage) {
    let written = baggage::encode(baggage);
    assert!(written.text.len() <= baggage::MAX_BYTES);
    assert!(written.text.bytes().all(|byte| matches!(byte, 0x21..=0x7e)), "{:?}", written.text);
    let read = baggage::parse(written.text.as_bytes());
    assert_eq!((read.dropped, read.baggage.len()), (0, baggage.len() - written.dropped), "{:?}", written.text);
    for (key, (value, _)) in &read.baggage {
        assert_eq!(baggage.get(key), Some(value), "{:?}", written.text);
    }
    assert_eq!(baggage::encode(&read.baggage).text, written.text, "written twice");
}

/// The input is lines; their first byte tells the header: `p` for `traceparent`, `s` for
/// `tracestate`, `b` for `baggage`.
pub fn headers(input: &[u8]) {
    let of = |kind: u8| input.split(|byte| *byte == b'\n').filter_map(move |line| line.strip_prefix(&[kind]));
    let decoded = w3c::decode_all(of(b'p'), of(b's'), of(b'b'), &Context::new());
    let has_span = decoded.context.has_active_span();
    let parents: Vec<_> = of(b'p').map(<[u8]>::trim_ascii).collect();
    assert!(!has_span || parents.iter().all(|parent| *parent == parents[0]), "of several parents none is chosen");
    passed_on(&decoded.context);
}

/// Holds that the context is written as it was, and within the limits of the headers.
pub(crate) fn passed_on(context: &Context) {
    let first = sent(context);
    let of =
        |wanted: &'static str| first.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_slice());
    assert!(first.len() <= 3, "each header once");
    assert_eq!(of("traceparent").count(), usize::from(context.has_active_span()));
    assert!(of("traceparent").all(|value| TraceParent::parse(value).is_ok()));
    assert!(of("tracestate").all(|value| value.len() <= tracestate::MAX_BYTES));
    assert!(of("baggage").all(|value| value.len() <= baggage::MAX_BYTES));
    assert!(first.iter().all(|(_, value)| value.iter().all(|byte| matches!(byte, 0x20..=0x7e))), "{first:?}");
    let again = w3c::decode_all(of("traceparent"), of("tracestate"), of("baggage"), &Context::new());
    assert!(again.issues.is_empty(), "{:?}", again.issues);
    assert_eq!(again.context.span().span_context(), context.span().span_context());
    assert!(again.context.baggage().len() <= context.baggage().len());
    assert_eq!(sent(&again.context), first);
}

fn sent(context: &Context) -> Vec<(String, Vec<u8>)> {
    let mut sent = Vec::new();
    w3c::encode_context(context, |name, value| sent.push((name.to_owned(), value.to_vec())));
    sent
}
