//! Traces, checked on the spans that were exported.

use std::time::Duration;

use opentelemetry::trace::{SpanId, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::SpanData;

use super::super::failure::{Checked, check, check_eq};
use super::super::spans::{attribute, attribute_text, check_kind, check_linked};
use super::super::world::{World, numbers, text};
use crate::address::Topic;
use crate::broker::TracedBroker;
use crate::driver::Outbound;
use crate::handler::HandlerError;
use crate::message::Message;
use crate::propagation::TracePolicy;
use crate::received::Received;
use crate::span;

super::super::case::cases! { Telemetry:
    makes_one_trace_of_send_and_process []
        "The process span is in the sender's trace, child of the send span and linked to it, current for the handler.";
    names_the_system_and_the_destination []
        "Spans say which system, operation, destination, server, group, attempt and settlement they are about.";
    keeps_retries_in_the_trace [AtLeastOnce]
        "Each attempt has a process span of its own, all children of the one send span.";
    gives_each_message_of_a_batch_its_own_context []
        "Each message of a batch has a creation context of its own; the send spans link all of them.";
    keeps_the_creation_context_when_forwarding []
        "A forwarded message keeps its creation context, and the span that forwards links it.";
    ends_the_span_of_a_cancelled_handler [AtLeastOnce]
        "The span of a handler that is cancelled ends, marked so, and the message comes again.";
    keeps_the_receiving_loop_out_of_the_trace []
        "A span that is current where messages are received is linked and is the parent of none.";
    links_instead_of_parenting_when_asked []
        "With the policy to link, the process span begins a trace of its own; with that to ignore, it links nothing.";
}

async fn makes_one_trace_of_send_and_process(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let root = world.root("POST /orders");
    broker.publish(&world.topic, Message::new("x").key("k").context(root.clone())).await?;

    let delivery = world.next(&mut deliveries).await?;
    let provider = world.provider.clone();
    let ships = |_| async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        // What the application does is inside, after an await too.
        drop(provider.tracer("application").start("ship"));
        Ok(())
    };
    delivery.process(ships).await?;
    root.span().end();
    broker.close().await?;

    let spans = &world.spans;
    let (root, send) = (spans.one("POST /orders")?, spans.one(&world.send_name())?);
    let (process, ship) = (spans.one(&world.process_name())?, spans.one("ship")?);
    spans.check_everything_resolves()?;
    for span in [&send, &process, &ship] {
        check_eq!(span.span_context.trace_id(), root.span_context.trace_id(), "the trace of {}", span.name);
    }
    check_eq!(send.parent_span_id, root.span_context.span_id(), "the parent of the send span");
    check_eq!(process.parent_span_id, send.span_context.span_id(), "the parent of the process span");
    check_linked(&process, &send.span_context)?;
    check_eq!(ship.parent_span_id, process.span_context.span_id(), "the parent of the application's span");
    check_kind(&send, SpanKind::Producer)?;
    check_kind(&process, SpanKind::Consumer)?;
    check_eq!((&send.status, &process.status), (&Status::Unset, &Status::Unset), "the status of success");
    check!(process.start_time <= ship.start_time, "the process span begins before the handler");
    check!(process.end_time >= ship.end_time, "the process span ends after the handler");
    Ok(())
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

async fn keeps_retries_in_the_trace(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("x")).await?;
    for attempt in 1..=3 {
        let delivery = world.next(&mut deliveries).await?;
        let contexts = delivery.message().headers().get_all("traceparent").count();
        check_eq!(contexts, 1, "how many contexts the message carries");
        let handler = |_: Received| async move {
            if attempt < 3 {
                return Err(HandlerError::retry_after("not yet", Duration::from_millis(50)));
            }
            Ok(())
        };
        delivery.process(handler).await?;
    }
    broker.close().await?;
    world.spans.check_everything_resolves()?;
    let send = world.spans.one(&world.send_name())?;
    let attempts = world.spans.named(&world.process_name());
    check_eq!(attempts.len(), 3, "the number of process spans");
    for (index, span) in attempts.iter().enumerate() {
        check_eq!(span.parent_span_id, send.span_context.span_id(), "the parent of attempt {}", index + 1);
        check_linked(span, &send.span_context)?;
        let failed = index < 2;
        check_eq!(matches!(span.status, Status::Error { .. }), failed, "whether attempt {} failed", index + 1);
        check_eq!(attribute_text(span, "error.type"), if failed { "handler_error" } else { "" }, "the error");
        check_eq!(attribute_text(span, span::SETTLEMENT), if failed { "retry" } else { "ack" }, "the settlement");
    }
    Ok(())
}

async fn gives_each_message_of_a_batch_its_own_context(world: &World) -> Checked {
    const COUNT: usize = 150;
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").prefetch(COUNT)).await?;
    let root = world.root("import");
    let guard = root.clone().attach();
    let messages = numbers(COUNT).into_iter().map(|number| Message::new(number).key("one")).collect();
    let publish = broker.publish_batch(&world.topic, messages);
    drop(guard);
    for result in publish.await {
        result?;
    }
    let mut order = Vec::new();
    for _ in 0..COUNT {
        let delivery = world.next(&mut deliveries).await?;
        order.push(text(delivery.message().payload()));
        delivery.process(|_| async { Ok(()) }).await?;
    }
    root.span().end();
    broker.close().await?;
    check_eq!(order, numbers(COUNT), "the order");
    let trace = root.span().span_context().trace_id();
    check!(world.spans.all().iter().all(|span| span.span_context.trace_id() == trace), "all spans are in one trace");
    check_batch(world, COUNT)
}

fn check_batch(world: &World, count: usize) -> Checked {
    world.spans.check_everything_resolves()?;
    let creates = world.spans.named(&format!("create {}", world.topic));
    let sends = world.spans.named(&world.send_name());
    let processes = world.spans.named(&world.process_name());
    let seen = (creates.len(), sends.len(), processes.len());
    check_eq!(seen, (count, count.div_ceil(128), count), "the number of create, send and process spans");
    let sorted = |ids: &mut dyn Iterator<Item = SpanId>| {
        let mut ids: Vec<[u8; 8]> = ids.map(SpanId::to_bytes).collect();
        ids.sort_unstable();
        ids
    };
    let created = sorted(&mut creates.iter().map(|create| create.span_context.span_id()));
    let links = sends.iter().flat_map(|send| send.links.iter());
    check!(sorted(&mut links.map(|link| link.span_context.span_id())) == created, "the send spans link every message");
    check!(
        sorted(&mut processes.iter().map(|process| process.parent_span_id)) == created,
        "each message has its own context"
    );
    for send in &sends {
        check_kind(send, SpanKind::Client)?;
        check_eq!(send.links.dropped_count, 0, "the number of links that are dropped");
        let count = attribute_text(send, "messaging.batch.message_count");
        check_eq!(count, send.links.len().to_string(), "the number of messages");
    }
    creates.iter().try_for_each(|create| check_kind(create, SpanKind::Producer))
}

async fn keeps_the_creation_context_when_forwarding(world: &World) -> Checked {
    let onward = world.topic("onward");
    let broker = world.broker().await?;
    let mut first = broker.subscribe(world.group("g")).await?;
    let mut second = broker.subscribe(world.group_on(&onward, "g")).await?;
    broker.publish(&world.topic, Message::new("x").header("tenant", "acme")).await?;
    let (forwarder, to) = (broker.clone(), onward.clone());
    let forwards = |message: Received| async move { Ok(forwarder.forward(&to, Message::from(&message)).await?) };
    let processed = world.next(&mut first).await?.process(forwards).await?;
    check!(processed.error.is_none(), "the handler succeeds: {:?}", processed.error);
    let delivery = world.next(&mut second).await?;
    let headers = delivery.message().headers();
    check_eq!(headers.get_all("traceparent").count(), 1, "how many contexts the message carries");
    check_eq!(headers.get_str("tenant"), Some("acme"), "a header");
    delivery.process(|_| async { Ok(()) }).await?;
    broker.close().await?;

    world.spans.check_everything_resolves()?;
    let created = world.spans.one(&world.send_name())?;
    let processed = world.spans.one(&world.process_name())?;
    let forwarded = world.spans.one(&format!("send {onward}"))?;
    let last = world.spans.one(&format!("process {onward}"))?;
    check_kind(&forwarded, SpanKind::Client)?;
    check_linked(&forwarded, &created.span_context)?;
    check_eq!(forwarded.parent_span_id, processed.span_context.span_id(), "the parent of the span that forwards");
    check_eq!(last.parent_span_id, created.span_context.span_id(), "the parent of the last span");
    Ok(())
}

async fn ends_the_span_of_a_cancelled_handler(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("x")).await?;
    let slow = world.next(&mut deliveries).await?.process(|_| async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok(())
    });
    check!(tokio::time::timeout(Duration::from_millis(50), slow).await.is_err(), "the handler is still at work");
    world.next(&mut deliveries).await?.process(|_| async { Ok(()) }).await?;
    broker.close().await?;
    let spans = world.spans.named(&world.process_name());
    check_eq!(spans.len(), 2, "the number of process spans");
    check_eq!(attribute_text(&spans[0], "error.type"), "cancelled", "the error of the first");
    let lasted = spans[0].end_time.duration_since(spans[0].start_time).unwrap_or_default();
    check!(lasted >= Duration::from_millis(40), "the first lasts until it was cancelled: {lasted:?}");
    Ok(())
}

async fn keeps_the_receiving_loop_out_of_the_trace(world: &World) -> Checked {
    let driver = world.driver().await?;
    let broker = world.traced(driver.clone());
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let topic = Topic::new(&world.topic)?;
    driver.declare(&topic).await?;
    driver.publish(&topic, Outbound::new("no context")).await?;
    broker.publish(&world.topic, Message::new("own context")).await?;
    let around = world.root("receiving loop");
    for _ in 0..2 {
        let delivery = world.next(&mut deliveries).await?;
        let work = delivery.process(|_| async { Ok(()) });
        opentelemetry::context::FutureExt::with_context(work, around.clone()).await?;
    }
    around.span().end();
    broker.close().await?;
    let around = world.spans.one("receiving loop")?;
    let processes = world.spans.named(&world.process_name());
    check_eq!(processes.len(), 2, "the number of process spans");
    for process in processes {
        let shared = process.span_context.trace_id() == around.span_context.trace_id();
        check!(!shared, "a message is not in the trace of the receiving loop");
        check_linked(&process, &around.span_context)?;
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
