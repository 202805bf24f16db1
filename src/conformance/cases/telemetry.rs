//! What spans say.

use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::SpanData;

use super::super::failure::{Checked, check, check_eq};
use super::super::spans::{attribute, attribute_text, check_linked};
use super::super::world::World;
use crate::broker::TracedBroker;
use crate::message::Message;
use crate::propagation::TracePolicy;
use crate::span;

super::super::case::cases! { Telemetry:
    names_the_system_and_the_destination []
        "Spans say which system, operation, destination, server, group, attempt and settlement they are about.";
    links_instead_of_parenting_when_asked []
        "With the policy to link, the process span begins a trace of its own; with that to ignore, it links nothing.";
}

async fn names_the_system_and_the_destination(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("x").key("k")).await?;
    world.next(&mut deliveries).await?.process(|_| async { Ok(()) }).await?;
    broker.close().await?;

    let (send, process) = (world.spans.one(&world.send_name())?, world.spans.one(&world.process_name())?);
    let identity = broker.get_ref().identity().clone();
    for (span, operation) in [(&send, "send"), (&process, "process")] {
        check_eq!(attribute_text(span, "messaging.system"), identity.system, "the system");
        check_eq!(attribute_text(span, "messaging.operation.name"), operation, "the operation");
        check_eq!(attribute_text(span, "messaging.operation.type"), operation, "the type of the operation");
        let destination = attribute_text(span, "messaging.destination.name");
        check!(destination.contains(&world.topic), "the destination names the topic: {destination}");
        let address = identity.server_address.as_deref().unwrap_or_default();
        check_eq!(attribute_text(span, "server.address"), address, "the server");
        let port = identity.server_port.map(|port| port.to_string()).unwrap_or_default();
        check_eq!(attribute_text(span, "server.port"), port, "the port of the server");
    }
    if world.capabilities.groups {
        let group = attribute_text(&process, "messaging.consumer.group.name");
        check_eq!(group, world.group_name("g"), "the group of the process span");
    }
    check!(attribute(&send, "messaging.consumer.group.name").is_none(), "a send span has no group");
    check_eq!(attribute_text(&process, span::DELIVERY_ATTEMPT), "1", "the attempt");
    let settlement = if world.capabilities.at_least_once { "ack" } else { "none" };
    check_eq!(attribute_text(&process, span::SETTLEMENT), settlement, "the settlement");
    if let Some(source) = world.capabilities.timestamp {
        let queued: f64 = attribute_text(&process, span::QUEUE_DURATION).parse().unwrap_or(-1.0);
        check!((0.0..20.0).contains(&queued), "a time in the queue that can be: {queued} s");
        check_eq!(attribute_text(&process, span::QUEUE_CLOCK), source.as_str(), "the clock");
    }
    Ok(())
}

async fn links_instead_of_parenting_when_asked(world: &World) -> Checked {
    let linked = processed_with(world, TracePolicy::Link).await?;
    let ignored = processed_with(world, TracePolicy::Ignore).await?;
    let sends = world.spans.named(&world.send_name());
    check_eq!(sends.len(), 2, "the number of send spans");
    for (process, send) in [&linked, &ignored].into_iter().zip(&sends) {
        check_eq!(process.parent_span_id, SpanId::INVALID, "the parent of the process span");
        let shared = process.span_context.trace_id() == send.span_context.trace_id();
        check!(!shared, "the process span begins a trace of its own");
    }
    check_linked(&linked, &sends[0].span_context)?;
    check!(ignored.links.is_empty(), "nothing is linked when contexts are ignored");
    Ok(())
}

/// The process span of a message that is consumed with this policy.
async fn processed_with(world: &World, policy: TracePolicy) -> Checked<SpanData> {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").trace_policy(policy)).await?;
    broker.publish(&world.topic, Message::new("x")).await?;
    world.next(&mut deliveries).await?.process(|_| async { Ok(()) }).await?;
    broker.close().await?;
    let last = world.spans.named(&world.process_name()).pop();
    last.ok_or_else(|| super::super::Failure::new("a process span is exported: there is none"))
}
