//! Contexts that travel: sampled or not, with and without an SDK, by the user's propagator, with baggage.

use futures_util::StreamExt;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};

use super::super::failure::{Checked, Failure, check, check_eq};
use super::super::world::{World, text};
use crate::broker::TracedBroker;
use crate::message::Message;
use crate::received::Received;

super::super::case::cases! { Telemetry:
    carries_unsampled_contexts []
        "A context that is not sampled travels with its decision, and nothing is exported.";
    carries_contexts_without_an_sdk []
        "Without an SDK a context is passed through; a message without one gets none.";
    uses_the_users_propagator []
        "With the user's propagator only its header travels, once, and no stale one beside it.";
    carries_tracestate_and_baggage []
        "Trace state and baggage reach the handler as they were.";
    never_mixes_contexts_of_concurrent_deliveries []
        "A thousand messages handled sixty-four at a time: each handler sees the context of its own message.";
}

async fn carries_unsampled_contexts(world: &World) -> Checked {
    let broker = world.untraced().await?.with_tracer_provider(&world.unsampled());
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let parent = remote(0xabc, 0xdef, TraceFlags::default());
    broker.publish(&world.topic, Message::new("x").context(parent)).await?;
    let delivery = world.next(&mut deliveries).await?;
    let creation = delivery.creation_context().span().span_context().clone();
    check_eq!(creation.trace_id(), TraceId::from(0xabc), "the trace of the message");
    check!(!creation.is_sampled(), "the decision not to sample travels");
    let seen = delivery.process(|_| async {
        let current = Context::current().span().span_context().clone();
        check_eq!(current.trace_id(), TraceId::from(0xabc), "the trace of the handler");
        check!(!current.is_sampled(), "the decision not to sample reaches the handler");
        Ok(())
    });
    let error = seen.await?.error;
    check!(error.is_none(), "the handler succeeds: {error:?}");
    broker.close().await?;
    check!(world.spans.all().is_empty(), "nothing is exported");
    Ok(())
}

async fn carries_contexts_without_an_sdk(world: &World) -> Checked {
    let broker = world.untraced().await?;
    let onward = world.topic("onward");
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let mut last = broker.subscribe(world.group_on(&onward, "g")).await?;
    let parent = remote(0x123, 0x456, TraceFlags::SAMPLED);
    broker.publish(&world.topic, Message::new("x").key("one").context(parent)).await?;
    broker.publish(&world.topic, Message::new("no context at all").key("one")).await?;

    let delivery = world.next(&mut deliveries).await?;
    let expected = format!("00-{:032x}-{:016x}-01", 0x123, 0x456);
    check_eq!(delivery.message().headers().get_str("traceparent"), Some(&*expected), "the context");
    let (publisher, to) = (broker.clone(), onward.clone());
    let processed = delivery.process(|_| async move { Ok(publisher.publish(&to, Message::new("y")).await?) }).await?;
    check!(processed.error.is_none(), "the handler succeeds: {:?}", processed.error);
    let forwarded = world.next(&mut last).await?;
    check_eq!(
        forwarded.message().headers().get_str("traceparent"),
        Some(&*expected),
        "the context handed on by a handler"
    );
    forwarded.ack().await?;

    let bare = world.next(&mut deliveries).await?;
    check!(!bare.message().headers().contains("traceparent"), "a message without a context has no header for it");
    bare.ack().await?;
    Ok(())
}

async fn uses_the_users_propagator(world: &World) -> Checked {
    let broker = world.broker().await?.with_propagator(OneHeader);
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let stale = "00-11111111111111111111111111111111-2222222222222222-01";
    let message = Message::new("x").header("traceparent", stale).header("X-One-Context", "stale");
    broker.publish(&world.topic, message).await?;
    let delivery = world.next(&mut deliveries).await?;
    let headers = delivery.message().headers();
    check!(!headers.contains("traceparent"), "a stale context does not travel beside the user's");
    check_eq!(headers.get_all("x-one-context").count(), 1, "how many contexts the message carries");
    delivery.process(|_| async { Ok(()) }).await?;
    broker.close().await?;
    world.spans.check_everything_resolves()?;
    let (send, process) = (world.spans.one(&world.send_name())?, world.spans.one(&world.process_name())?);
    check_eq!(process.parent_span_id, send.span_context.span_id(), "the parent of the process span");
    Ok(())
}

async fn carries_tracestate_and_baggage(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let state = TraceState::from_key_value([("vendor", "a"), ("other", "b")]);
    let state = state.map_err(|error| Failure::new(format!("a trace state: {error}")))?;
    let remote = SpanContext::new(TraceId::from(7), SpanId::from(8), TraceFlags::SAMPLED, true, state);
    let context = Context::new()
        .with_remote_span_context(remote)
        .with_baggage([KeyValue::new("tenant", "acme, inc=1"), KeyValue::new("stage", "größe")]);
    broker.publish(&world.topic, Message::new("x").context(context)).await?;
    let delivery = world.next(&mut deliveries).await?;
    check_eq!(delivery.message().headers().get_str("tracestate"), Some("vendor=a,other=b"), "the trace state");
    let seen = delivery.process(|_| async {
        let current = Context::current();
        let baggage = |name| current.baggage().get(name).map(ToString::to_string).unwrap_or_default();
        check_eq!(baggage("tenant"), "acme, inc=1", "baggage of the handler");
        check_eq!(baggage("stage"), "größe", "baggage of the handler");
        let state = current.span().span_context().trace_state().header();
        check_eq!(state, "vendor=a,other=b", "the trace state of the handler");
        Ok(())
    });
    let error = seen.await?.error;
    check!(error.is_none(), "the handler succeeds: {error:?}");
    Ok(())
}

async fn never_mixes_contexts_of_concurrent_deliveries(world: &World) -> Checked {
    const COUNT: usize = 1_000;
    let broker = world.broker().await?;
    let deliveries = broker.subscribe(world.group("g").prefetch(128)).await?;
    let publishes = (1..=COUNT).map(|number| {
        let context = remote(number as u128, number as u64, TraceFlags::SAMPLED);
        let context = context.with_baggage([KeyValue::new("number", number.to_string())]);
        broker.publish(&world.topic, Message::new(number.to_string()).key(number.to_string()).context(context))
    });
    for result in futures_util::future::join_all(publishes).await {
        result?;
    }
    let delivered = deliveries.filter_map(|item| std::future::ready(item.ok()));
    let handled = delivered.map(|delivery| delivery.process(see_own_context)).buffer_unordered(64).take(COUNT);
    let handled: Vec<_> = world.within("all deliveries", handled.collect()).await?;
    for processed in handled {
        let error = processed?.error;
        check!(error.is_none(), "each handler sees its own context: {error:?}");
    }
    broker.close().await?;
    check_eq!(world.spans.named(&world.process_name()).len(), COUNT, "the number of process spans");
    Ok(())
}

async fn see_own_context(message: Received) -> Result<(), crate::HandlerError> {
    tokio::task::yield_now().await;
    let number = text(message.payload());
    let current = Context::current();
    let trace: u128 = number.parse()?;
    check_eq!(current.span().span_context().trace_id(), TraceId::from(trace), "the trace of message {number}");
    check_eq!(
        current.baggage().get("number").map(ToString::to_string),
        Some(number.clone()),
        "the baggage of message {number}"
    );
    Ok(())
}

fn remote(trace: u128, span: u64, flags: TraceFlags) -> Context {
    let context = SpanContext::new(TraceId::from(trace), SpanId::from(span), flags, true, TraceState::default());
    Context::new().with_remote_span_context(context)
}

/// A propagator that is not the W3C's: everything in one header.
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
        let (Ok(trace), Ok(span)) = (TraceId::from_hex(trace), SpanId::from_hex(span)) else { return context.clone() };
        let state = TraceState::default();
        context.with_remote_span_context(SpanContext::new(trace, span, TraceFlags::SAMPLED, true, state))
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: std::sync::LazyLock<[String; 1]> = std::sync::LazyLock::new(|| [ONE_HEADER.to_owned()]);
        FieldIter::new(&*FIELDS)
    }
}
