//! The codec behind OpenTelemetry's propagator traits.

use std::collections::HashMap;

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use traced_broker::w3c::W3cPropagator;

use super::traceparent;

/// Headers that may repeat, as in HTTP.
#[derive(Default)]
struct Lines(Vec<(String, String)>);

impl Injector for Lines {
    fn set(&mut self, key: &str, value: String) {
        self.0.push((key.to_owned(), value));
    }
}

impl Extractor for Lines {
    fn get(&self, key: &str) -> Option<&str> {
        self.get_all(key)?.first().copied()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        let lines = self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
        let values: Vec<_> = lines.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then_some(values)
    }
}

fn lines(lines: &[(&str, &str)]) -> Lines {
    Lines(lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn reinjected(received: &Lines) -> Vec<(String, String)> {
    let propagator = W3cPropagator::new();
    let context = propagator.extract_with_context(&Context::new(), received);
    let mut sent = Lines::default();
    propagator.inject_context(&context, &mut sent);
    sent.0
}

#[test]
fn the_fields_are_named() {
    assert_eq!(W3cPropagator::new().fields().collect::<Vec<_>>(), ["traceparent", "tracestate", "baggage"]);
}

#[test]
fn headers_come_through_joined_and_in_lower_case() {
    let received = lines(&[
        ("TraceParent", &traceparent("00")),
        ("TRACESTATE", "foo=1"),
        ("Tracestate", "0vendor=2"),
        ("Baggage", "a=1"),
        ("baggage", "b=2"),
    ]);
    let expected =
        lines(&[("traceparent", &traceparent("00")), ("tracestate", "foo=1,0vendor=2"), ("baggage", "a=1,b=2")]);
    assert_eq!(reinjected(&received), expected.0);
}

#[test]
fn no_header_is_empty() {
    let received = lines(&[("traceparent", &traceparent("01")), ("tracestate", ""), ("baggage", ",")]);
    assert_eq!(reinjected(&received), lines(&[("traceparent", &traceparent("01"))]).0);
    assert!(reinjected(&Lines::default()).is_empty());
}

#[test]
fn contradicting_traceparents_are_ignored() {
    let received = lines(&[("traceparent", &traceparent("01")), ("traceparent", &traceparent("00"))]);
    assert!(reinjected(&received).is_empty());
}

#[test]
fn garbage_in_an_active_context_leaves_an_empty_base_empty() {
    let propagator = W3cPropagator::new();
    let active = propagator.extract_with_context(&Context::new(), &lines(&[("traceparent", &traceparent("01"))]));
    let _guard = active.attach();
    let garbage = lines(&[("traceparent", "garbage")]);
    assert!(!propagator.extract_with_context(&Context::new(), &garbage).has_active_span());
}

#[test]
fn the_sdk_reads_what_we_write_and_we_read_what_it_writes() {
    let sdk = TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(BaggagePropagator::new()),
    ]);
    let received = HashMap::from([
        ("traceparent".to_owned(), traceparent("01")),
        ("tracestate".to_owned(), "foo=1,bar=2".to_owned()),
        ("baggage".to_owned(), "token=a%3D%3D".to_owned()),
    ]);
    let ours = W3cPropagator::new();
    let mut by_us = HashMap::new();
    ours.inject_context(&sdk.extract_with_context(&Context::new(), &received), &mut by_us);
    assert_eq!(by_us, received);
    let mut by_sdk = HashMap::new();
    sdk.inject_context(&ours.extract_with_context(&Context::new(), &received), &mut by_sdk);
    assert_eq!(by_sdk, received);
}
