//! Properties that hold for any input.

use std::borrow::Cow;

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};
use proptest::collection::vec;
use proptest::prelude::*;
use traced_broker::w3c::{TraceParent, baggage, decode, decode_all, encode_context, tracestate};

use super::{header, traceparent};

/// Generates bytes, many of which have a meaning in the grammars.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => prop::sample::select(b",;= \t%-\r\n\0\"\\".to_vec()),
        6 => prop::sample::select(b"abcxyz0123456789AF@*/_.".to_vec()),
        1 => any::<u8>(),
    ];
    vec(byte, 0..200)
}

/// Generates arbitrary and hostile bytes, and near misses of a valid `traceparent`.
fn near_traceparent() -> impl Strategy<Value = Vec<u8>> {
    let edited = (any::<u8>(), 0..60_usize, 0..60_usize, hostile()).prop_map(|(flags, from, len, new)| {
        let mut value = traceparent(&format!("{flags:02x}")).into_bytes();
        let from = from.min(value.len());
        let to = (from + len % 3).min(value.len());
        value.splice(from..to, new.into_iter().take(2));
        value
    });
    prop_oneof![edited, hostile(), vec(any::<u8>(), 0..120)]
}

/// Generates lists of which a good part is valid.
fn near_list() -> impl Strategy<Value = Vec<u8>> {
    let member = "[a-z0-9][a-z0-9_*/@-]{0,6}=[ -+\\--<>-~]{0,6}";
    let padded =
        (member, "[ \t]{0,2}", "[ \t]{0,2}").prop_map(|(member, left, right)| format!("{left}{member}{right}"));
    let valid =
        vec(prop_oneof![9 => padded, 1 => Just(String::new())], 0..34).prop_map(|list| list.join(",").into_bytes());
    prop_oneof![3 => valid, 1 => hostile()]
}

fn near_baggage() -> impl Strategy<Value = Vec<u8>> {
    let part = "[!#-+.-9<-\\[\\]-~%]{0,8}(%[0-9a-fA-F]{2}){0,2}";
    let member = ("[a-z!#$%&'*+.^_`|~-]{1,5}", part, vec(("[a-z%]{1,3}", prop::option::of(part)), 0..3));
    let member = member.prop_map(|(key, value, properties)| {
        let properties = properties.into_iter().map(|(key, value)| match value {
            Some(value) => format!("; {key} = {value}"),
            None => format!(";{key}"),
        });
        format!("{key}={value}{}", properties.collect::<String>())
    });
    let valid = vec(member, 0..70).prop_map(|list| list.join(" , ").into_bytes());
    prop_oneof![3 => valid, 1 => hostile()]
}

/// Generates lists that OpenTelemetry's type accepts from an application.
fn state_of_the_application() -> impl Strategy<Value = TraceState> {
    let value = prop_oneof![2 => "[ -+.-<>-~]{0,5}", 1 => "[^,=]{0,5}", 1 => "[\\x00-\\x20a]{0,5}"];
    vec(("[a-z0-9]{1,3}", value), 0..40).prop_map(|members| TraceState::from_key_value(members).unwrap())
}

fn is_clean(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|byte| matches!(byte, 0x20..=0x7e))
}

fn entries(baggage: &Baggage) -> Vec<(String, String, String)> {
    let mut entries: Vec<_> =
        baggage.iter().map(|(key, (value, meta))| (key.to_string(), value.to_string(), meta.to_string())).collect();
    entries.sort_unstable();
    entries
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_parent_is_read_as_it_was_written(trace in 1_u128.., span in 1_u64.., flags: u8) {
        let parent = TraceParent::new(trace.into(), span.into(), TraceFlags::new(flags)).unwrap();
        let value = parent.encode();
        prop_assert_eq!(TraceParent::parse(&value), Ok(parent));
        prop_assert_eq!(str::from_utf8(&value).unwrap(), parent.to_string());
        prop_assert_eq!(parent.flags(), TraceFlags::new(flags & 0x03));
    }

    #[test]
    fn a_traceparent_that_is_accepted_is_written_stably(value in near_traceparent()) {
        if let Ok(parent) = TraceParent::parse(&value) {
            let encoded = parent.encode();
            prop_assert_eq!(&encoded[3..53], &value[3..53]);
            prop_assert_eq!(TraceParent::parse(&encoded), Ok(parent));
            prop_assert_eq!(TraceParent::parse(&encoded).unwrap().encode(), encoded);
        }
    }

    #[test]
    fn a_list_that_is_accepted_becomes_normal(value in near_list()) {
        if let Ok(normal) = tracestate::normalize(&value) {
            let again = tracestate::normalize(normal.text.as_bytes()).unwrap();
            prop_assert!(matches!(again.text, Cow::Borrowed(_)));
            prop_assert_eq!(again.duplicates, 0);
            prop_assert_eq!(&again.text, &normal.text);
            prop_assert!(normal.text.is_empty() || is_clean(normal.text.as_bytes()));
        }
    }

    #[test]
    fn a_normal_list_comes_through_a_context_as_it_is(value in near_list()) {
        if let Ok(normal) = tracestate::normalize(&value) {
            let parent = traceparent("01");
            let context = decode(Some(parent.as_bytes()), Some(&value), None, &Context::new()).context;
            let expected = (!normal.text.is_empty()).then(|| normal.text.as_bytes().escape_ascii().to_string());
            prop_assert_eq!(header(&context, "tracestate"), expected);
        }
    }

    #[test]
    fn a_list_of_the_application_is_written_in_normal_form(state in state_of_the_application()) {
        let text = tracestate::encode(&state).text;
        let normal = tracestate::normalize(text.as_bytes()).unwrap();
        prop_assert!(matches!(normal.text, Cow::Borrowed(_)));
    }

    #[test]
    fn baggage_that_is_accepted_is_written_stably(value in near_baggage()) {
        let first = baggage::parse(&value);
        let written = baggage::encode(&first.baggage);
        let second = baggage::parse(written.text.as_bytes());
        prop_assert_eq!(second.dropped, 0);
        prop_assert_eq!(&baggage::encode(&second.baggage).text, &written.text);
        prop_assert!(written.text.is_empty() || is_clean(written.text.as_bytes()));
        if written.dropped == 0 {
            prop_assert_eq!(entries(&second.baggage), entries(&first.baggage));
        }
    }

    #[test]
    fn any_baggage_of_the_application_comes_back(
        members in vec(("[a-z]{1,4}", any::<String>(), "[a-z]{1,3}(=[a-z]{0,3})?(;[a-z]{1,3}){0,2}"), 0..20),
    ) {
        let mut sent = Baggage::new();
        for (key, value, metadata) in &members {
            sent.insert_with_metadata(key.clone(), value.clone(), metadata.as_str());
        }
        let written = baggage::encode(&sent);
        prop_assert!(written.text.is_empty() || is_clean(written.text.as_bytes()));
        let received = baggage::parse(written.text.as_bytes());
        prop_assert_eq!(received.dropped, 0);
        if written.dropped == 0 {
            prop_assert_eq!(entries(&received.baggage), entries(&sent));
        }
    }

    #[test]
    fn any_metadata_of_the_application_is_written_stably(metadata in vec(any::<String>(), 1..4)) {
        let mut sent = Baggage::new();
        sent.insert_with_metadata("key", "value", metadata.join(";"));
        let written = baggage::encode(&sent);
        prop_assert!(is_clean(written.text.as_bytes()));
        let received = baggage::parse(written.text.as_bytes());
        prop_assert_eq!(received.dropped, 0);
        prop_assert_eq!(baggage::encode(&received.baggage).text, written.text);
    }

    #[test]
    fn nothing_that_is_received_harms_what_is_sent(
        parents in vec(near_traceparent(), 0..3),
        states in vec(near_list(), 0..3),
        baggage in vec(near_baggage(), 0..3),
    ) {
        let received = decode_all(
            parents.iter().map(Vec::as_slice),
            states.iter().map(Vec::as_slice),
            baggage.iter().map(Vec::as_slice),
            &Context::new(),
        );
        assert_harmless(&received.context)?;
    }

    #[test]
    fn nothing_that_the_application_sets_harms_what_is_sent(state in state_of_the_application(), value: String) {
        let span = SpanContext::new(1.into(), 1.into(), TraceFlags::new(0xff), false, state);
        let context = Context::new()
            .with_remote_span_context(span)
            .with_baggage([opentelemetry::KeyValue::new("key", value)]);
        assert_harmless(&context)?;
    }
}

/// Asserts that each header is written at most once, not empty, in printable ASCII only, and
/// readable.
fn assert_harmless(context: &Context) -> Result<(), TestCaseError> {
    let mut sent: Vec<(&str, Vec<u8>)> = Vec::new();
    encode_context(context, |name, value| sent.push((name, value.to_vec())));
    let names: Vec<_> = sent.iter().map(|(name, _)| *name).collect();
    let in_order = ["traceparent", "tracestate", "baggage"].into_iter().filter(|name| names.contains(name));
    prop_assert_eq!(&names, &in_order.collect::<Vec<_>>());
    prop_assert!(!names.contains(&"tracestate") || names.contains(&"traceparent"));
    for (_, value) in &sent {
        prop_assert!(is_clean(value), "{}", value.escape_ascii());
    }
    let value = |name: &str| sent.iter().find(|(sent, _)| *sent == name).map(|(_, value)| value.as_slice());
    let again = decode(value("traceparent"), value("tracestate"), value("baggage"), &Context::new());
    prop_assert!(again.issues.is_empty(), "{:?}", again.issues);
    let mut resent = Vec::new();
    encode_context(&again.context, |name, value| resent.push((name, value.to_vec())));
    prop_assert_eq!(resent, sent);
    Ok(())
}
