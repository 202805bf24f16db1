//! The contents of spans.

use crate::names::attribute;
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::SpanData;

use crate::broker::TracedBroker;
use crate::conformance::case_context::CaseContext;
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::spans::{attribute, attribute_text, check_linked};
use crate::context::propagation::TracePolicy;
use crate::message::Message;

crate::conformance::case::cases! { Telemetry:
    names_the_system_and_the_destination []
        "Spans say which system, operation, destination, server, group, attempt and settlement they are about.";
    links_instead_of_parenting_when_asked []
        "With the link policy, the process span begins its own trace; with the ignore policy, it has no links.";
}

async fn names_the_system_and_the_destination(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("x").key("k")).await?;
    case.next(&mut deliveries).await?.process(|_| async { Ok(()) }).await?;
    broker.close().await?;

    let (send, process) = (case.spans.one(&case.send_name())?, case.spans.one(&case.process_name())?);
    let identity = broker.get_ref().identity().clone();
    for (span, operation) in [(&send, "send"), (&process, "process")] {
        check_eq!(attribute_text(span, "messaging.system"), identity.system, "the system");
        check_eq!(attribute_text(span, "messaging.operation.name"), operation, "the operation");
        check_eq!(attribute_text(span, "messaging.operation.type"), operation, "the type of the operation");
        let destination = attribute_text(span, "messaging.destination.name");
        check!(destination.contains(&case.topic), "the destination names the topic: {destination}");
        let address = identity.server_address.as_deref().unwrap_or_default();
        check_eq!(attribute_text(span, "server.address"), address, "the server");
        let port = identity.server_port.map(|port| port.to_string()).unwrap_or_default();
        check_eq!(attribute_text(span, "server.port"), port, "the port of the server");
    }
    if case.capabilities.groups {
        let group = attribute_text(&process, "messaging.consumer.group.name");
        check_eq!(group, case.group_name("g"), "the group of the process span");
    }
    check!(attribute(&send, "messaging.consumer.group.name").is_none(), "a send span has no group");
    check_eq!(attribute_text(&process, attribute::DELIVERY_ATTEMPT), "1", "the attempt");
    let settlement = if case.capabilities.at_least_once { "ack" } else { "none" };
    check_eq!(attribute_text(&process, attribute::SETTLEMENT), settlement, "the settlement");
    if let Some(source) = case.capabilities.timestamp {
        let queued: f64 = attribute_text(&process, attribute::QUEUE_DURATION).parse().unwrap_or(-1.0);
        check!((0.0..20.0).contains(&queued), "a time in the queue that can be: {queued} s");
        check_eq!(attribute_text(&process, attribute::QUEUE_CLOCK), source.as_str(), "the clock");
    }
    Ok(())
}

async fn links_instead_of_parenting_when_asked(case: &CaseContext) -> Checked {
    let linked = processed_with(case, TracePolicy::Link).await?;
    let ignored = processed_with(case, TracePolicy::Ignore).await?;
    let sends = case.spans.named(&case.send_name());
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

/// Returns the process span of a message that is consumed with this policy.
async fn processed_with(case: &CaseContext, policy: TracePolicy) -> Checked<SpanData> {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").trace_policy(policy)).await?;
    broker.publish(&case.topic, Message::new("x")).await?;
    case.next(&mut deliveries).await?.process(|_| async { Ok(()) }).await?;
    broker.close().await?;
    let last = case.spans.named(&case.process_name()).pop();
    last.ok_or_else(|| crate::conformance::Failure::new("a process span is exported: there is none"))
}
