//! The parts of a context besides its ids: the sampling decision, the trace state, the baggage.

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

use crate::broker::{Broker, TracedBroker};
use crate::conformance::case_context::{CaseContext, text};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::foreign::{Foreign, remote};
use crate::message::{Message, Received};

crate::conformance::case::cases! { Trace:
    b11_an_unsampled_context_travels []
        "A context that is not sampled travels with its decision, over two hops, and nothing is exported.";
    b11_contexts_travel_when_nothing_is_sampled []
        "With sampling at zero each message carries the context that its sender began, unsampled, and nothing is exported.";
    b12_flags_travel_as_they_came_without_an_sdk []
        "Without an SDK, the flags of the next hop are those received: sampled, random, both or neither.";
    b12_the_sampled_flag_is_neither_forced_nor_cleared []
        "With an SDK, a sampled message is recorded and an unsampled one is not, and the next hop carries the same decision.";
    b13_tracestate_and_baggage_survive []
        "Trace state and baggage reach the handler unchanged, and the next hop, and the one that the message is forwarded to.";
}

async fn b11_an_unsampled_context_travels(case: &CaseContext) -> Checked {
    let broker = case.untraced().await?.with_tracer_provider(&case.unsampled());
    let onward = case.topic("onward");
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let mut last = broker.subscribe(case.group_on(&onward, "g")).await?;
    let parent = remote(0xabc, 0xdef, TraceFlags::default());
    broker.publish(&case.topic, Message::new("x").context(parent)).await?;
    let delivery = case.next(&mut deliveries).await?;
    check_unsampled(delivery.creation_context().span().span_context(), "the message")?;
    let (publisher, to) = (broker.clone(), onward.clone());
    let handler = |_| async move {
        check_unsampled(Context::current().span().span_context(), "the handler")?;
        Ok(publisher.publish(&to, Message::new("y")).await?)
    };
    let error = delivery.process(handler).await?.error;
    check!(error.is_none(), "the handler succeeds: {error:?}");
    let delivery = case.next(&mut last).await?;
    check_unsampled(delivery.creation_context().span().span_context(), "the next message")?;
    delivery.process(|_| async { Ok(()) }).await?;
    broker.close().await?;
    check!(case.spans.all().is_empty(), "nothing is exported");
    Ok(())
}

fn check_unsampled(context: &SpanContext, whose: &str) -> Checked {
    check_eq!(context.trace_id(), TraceId::from(0xabc), "the trace of {whose}");
    check!(!context.is_sampled(), "the decision not to sample reaches {whose}");
    Ok(())
}

async fn b11_contexts_travel_when_nothing_is_sampled(case: &CaseContext) -> Checked {
    let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff);
    let provider = provider.with_simple_exporter(case.spans.clone()).build();
    let broker = case.untraced().await?.with_tracer_provider(&provider);
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("no context").key("one")).await?;
    let sampled = remote(0x123, 0x456, TraceFlags::SAMPLED);
    broker.publish(&case.topic, Message::new("sampled before").key("one").context(sampled)).await?;
    for traces in [None, Some(TraceId::from(0x123))] {
        let delivery = case.next(&mut deliveries).await?;
        let creation = delivery.creation_context().span().span_context().clone();
        check!(creation.is_valid() && !creation.is_sampled(), "an unsampled context arrives: {creation:?}");
        let (came, due) = (creation.trace_id(), traces.unwrap_or(creation.trace_id()));
        check_eq!(came, due, "the trace of the message");
        let handler = |_| async move {
            check_eq!(Context::current().span().span_context().trace_id(), due, "the trace of the handler");
            Ok(())
        };
        let error = delivery.process(handler).await?.error;
        check!(error.is_none(), "the handler succeeds: {error:?}");
    }
    broker.close().await?;
    check!(case.spans.all().is_empty(), "nothing is exported");
    Ok(())
}

/// Returns the flags of received messages, each with those of the messages that its handler
/// publishes and forwards.
async fn next_flags(case: &CaseContext, broker: &Broker) -> Checked<Vec<[String; 3]>> {
    let onward = case.topic("onward");
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let mut last = broker.subscribe(case.group_on(&onward, "g")).await?;
    let foreign = Foreign::on(case, broker.get_ref().clone()).await?;
    let mut seen = Vec::new();
    for flags in ["00", "01", "02", "03"] {
        let value = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        check!(foreign.publish(flags, &[("traceparent", value.as_bytes())]).await?, "plain text is carried");
        let (publisher, to) = (broker.clone(), onward.clone());
        let handler = |message: Received| async move {
            publisher.publish(&to, Message::new("new").key("one")).await?;
            publisher.forward(&to, Message::from(&message)).await?;
            Ok(())
        };
        case.handle(&mut deliveries, handler).await?;
        let mut next = [flags.to_owned(), String::new(), String::new()];
        for slot in &mut next[1..] {
            let delivery = case.next(&mut last).await?;
            let parent = delivery.message().headers().get_str("traceparent").unwrap_or_default().to_owned();
            check!(parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "the trace goes on: {parent:?}");
            *slot = parent.chars().skip(53).collect();
            delivery.process(|_| async { Ok(()) }).await?;
        }
        seen.push(next);
    }
    Ok(seen)
}

async fn b12_flags_travel_as_they_came_without_an_sdk(case: &CaseContext) -> Checked {
    let broker = case.untraced().await?;
    for [came, published, forwarded] in next_flags(case, &broker).await? {
        check_eq!((&published, &forwarded), (&came, &came), "the flags of what a handler publishes and forwards");
    }
    Ok(())
}

async fn b12_the_sampled_flag_is_neither_forced_nor_cleared(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    for [came, published, forwarded] in next_flags(case, &broker).await? {
        check_eq!((&published, &forwarded), (&came, &came), "the flags of what a handler publishes and forwards");
    }
    broker.close().await?;
    let recorded = case.spans.named(&case.process_name());
    check_eq!(recorded.len(), 2, "how many of four messages, two of them sampled, are recorded");
    check!(recorded.iter().all(|span| span.span_context.is_sampled()), "what is recorded is sampled");
    Ok(())
}

async fn b13_tracestate_and_baggage_survive(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let (onward, last) = (case.topic("onward"), case.topic("last"));
    let mut first = broker.subscribe(case.group("g")).await?;
    let mut second = broker.subscribe(case.group_on(&onward, "g")).await?;
    let mut third = broker.subscribe(case.group_on(&last, "g")).await?;
    let state = TraceState::from_key_value([("vendor", "a"), ("other", "b")]);
    let state = state.map_err(|error| Failure::new(format!("a trace state: {error}")))?;
    let parent = SpanContext::new(TraceId::from(7), SpanId::from(8), TraceFlags::SAMPLED, true, state);
    let context = Context::new()
        .with_remote_span_context(parent)
        .with_baggage([KeyValue::new("tenant", "acme, inc=1"), KeyValue::new("stage", "größe")]);
    broker.publish(&case.topic, Message::new("x").context(context)).await?;
    let (publisher, to) = (broker.clone(), onward.clone());
    let publishes = |message: Received| async move {
        check_laden(&message)?;
        Ok(publisher.publish(&to, Message::new("y")).await?)
    };
    case.handle(&mut first, publishes).await?;
    let (forwarder, to) = (broker.clone(), last.clone());
    let forwards = |message: Received| async move {
        check_laden(&message)?;
        Ok(forwarder.forward(&to, Message::from(&message)).await?)
    };
    case.handle(&mut second, forwards).await?;
    case.handle(&mut third, |message: Received| async move { Ok(check_laden(&message)?) }).await
}

/// Checks the context that the handler of a message sees, and the one that the message carries.
fn check_laden(message: &Received) -> Checked {
    let topic = message.topic();
    let current = Context::current();
    let baggage = |name| current.baggage().get(name).map(ToString::to_string).unwrap_or_default();
    check_eq!(baggage("tenant"), "acme, inc=1", "baggage of the handler of {topic}");
    check_eq!(baggage("stage"), "größe", "baggage of the handler of {topic}");
    let state = current.span().span_context().trace_state().header();
    check_eq!(state, "vendor=a,other=b", "the trace state of the handler of {topic}");
    let headers: Vec<String> = message.headers().get_all("tracestate").map(text).collect();
    check_eq!(headers, ["vendor=a,other=b"], "the trace state that the message of {topic} carries");
    Ok(())
}
