//! Received contexts pass through spans of the real SDK, whatever the sampler decides.

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample};
use traced_broker::w3c::decode;

use super::{SPAN, TRACE, header, traceparent};

const LIST: &str = "rojo=00f067aa0ba902b7,0vendor=x,1a@b=y,foo@@bar=z,t@vvvvvvvvvvvvvvv= w";

fn received(flags: &str, tracestate: &str) -> Context {
    let traceparent = traceparent(flags);
    let received =
        decode(Some(traceparent.as_bytes()), Some(tracestate.as_bytes()), Some(b"user=a%20b;ttl=3"), &Context::new());
    assert!(received.issues.is_empty());
    received.context
}

/// Returns the context of a span two generations below.
fn grandchild(parent: &Context, sampler: impl ShouldSample + 'static) -> Context {
    let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
    let tracer = provider.tracer("test");
    let child = parent.with_span(tracer.start_with_context("child", parent));
    let grandchild = child.with_span(tracer.start_with_context("grandchild", &child));
    assert!(!grandchild.span().span_context().is_remote());
    assert_ne!(grandchild.span().span_context().span_id().to_string(), SPAN);
    grandchild
}

#[track_caller]
fn assert_written(context: &Context, flags: &str, tracestate: &str) {
    let span_id = context.span().span_context().span_id();
    assert_eq!(header(context, "traceparent").unwrap(), format!("00-{TRACE}-{span_id}-{flags}"));
    assert_eq!(header(context, "tracestate").unwrap(), tracestate);
    assert_eq!(header(context, "baggage").unwrap(), "user=a%20b;ttl=3");
    assert_eq!(context.baggage().get("user").unwrap().as_str(), "a b");
}

#[test]
fn sampled_children_pass_everything_on() {
    for (received_flags, sent) in [("01", "01"), ("03", "03"), ("00", "01"), ("02", "03"), ("ff", "03")] {
        assert_written(&grandchild(&received(received_flags, LIST), Sampler::AlwaysOn), sent, LIST);
    }
}

#[test]
fn children_that_are_not_sampled_pass_everything_on() {
    for (received_flags, sent) in [("01", "00"), ("03", "02"), ("00", "00"), ("02", "02")] {
        assert_written(&grandchild(&received(received_flags, LIST), Sampler::AlwaysOff), sent, LIST);
    }
}

#[test]
fn the_parent_based_sampler_passes_everything_on() {
    let sampler = || Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
    for flags in ["00", "01", "02", "03"] {
        assert_written(&grandchild(&received(flags, "a=1,b=2"), sampler()), flags, "a=1,b=2");
        assert_written(&grandchild(&received(flags, LIST), sampler()), flags, LIST);
    }
}

#[test]
fn a_new_trace_in_the_same_context_inherits_the_baggage_only() {
    let parent = received("03", LIST);
    let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
    let root = provider.tracer("test").start_with_context("root", &Context::new());
    let context = parent.with_span(root);
    let span = context.span().span_context().clone();
    assert_ne!(span.trace_id().to_string(), TRACE);
    let expected = format!("00-{}-{}-00", span.trace_id(), span.span_id());
    assert_eq!(header(&context, "traceparent").unwrap(), expected);
    assert_eq!(header(&context, "tracestate"), None);
    assert_eq!(header(&context, "baggage").unwrap(), "user=a%20b;ttl=3");
}

/// A sampler that adds a member to the list, as consistent probability samplers do.
#[derive(Clone, Debug)]
struct Marks(SamplingDecision);

impl ShouldSample for Marks {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let state = parent.unwrap().span().span_context().trace_state().insert("ot", "th:8").unwrap();
        SamplingResult { decision: self.0.clone(), attributes: Vec::new(), trace_state: state }
    }
}

#[test]
fn what_a_sampler_changes_wins_and_the_random_flag_stays() {
    for (decision, flags) in [
        (SamplingDecision::RecordAndSample, "03"),
        (SamplingDecision::RecordOnly, "02"),
        (SamplingDecision::Drop, "02"),
    ] {
        let context = grandchild(&received("03", "foo=1,ot=th:4,bar=2"), Marks(decision.clone()));
        assert_written(&context, flags, "ot=th:8,foo=1,bar=2");
        let context = grandchild(&received("03", "foo=1,a@b@c=2"), Marks(decision));
        assert_written(&context, flags, "ot=th:8,foo=1");
    }
}

#[test]
fn without_an_sdk_the_received_context_is_passed_on_as_it_is() {
    let parent = received("02", LIST);
    let tracer = opentelemetry::trace::noop::NoopTracer::new();
    let context = parent.with_span(tracer.start_with_context("child", &parent));
    assert_eq!(header(&context, "traceparent").unwrap(), traceparent("02"));
    assert_eq!(header(&context, "tracestate").unwrap(), LIST);
}
