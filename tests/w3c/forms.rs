//! The codec against every form that foreign producers write; the conformance kit sends the same
//! forms through every broker.

use allocation_counter::measure;
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use traced_broker::Headers;
use traced_broker::carrier::HeaderExtractor;
use traced_broker::names::header;
use traced_broker::w3c::{Extracted, TraceParent, W3cPropagator, decode_all, encode_context, tracestate};

use super::vectors::{Read, Vector, baggage, hostile, traceparents, tracestates};
use super::written;

fn all() -> Vec<Vector> {
    [traceparents(), tracestates(), baggage(), hostile()].concat()
}

fn headers(vector: &Vector) -> Headers {
    vector.headers.iter().map(|(name, value)| (name.as_str(), value)).collect()
}

fn read(headers: &Headers) -> Extracted {
    let [parent, state, baggage] =
        [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE].map(|name| headers.get_all(name));
    decode_all(parent, state, baggage, &Context::new())
}

fn seen(context: &Context) -> Read {
    let mut state = String::new();
    encode_context(context, |name, value| {
        if name == header::TRACESTATE {
            state = String::from_utf8(value.to_vec()).unwrap();
        }
    });
    Read::of(context, &state)
}

#[test]
fn there_is_every_kind_of_form() {
    for (forms, fewest) in [(traceparents(), 150), (tracestates(), 75), (baggage(), 60), (hostile(), 45)] {
        assert!(forms.len() >= fewest, "{}", forms.len());
        let mut names: Vec<&str> = forms.iter().map(|vector| vector.what.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), forms.len(), "each has a name of its own");
    }
    assert!(all().iter().any(|vector| vector.read.parent.is_none()));
}

#[test]
fn every_form_is_read_as_it_must_be() {
    for vector in all() {
        assert_eq!(seen(&read(&headers(&vector)).context), vector.read, "{}", vector.what);
    }
}

#[test]
fn what_was_read_is_written_once_and_read_again() {
    for vector in all() {
        let context = read(&headers(&vector)).context;
        let (sent, issues) = written(&context);
        assert!(issues.is_empty(), "{}: {issues:?}", vector.what);
        assert_eq!(
            sent.first().filter(|(name, _)| *name == header::TRACEPARENT).map(|(_, value)| value),
            vector.read.parent.as_ref()
        );
        let mut again = Headers::new();
        encode_context(&context, |name, value| again.append(name, value));
        let once = read(&again);
        assert!(once.issues.is_empty(), "{}: {:?}", vector.what, once.issues);
        assert_eq!(seen(&once.context), vector.read, "{}", vector.what);
    }
}

#[test]
fn what_is_left_out_is_told() {
    for vector in all() {
        let issue = read(&headers(&vector)).issues.traceparent;
        assert_eq!(issue.is_some(), vector.has_bad_parent(), "{}", vector.what);
    }
    for vector in tracestates() {
        let has_one = vector.headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case(header::TRACESTATE) && value.iter().any(|byte| !b" \t,".contains(byte))
        });
        let issue = read(&headers(&vector)).issues.tracestate;
        assert_eq!(issue.is_some(), has_one && vector.read.state.is_empty(), "{}", vector.what);
    }
}

/// Propagators receive only text: other values are absent for them, and text reads as it does for
/// the codec.
#[test]
fn the_propagator_reads_the_same_through_a_carrier() {
    for vector in all() {
        let headers = headers(&vector);
        let is_text = |value: &[u8]| {
            str::from_utf8(value).is_ok_and(|text| !text.chars().any(|c| c.is_ascii_control() && c != '\t'))
        };
        if !vector.headers.iter().all(|(_, value)| is_text(value)) {
            continue;
        }
        let context = W3cPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor::new(&headers));
        assert_eq!(seen(&context), vector.read, "{}", vector.what);
    }
}

#[test]
fn nothing_is_allocated_to_check_any_form() {
    for vector in all() {
        for (name, value) in &vector.headers {
            let (count, allowed) = match name.as_str() {
                header::TRACEPARENT => (measure(|| _ = std::hint::black_box(TraceParent::parse(value))).count_total, 0),
                header::TRACESTATE => {
                    // An invalid list or one already normalised costs no allocation; a corrected
                    // list costs one, for its text.
                    let is_corrected = tracestate::normalize(value).is_ok_and(|list| list.text.as_bytes() != value);
                    let count = measure(|| drop(std::hint::black_box(tracestate::normalize(value)))).count_total;
                    (count, u64::from(is_corrected))
                }
                _ => continue,
            };
            assert!(count <= allowed, "{}: {count}", vector.what);
        }
    }
}

/// A message without a readable context causes no allocation, however large it is.
#[test]
fn nothing_is_allocated_for_what_is_dropped() {
    for vector in all().iter().filter(|vector| vector.headers.len() == 1 && vector.read == Read::default()) {
        let headers = headers(vector);
        if headers.contains(header::BAGGAGE) {
            continue;
        }
        let count = measure(|| drop(std::hint::black_box(read(&headers)))).count_total;
        assert_eq!(count, 0, "{}", vector.what);
    }
}
