//! Headers and the carrier, as properties: headers come out as they were put in, and one field is
//! one header.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use opentelemetry::propagation::{Extractor, Injector};
use proptest::collection::vec;
use proptest::prelude::*;
use traced_broker::Headers;
use traced_broker::carrier::{HeaderExtractor, HeaderInjector};

/// A simple reference implementation of a multimap.
#[derive(Debug, Clone, Default)]
struct Model(Vec<(String, Vec<u8>)>);

#[derive(Debug, Clone)]
enum Step {
    Append(String, Vec<u8>),
    Insert(String, Vec<u8>),
    Remove(String),
    Set(String, String),
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("traceparent".to_owned()),
        Just("TraceParent".to_owned()),
        Just("tracestate".to_owned()),
        "[a-zA-Z]{0,3}",
        "\\PC{0,8}",
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let value = || vec(any::<u8>(), 0..40);
    prop_oneof![
        (name(), value()).prop_map(|(name, value)| Step::Append(name, value)),
        (name(), value()).prop_map(|(name, value)| Step::Insert(name, value)),
        name().prop_map(Step::Remove),
        (name(), ".{0,20}").prop_map(|(name, value)| Step::Set(name, value)),
    ]
}

impl Model {
    fn remove(&mut self, name: &str) -> usize {
        let before = self.0.len();
        self.0.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        before - self.0.len()
    }

    fn all(&self, name: &str) -> Vec<&[u8]> {
        let named = self.0.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_slice()).collect()
    }
}

proptest! {
    #[test]
    fn behave_as_an_ordered_multimap(steps in vec(step(), 0..40)) {
        let (mut headers, mut model) = (Headers::new(), Model::default());
        for step in steps {
            match step {
                Step::Append(name, value) => {
                    headers.append(&name, &value);
                    model.0.push((name, value));
                }
                Step::Insert(name, value) => {
                    headers.insert(&name, &value);
                    model.remove(&name);
                    model.0.push((name, value));
                }
                Step::Remove(name) => prop_assert_eq!(headers.remove(&name), model.remove(&name)),
                Step::Set(name, value) => {
                    HeaderInjector::new(&mut headers).set(&name, value.clone());
                    model.remove(&name);
                    if !value.is_empty() && !value.chars().any(char::is_control) {
                        model.0.push((name.to_ascii_lowercase(), value.into_bytes()));
                    }
                }
            }
            let listed: Vec<(String, Vec<u8>)> =
                headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            prop_assert_eq!(&listed, &model.0);
            prop_assert_eq!(headers.len(), model.0.len());
            prop_assert_eq!(headers.is_empty(), model.0.is_empty());
            let bytes: usize = model.0.iter().map(|(name, value)| name.len() + value.len()).sum();
            prop_assert_eq!(headers.byte_len(), bytes);
            for (name, _) in &model.0 {
                prop_assert_eq!(headers.get_all(name).collect::<Vec<_>>(), model.all(name));
                prop_assert_eq!(headers.get(name), model.all(name).first().copied());
            }
        }
        prop_assert_eq!(headers.clone(), headers.iter().collect::<Headers>());
    }

    #[test]
    fn read_any_bytes_without_a_panic(pairs in vec((name(), vec(any::<u8>(), 0..80)), 0..8), asked in name()) {
        let headers: Headers = pairs.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let extractor = HeaderExtractor::new(&headers);
        for name in [asked.as_str(), "traceparent", "tracestate", "baggage", "B3"] {
            if let Some(value) = extractor.get(name) {
                prop_assert!(!value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t'));
            }
        }
        prop_assert_eq!(extractor.keys().len(), headers.len());
    }
}

#[test]
fn a_field_that_is_set_replaces_every_header_of_its_name() {
    let mut headers: Headers = [("TraceParent", "a"), ("x", "y"), ("traceparent", "b")].into_iter().collect();
    HeaderInjector::new(&mut headers).set("Traceparent", "c".to_owned());
    assert_eq!(headers.iter().collect::<Vec<_>>(), [("x", &b"y"[..]), ("traceparent", b"c")]);
}

#[test]
fn lists_are_joined_in_order_and_conflicts_are_absent() {
    let headers: Headers = [
        ("tracestate", "a=1"),
        ("TraceState", "b=2"),
        ("baggage", "k=v"),
        ("b3", "same"),
        ("B3", "same"),
        ("uber-trace-id", "one"),
        ("Uber-Trace-Id", "two"),
    ]
    .into_iter()
    .collect();
    let extractor = HeaderExtractor::new(&headers);
    assert_eq!(extractor.get("Tracestate"), Some("a=1,b=2"));
    assert_eq!(extractor.get("BAGGAGE"), Some("k=v"));
    assert_eq!(extractor.get("b3"), Some("same"), "identical values are one");
    assert_eq!(extractor.get("uber-trace-id"), None, "different values are none");
}

#[test]
fn an_empty_set_allocates_nothing_and_debug_shows_no_value() {
    let headers: Headers = [("authorization", "s3cret")].into_iter().collect();
    assert!(!format!("{headers:?}").contains("s3cret"));
    assert_eq!(Headers::new(), Headers::default());
}
