//! Propagators other than the library's own, and no SDK at all.

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

use crate::broker::TracedBroker;
use crate::conformance::case_context::CaseContext;
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::foreign::remote;
use crate::conformance::spans::check_child;
use crate::context::propagators::B3;
use crate::message::{HandlerError, Message};

crate::conformance::case::cases! { Trace:
    b14_the_users_propagator_is_used []
        "With the application's propagator, only its header travels, once, without a stale one beside it.";
    b14_a_b3_header_alone_carries_the_trace []
        "With a propagator that knows only B3's single header, traces continue over two hops, and so do decisions not to sample.";
    b15_contexts_travel_without_an_sdk []
        "Without an SDK, a context is passed through; a message without one gets none.";
    b15_contexts_stay_without_an_sdk_when_messages_come_again [AtLeastOnce]
        "Without an SDK, the context is kept over a retry and in the dead letter.";
}

async fn b14_the_users_propagator_is_used(case: &CaseContext) -> Checked {
    let broker = case.broker().await?.with_propagator(OneHeader);
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let stale = "00-11111111111111111111111111111111-2222222222222222-01";
    let message = Message::new("x").header("traceparent", stale).header("X-One-Context", "stale");
    broker.publish(&case.topic, message).await?;
    let delivery = case.next(&mut deliveries).await?;
    let headers = delivery.message().headers();
    check!(!headers.contains("traceparent"), "a stale context does not travel beside the user's");
    check_eq!(headers.get_all("x-one-context").count(), 1, "how many contexts the message carries");
    delivery.process(|_| async { Ok(()) }).await?;
    broker.close().await?;
    let (send, process) = (case.spans.one(&case.send_name())?, case.spans.one(&case.process_name())?);
    check_child(&process, &send.span_context)?;
    case.expect_whole_traces();
    Ok(())
}

async fn b14_a_b3_header_alone_carries_the_trace(case: &CaseContext) -> Checked {
    let broker = case.broker().await?.with_propagator(B3::Single);
    let onward = case.topic("onward");
    let mut first = broker.subscribe(case.group("g")).await?;
    let mut second = broker.subscribe(case.group_on(&onward, "g")).await?;
    for (trace, sampled) in [(0x11, TraceFlags::SAMPLED), (0x22, TraceFlags::default())] {
        broker.publish(&case.topic, Message::new("x").context(remote(trace, 0x9, sampled))).await?;
        let (publisher, to) = (broker.clone(), onward.clone());
        let publishes = |_| async move { Ok(publisher.publish(&to, Message::new("y")).await?) };
        case.handle(&mut first, publishes).await?;
        let delivery = case.next(&mut second).await?;
        let headers = delivery.message().headers();
        let others = ["traceparent", "tracestate", "baggage"].map(|name| headers.contains(name));
        check_eq!(others, [false; 3], "whether the message carries what is not B3's");
        let b3 = headers.get_str("b3").unwrap_or_default().to_owned();
        let decision = if sampled.is_sampled() { "-1" } else { "-0" };
        check!(b3.starts_with(&format!("{trace:032x}-")) && b3.ends_with(decision), "the trace goes on: {b3:?}");
        delivery.process(|_| async { Ok(()) }).await?;
    }
    broker.close().await?;
    let processed = [case.process_name(), format!("process {onward}")].map(|name| case.spans.named(&name).len());
    check_eq!(processed, [1, 1], "how many process spans of sampled traces there are at each hop");
    let last = case.spans.one(&format!("process {onward}"))?;
    check_child(&last, &case.spans.one(&format!("send {onward}"))?.span_context)
}

async fn b15_contexts_travel_without_an_sdk(case: &CaseContext) -> Checked {
    let broker = case.untraced().await?;
    let onward = case.topic("onward");
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let mut last = broker.subscribe(case.group_on(&onward, "g")).await?;
    let parent = remote(0x123, 0x456, TraceFlags::SAMPLED);
    let message = |payload: &'static str| Message::new(payload).key("one");
    broker.publish(&case.topic, message("x").context(parent.clone())).await?;
    for result in broker.publish_batch(&case.topic, vec![message("in a batch").context(parent)]).await {
        result?;
    }
    broker.publish(&case.topic, message("no context at all")).await?;

    let expected = format!("00-{:032x}-{:016x}-01", 0x123, 0x456);
    for _ in 0..2 {
        let delivery = case.next(&mut deliveries).await?;
        check_eq!(delivery.message().headers().get_str("traceparent"), Some(&*expected), "the context");
        let (publisher, to) = (broker.clone(), onward.clone());
        let handler = |_| async move { Ok(publisher.publish(&to, Message::new("y")).await?) };
        let error = delivery.process(handler).await?.error;
        check!(error.is_none(), "the handler succeeds: {error:?}");
        let next = case.next(&mut last).await?;
        check_eq!(next.message().headers().get_str("traceparent"), Some(&*expected), "the context handed on");
        next.ack().await?;
    }
    let bare = case.next(&mut deliveries).await?;
    check!(!bare.message().headers().contains("traceparent"), "a message without a context has no header for it");
    bare.ack().await?;
    Ok(())
}

async fn b15_contexts_stay_without_an_sdk_when_messages_come_again(case: &CaseContext) -> Checked {
    let dead = case.topic("dead");
    let broker = case.untraced().await?;
    let mut deliveries = broker.subscribe(case.group("g").dead_letter(&dead)).await?;
    let mut graves = broker.subscribe(case.group_on(&dead, "desk")).await?;
    let parent = remote(0x123, 0x456, TraceFlags::SAMPLED);
    broker.publish(&case.topic, Message::new("x").context(parent)).await?;
    let expected = format!("00-{:032x}-{:016x}-01", 0x123, 0x456);
    for error in [HandlerError::retry("not yet"), HandlerError::reject("never")] {
        let delivery = case.next(&mut deliveries).await?;
        check_eq!(delivery.message().headers().get_str("traceparent"), Some(&*expected), "the context");
        delivery.process(|_| async { Err::<(), _>(error) }).await?;
    }
    let grave = case.next(&mut graves).await?;
    check_eq!(grave.message().headers().get_str("traceparent"), Some(&*expected), "the context of the dead letter");
    grave.ack().await?;
    Ok(())
}

/// A propagator that writes everything into one header, and follows no standard.
#[derive(Debug)]
struct OneHeader;

const ONE_HEADER: &str = "X-One-Context";

impl TextMapPropagator for OneHeader {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        let span = context.span().span_context().clone();
        injector.set(ONE_HEADER, format!("{}/{}", span.trace_id(), span.span_id()));
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        let ids = extractor.get(ONE_HEADER).and_then(|value| value.split_once('/'));
        let Some((trace, span)) = ids else { return context.clone() };
        onto(context, trace, span, TraceFlags::SAMPLED)
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: std::sync::LazyLock<[String; 1]> = std::sync::LazyLock::new(|| [ONE_HEADER.to_owned()]);
        FieldIter::new(&*FIELDS)
    }
}

fn onto(context: &Context, trace: &str, span: &str, flags: TraceFlags) -> Context {
    let (Ok(trace), Ok(span)) = (TraceId::from_hex(trace), SpanId::from_hex(span)) else { return context.clone() };
    context.with_remote_span_context(SpanContext::new(trace, span, flags, true, TraceState::default()))
}
