//! Allocations of the codec, counted on the current thread.

use allocation_counter::measure;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{TraceContextExt, TraceState};
use traced_broker::w3c::{TraceParent, decode, encode_context, tracestate};

use super::traceparent;

fn allocations(work: impl FnOnce()) -> u64 {
    measure(work).count_total
}

fn cost_of_writing(context: &Context, mut emit: impl FnMut(&[u8])) -> u64 {
    allocations(|| {
        encode_context(context, |_, value| emit(value));
    })
}

/// Returns the allocations of OpenTelemetry's own types for a remote span.
fn own_cost(traceparent: &str, tracestate: &str) -> u64 {
    let parent = TraceParent::parse(traceparent.as_bytes()).unwrap();
    allocations(|| {
        let state = if tracestate.is_empty() { TraceState::NONE } else { tracestate.parse().unwrap() };
        drop(Context::new().with_remote_span_context(parent.to_span_context(state)));
    })
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn a_traceparent_is_read_and_written_without_allocating() {
    let valid = traceparent("03");
    for value in [valid.as_str(), "", "garbage", &valid.to_uppercase(), &format!("cc-{}", &valid[3..])] {
        let count = allocations(|| {
            let parent = TraceParent::parse(value.as_bytes());
            std::hint::black_box(parent.map(|parent| parent.encode())).ok();
        });
        assert_eq!(count, 0, "{value}");
    }
}

#[test]
fn a_normal_tracestate_is_checked_without_allocating() {
    let longest: Vec<_> = (0..32).map(|at| format!("{at:0>256}={}", "v".repeat(256))).collect();
    for list in ["", "foo=1", "foo=1,0vendor=2,a@b@c= 3", &longest.join(","), "Foo=1", "foo=\n"] {
        assert_eq!(allocations(|| drop(std::hint::black_box(tracestate::normalize(list.as_bytes())))), 0);
    }
    assert_eq!(allocations(|| drop(tracestate::normalize(b"foo=1, bar=2"))), 1, "one for the corrected text");
}

#[test]
fn a_lone_traceparent_costs_what_the_remote_span_costs() {
    for flags in ["00", "01"] {
        let value = traceparent(flags);
        let count = allocations(|| drop(decode(Some(value.as_bytes()), None, None, &Context::new())));
        assert_eq!(count, own_cost(&value, ""));
        assert_eq!(count, 1);
    }
    let count = allocations(|| drop(decode(Some(b"garbage"), Some(b"foo=1"), None, &Context::new())));
    assert_eq!(count, 0);
}

#[test]
fn a_tracestate_costs_what_its_type_costs() {
    let (value, list) = (traceparent("01"), "foo=1,bar=2");
    let count = allocations(|| drop(decode(Some(value.as_bytes()), Some(list.as_bytes()), None, &Context::new())));
    assert_eq!(count, own_cost(&value, list));
}

#[test]
fn a_random_flag_costs_one_context_value() {
    #[derive(Debug)]
    struct Any(#[expect(dead_code, reason = "only its size counts")] u128);
    let one_value = allocations(|| drop(Context::new().with_value(Any(1))));
    let value = traceparent("03");
    let count = allocations(|| drop(decode(Some(value.as_bytes()), None, None, &Context::new())));
    assert_eq!(count, own_cost(&value, "") + one_value);
}

#[test]
fn writing_a_traceparent_does_not_allocate() {
    for flags in ["00", "01", "02", "03"] {
        let context = decode(Some(traceparent(flags).as_bytes()), None, None, &Context::new()).context;
        let mut written = [0; TraceParent::LEN];
        assert_eq!(cost_of_writing(&context, |value| written.copy_from_slice(value)), 0);
        assert_eq!(written, traceparent(flags).as_bytes());
    }
    assert_eq!(cost_of_writing(&Context::new(), |_| ()), 0);
}

#[test]
fn writing_a_list_that_is_beside_the_context_does_not_allocate() {
    let parent = traceparent("01");
    let context = decode(Some(parent.as_bytes()), Some(b"foo=1,a@b@c=2"), None, &Context::new()).context;
    assert_eq!(cost_of_writing(&context, |_| ()), 0);
}

#[test]
fn baggage_that_was_cleared_costs_nothing() {
    let context = Context::new().with_cleared_baggage();
    assert_eq!(cost_of_writing(&context, |_| ()), 0);
}
