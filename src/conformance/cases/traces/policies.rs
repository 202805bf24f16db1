//! Work that is done late, again, or for strangers: linked to where it comes from, unless somebody decides otherwise.

use std::time::Duration;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SpanData;

use super::super::super::failure::{Checked, Failure, check, check_eq};
use super::super::super::foreign::{Foreign, TRACEPARENT, context};
use super::super::super::spans::{attribute_text, check_begins_a_trace, check_child, check_linked, is_linked};
use super::super::super::world::World;
use crate::address::{Start, Subscription};
use crate::broker::{Broker, TracedBroker};
use crate::handler::HandlerError;
use crate::message::Message;
use crate::propagation::{Hop, TracePolicy, TrustBoundary};
use crate::received::Received;
use crate::span;

super::super::super::case::cases! { Trace:
    b09_a_dead_letter_is_what_its_consumer_makes_of_it [AtLeastOnce]
        "A dead letter is a child of its creation context, and linked only where its consumer says so.";
    b10_a_delayed_message_is_linked [DelayedPublish]
        "The process span of a delayed message begins a trace of its own that is linked to the sender's.";
    b10_who_wants_a_delayed_message_in_the_trace_says_so [DelayedPublish]
        "The sender of one message, or a subscription for all that are delayed, can have them as children.";
    b10_a_scheduled_message_is_linked []
        "A message that its sender calls scheduled is linked, on every broker.";
    b32_what_is_replayed_is_linked [Reposition]
        "What comes again because its group was moved begins a trace of its own, linked to the first; what is new does not.";
    b32_a_reader_of_the_past_links []
        "What a subscription that says so reads again is linked; what is published from then on is not.";
    b35_a_trust_boundary_takes_nothing_but_the_ids []
        "Behind a boundary a stranger's message begins a trace of its own, linked, sampled by our own decision, without tracestate and without the baggage that is not allowed.";
    b35_a_trust_boundary_gives_nothing_but_the_ids []
        "What is published across a boundary carries the ids, and neither tracestate nor the baggage that is not allowed.";
}

/// The process span of a message that is consumed by this subscription and published like this.
async fn processed(world: &World, subscription: Subscription, message: Message) -> Checked<(SpanData, SpanData)> {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(subscription).await?;
    broker.publish(&world.topic, message).await?;
    world.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    broker.close().await?;
    Ok((last(world, &world.send_name())?, last(world, &world.process_name())?))
}

fn last(world: &World, name: &str) -> Checked<SpanData> {
    world.spans.named(name).pop().ok_or_else(|| Failure::new(format!("{name} is exported")))
}

/// The span begins a trace of its own that is linked to the sender's, and says on what hop that is.
fn check_links(process: &SpanData, send: &SpanData, hop: Hop) -> Checked {
    check_begins_a_trace(process, [&send.span_context])?;
    check_linked(process, &send.span_context)?;
    check_eq!(attribute_text(process, span::HOP), hop.as_str(), "the kind of hop");
    check_eq!(attribute_text(process, span::CONTEXT_POLICY), "link", "what was made of the context");
    Ok(())
}

async fn b09_a_dead_letter_is_what_its_consumer_makes_of_it(world: &World) -> Checked {
    let dead = world.topic("dead");
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").dead_letter(&dead)).await?;
    let mut child = broker.subscribe(world.group_on(&dead, "child")).await?;
    let linking = world.group_on(&dead, "linked").trace_policy_for(Hop::DeadLetter, TracePolicy::Link);
    let mut linked = broker.subscribe(linking).await?;
    broker.publish(&world.topic, Message::new("poison")).await?;
    let rejects = |_| async { Err::<(), _>(HandlerError::reject("never")) };
    world.next(&mut deliveries).await?.process(rejects).await?;
    for graves in [&mut child, &mut linked] {
        world.handle(graves, |_| async { Ok(()) }).await?;
    }
    broker.close().await?;
    let (send, desks) = (world.spans.one(&world.send_name())?, world.spans.named(&format!("process {dead}")));
    check_eq!(desks.len(), 2, "the number of process spans of dead letters");
    check_child(&desks[0], &send.span_context)?;
    check_linked(&desks[0], &send.span_context)?;
    check_eq!(attribute_text(&desks[0], span::HOP), "dead_letter", "the kind of hop");
    check_links(&desks[1], &send, Hop::DeadLetter)?;
    world.expect_whole_traces();
    Ok(())
}

fn delayed(payload: &'static str) -> Message {
    Message::new(payload).delay(Duration::from_millis(400))
}

async fn b10_a_delayed_message_is_linked(world: &World) -> Checked {
    let (send, process) = processed(world, world.group("g"), delayed("x")).await?;
    check_links(&process, &send, Hop::Delayed)?;
    world.expect_whole_traces();
    Ok(())
}

async fn b10_who_wants_a_delayed_message_in_the_trace_says_so(world: &World) -> Checked {
    let message = delayed("x").trace_policy(TracePolicy::Parent);
    let (send, process) = processed(world, world.group("g"), message).await?;
    check_child(&process, &send.span_context)?;
    check_linked(&process, &send.span_context)?;
    let wanting = world.group("g").trace_policy_for(Hop::Delayed, TracePolicy::Parent);
    let (send, process) = processed(world, wanting, delayed("y")).await?;
    check_child(&process, &send.span_context)?;
    check_linked(&process, &send.span_context)?;
    world.expect_whole_traces();
    Ok(())
}

async fn b10_a_scheduled_message_is_linked(world: &World) -> Checked {
    let (send, process) = processed(world, world.group("g"), Message::new("x").hop(Hop::Scheduled)).await?;
    check_links(&process, &send, Hop::Scheduled)?;
    world.expect_whole_traces();
    Ok(())
}

async fn b32_what_is_replayed_is_linked(world: &World) -> Checked {
    let broker = world.broker().await?;
    broker.publish(&world.topic, Message::new("x").key("one")).await?;
    let group = || world.group("g").start(Start::Earliest);
    let mut deliveries = broker.subscribe(group()).await?;
    world.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    // A group is moved while it has no members.
    drop(deliveries);
    move_to_the_earliest(world, &broker, &group()).await?;
    let mut deliveries = broker.subscribe(group()).await?;
    world.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    // The clocks of the broker and of this machine may differ by a little.
    tokio::time::sleep(Duration::from_millis(100)).await;
    broker.publish(&world.topic, Message::new("y").key("one")).await?;
    world.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    broker.close().await?;
    let (sends, processes) = (world.spans.named(&world.send_name()), world.spans.named(&world.process_name()));
    check_eq!((sends.len(), processes.len()), (2, 3), "the number of send and process spans");
    check_child(&processes[0], &sends[0].span_context)?;
    check_links(&processes[1], &sends[0], Hop::Replay)?;
    check_child(&processes[2], &sends[1].span_context)?;
    world.expect_whole_traces();
    Ok(())
}

/// A member that has left may be counted by the broker for a while.
async fn move_to_the_earliest(world: &World, broker: &Broker, group: &Subscription) -> Checked {
    let moving = async {
        while let Err(error) = broker.reposition(group, Start::Earliest).await {
            check!(error.is_retryable() || error.kind() == crate::ErrorKind::Conflict, "the group is moved: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Checked::Ok(())
    };
    world.within("moving the group", moving).await?
}

async fn b32_a_reader_of_the_past_links(world: &World) -> Checked {
    let subscription = || world.group("g").replay();
    if world.capabilities.backlog && world.capabilities.at_least_once {
        let (broker, early) = (world.broker().await?, world.group("g").start(Start::Earliest));
        broker.publish(&world.topic, Message::new("x").key("one")).await?;
        let mut deliveries = broker.subscribe(early.replay()).await?;
        world.handle(&mut deliveries, |_| async { Ok(()) }).await?;
        broker.close().await?;
        check_links(&last(world, &world.process_name())?, &last(world, &world.send_name())?, Hop::Replay)?;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(subscription()).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    broker.publish(&world.topic, Message::new("y").key("one")).await?;
    world.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    broker.close().await?;
    let (send, process) = (last(world, &world.send_name())?, last(world, &world.process_name())?);
    check_child(&process, &send.span_context)?;
    world.expect_whole_traces();
    Ok(())
}

async fn b35_a_trust_boundary_takes_nothing_but_the_ids(world: &World) -> Checked {
    let driver = world.driver().await?;
    let broker = world.traced(driver.clone());
    let boundary = TrustBoundary::new().allow_baggage("tenant");
    let mut deliveries = broker.subscribe(world.group("g").trust_boundary(boundary)).await?;
    let foreign = Foreign::on(world, driver).await?;
    let unsampled = TRACEPARENT.replace("-01", "-00");
    for parent in [TRACEPARENT, &unsampled] {
        let pairs: [(&str, &[u8]); 4] = [
            ("traceparent", parent.as_bytes()),
            ("tracestate", b"vendor=secret"),
            ("baggage", b"tenant=acme,admin=true"),
            ("trace-policy", b"parent"),
        ];
        check!(foreign.publish(parent, &pairs).await?, "plain text is carried");
        let handler = |_| async {
            let current = Context::current();
            let baggage = |name| current.baggage().get(name).map(ToString::to_string);
            check_eq!(baggage("tenant").as_deref(), Some("acme"), "the baggage that is allowed");
            check_eq!(baggage("admin"), None, "the baggage that is not allowed");
            let span = current.span().span_context().clone();
            check_eq!(span.trace_state().header(), "", "the trace state of the handler");
            check!(span.trace_id() != context().trace_id(), "the handler is not in the stranger's trace");
            Ok(())
        };
        world.handle(&mut deliveries, handler).await?;
    }
    broker.close().await?;
    let processes = world.spans.named(&world.process_name());
    check_eq!(processes.len(), 2, "how many of the stranger's messages are recorded, whatever it said of sampling");
    for process in &processes {
        check_begins_a_trace(process, [&context()])?;
        check!(is_linked(process, &context()), "the stranger's context is linked");
        let told = process.links.iter().map(|link| link.span_context.trace_state().header()).collect::<String>();
        check_eq!(told, "", "the trace state of the link");
    }
    Ok(())
}

async fn b35_a_trust_boundary_gives_nothing_but_the_ids(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let state = opentelemetry::trace::TraceState::from_key_value([("vendor", "secret")]);
    let state = state.map_err(|error| Failure::new(format!("a trace state: {error}")))?;
    let parent = context();
    let parent =
        opentelemetry::trace::SpanContext::new(parent.trace_id(), parent.span_id(), parent.trace_flags(), true, state);
    let inside = Context::new()
        .with_remote_span_context(parent)
        .with_baggage([KeyValue::new("tenant", "acme"), KeyValue::new("admin", "true")]);
    let boundary = TrustBoundary::new().allow_baggage("tenant");
    let across = broker.clone().with_trust_boundary(boundary.clone());
    broker.publish(&world.topic, Message::new("one message").context(inside.clone()).trust_boundary(boundary)).await?;
    across.publish(&world.topic, Message::new("all messages").context(inside)).await?;
    for _ in 0..2 {
        let handler = |message: Received| async move {
            let headers = message.headers();
            check!(!headers.contains("tracestate"), "no trace state crosses the boundary");
            check_eq!(headers.get_str("baggage"), Some("tenant=acme"), "the baggage that crosses the boundary");
            Ok(())
        };
        world.handle(&mut deliveries, handler).await?;
    }
    broker.close().await?;
    let sends = world.spans.named(&world.send_name());
    let processes = world.spans.named(&world.process_name());
    check_eq!((sends.len(), processes.len()), (2, 2), "the number of send and process spans");
    for process in &processes {
        let send = sends.iter().find(|send| send.span_context.span_id() == process.parent_span_id);
        check!(send.is_some(), "the ids cross the boundary: each process span is a child of a send span");
    }
    Ok(())
}
