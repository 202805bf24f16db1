//! Work that is done late, again, or for untrusted peers: linked to its origin, unless the sender
//! or the consumer decides otherwise.

use crate::error::ErrorKind;
use crate::names::attribute;
use std::time::Duration;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SpanData;

use crate::broker::{Broker, TracedBroker};
use crate::conformance::case_context::CaseContext;
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::foreign::{Foreign, TRACEPARENT, context};
use crate::conformance::spans::{attribute_text, check_begins_a_trace, check_child, check_linked, is_linked};
use crate::context::propagation::{Hop, TracePolicy, TrustBoundary};
use crate::message::{HandlerError, Message, Received, Start, Subscription};

crate::conformance::case::cases! { Trace:
    b09_a_dead_letter_is_what_its_consumer_makes_of_it [AtLeastOnce]
        "A dead letter is a child of its creation context, and only linked if its consumer asks for it.";
    b10_a_delayed_message_is_linked [DelayedPublish]
        "The process span of a delayed message begins its own trace, which is linked to the sender's.";
    b10_who_wants_a_delayed_message_in_the_trace_says_so [DelayedPublish]
        "The sender of one message, or a subscription for all delayed messages, can make them children.";
    b10_a_scheduled_message_is_linked []
        "A message that its sender marks as scheduled is linked, on every broker.";
    b32_what_is_replayed_is_linked [Reposition]
        "A message redelivered because its group was moved begins its own trace, linked to the first; a new message does not.";
    b32_a_reader_of_the_past_links []
        "A subscription marked as a replay links the messages it reads again; those published from then on are not linked.";
    b35_a_trust_boundary_takes_nothing_but_the_ids []
        "Behind a trust boundary, a foreign message begins its own trace, linked, with our own sampling decision, without tracestate and without baggage that is not allowed.";
    b35_a_trust_boundary_gives_nothing_but_the_ids []
        "A message published across a trust boundary carries the ids, but neither tracestate nor baggage that is not allowed.";
}

/// Returns the send span and the process span of this message, consumed by this subscription.
async fn processed(case: &CaseContext, subscription: Subscription, message: Message) -> Checked<(SpanData, SpanData)> {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(subscription).await?;
    broker.publish(&case.topic, message).await?;
    case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    broker.close().await?;
    Ok((last(case, &case.send_name())?, last(case, &case.process_name())?))
}

fn last(case: &CaseContext, name: &str) -> Checked<SpanData> {
    case.spans.named(name).pop().ok_or_else(|| Failure::new(format!("{name} is exported")))
}

/// Checks that the span begins its own trace, is linked to the sender's, and names the kind of hop.
fn check_links(process: &SpanData, send: &SpanData, hop: Hop) -> Checked {
    check_begins_a_trace(process, [&send.span_context])?;
    check_linked(process, &send.span_context)?;
    check_eq!(attribute_text(process, attribute::HOP), hop.as_str(), "the kind of hop");
    check_eq!(attribute_text(process, attribute::CONTEXT_POLICY), "link", "what was made of the context");
    Ok(())
}

async fn b09_a_dead_letter_is_what_its_consumer_makes_of_it(case: &CaseContext) -> Checked {
    let dead = case.topic("dead");
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").dead_letter(&dead)).await?;
    let mut child = broker.subscribe(case.group_on(&dead, "child")).await?;
    let linking = case.group_on(&dead, "linked").trace_policy_for(Hop::DeadLetter, TracePolicy::Link);
    let mut linked = broker.subscribe(linking).await?;
    broker.publish(&case.topic, Message::new("poison")).await?;
    let rejects = |_| async { Err::<(), _>(HandlerError::reject("never")) };
    case.next(&mut deliveries).await?.process(rejects).await?;
    for graves in [&mut child, &mut linked] {
        case.handle(graves, |_| async { Ok(()) }).await?;
    }
    broker.close().await?;
    let (send, desks) = (case.spans.one(&case.send_name())?, case.spans.named(&format!("process {dead}")));
    check_eq!(desks.len(), 2, "the number of process spans of dead letters");
    check_child(&desks[0], &send.span_context)?;
    check_linked(&desks[0], &send.span_context)?;
    check_eq!(attribute_text(&desks[0], attribute::HOP), "dead_letter", "the kind of hop");
    check_links(&desks[1], &send, Hop::DeadLetter)?;
    case.expect_whole_traces();
    Ok(())
}

/// Returns a message that is delayed for long enough that its time cannot have come when it is
/// published, even on a busy machine.
fn delayed(payload: &'static str) -> Message {
    Message::new(payload).delay(Duration::from_millis(1_500))
}

async fn b10_a_delayed_message_is_linked(case: &CaseContext) -> Checked {
    let (send, process) = processed(case, case.group("g"), delayed("x")).await?;
    check_links(&process, &send, Hop::Delayed)?;
    case.expect_whole_traces();
    Ok(())
}

async fn b10_who_wants_a_delayed_message_in_the_trace_says_so(case: &CaseContext) -> Checked {
    let message = delayed("x").trace_policy(TracePolicy::Parent);
    let (send, process) = processed(case, case.group("g"), message).await?;
    check_child(&process, &send.span_context)?;
    check_linked(&process, &send.span_context)?;
    let wanting = case.group("g").trace_policy_for(Hop::Delayed, TracePolicy::Parent);
    let (send, process) = processed(case, wanting, delayed("y")).await?;
    check_child(&process, &send.span_context)?;
    check_linked(&process, &send.span_context)?;
    case.expect_whole_traces();
    Ok(())
}

async fn b10_a_scheduled_message_is_linked(case: &CaseContext) -> Checked {
    let (send, process) = processed(case, case.group("g"), Message::new("x").hop(Hop::Scheduled)).await?;
    check_links(&process, &send, Hop::Scheduled)?;
    case.expect_whole_traces();
    Ok(())
}

async fn b32_what_is_replayed_is_linked(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    broker.publish(&case.topic, Message::new("x").key("one")).await?;
    let group = || case.group("g").start(Start::Earliest);
    let mut deliveries = broker.subscribe(group()).await?;
    case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    // A group is moved while it has no members.
    drop(deliveries);
    move_to_the_earliest(case, &broker, &group()).await?;
    let mut deliveries = broker.subscribe(group()).await?;
    case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    // The clocks of the broker and of this machine may differ slightly.
    tokio::time::sleep(Duration::from_millis(100)).await;
    broker.publish(&case.topic, Message::new("y").key("one")).await?;
    case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    broker.close().await?;
    let (sends, processes) = (case.spans.named(&case.send_name()), case.spans.named(&case.process_name()));
    check_eq!((sends.len(), processes.len()), (2, 3), "the number of send and process spans");
    check_child(&processes[0], &sends[0].span_context)?;
    check_links(&processes[1], &sends[0], Hop::Replay)?;
    check_child(&processes[2], &sends[1].span_context)?;
    case.expect_whole_traces();
    Ok(())
}

/// Moves the group, with retries because the broker may still count a member that has left.
async fn move_to_the_earliest(case: &CaseContext, broker: &Broker, group: &Subscription) -> Checked {
    let moving = async {
        while let Err(error) = broker.reposition(group, Start::Earliest).await {
            check!(error.is_retryable() || error.kind() == ErrorKind::Conflict, "the group is moved: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Checked::Ok(())
    };
    case.within("moving the group", moving).await?
}

async fn b32_a_reader_of_the_past_links(case: &CaseContext) -> Checked {
    let subscription = || case.group("g").replay();
    if case.capabilities.backlog && case.capabilities.at_least_once {
        let (broker, early) = (case.broker().await?, case.group("g").start(Start::Earliest));
        broker.publish(&case.topic, Message::new("x").key("one")).await?;
        let mut deliveries = broker.subscribe(early.replay()).await?;
        case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
        broker.close().await?;
        check_links(&last(case, &case.process_name())?, &last(case, &case.send_name())?, Hop::Replay)?;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(subscription()).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    broker.publish(&case.topic, Message::new("y").key("one")).await?;
    case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    broker.close().await?;
    let (send, process) = (last(case, &case.send_name())?, last(case, &case.process_name())?);
    check_child(&process, &send.span_context)?;
    case.expect_whole_traces();
    Ok(())
}

async fn b35_a_trust_boundary_takes_nothing_but_the_ids(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let boundary = TrustBoundary::new().allow_baggage("tenant");
    let mut deliveries = broker.subscribe(case.group("g").trust_boundary(boundary)).await?;
    let foreign = Foreign::on(case, driver).await?;
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
        case.handle(&mut deliveries, handler).await?;
    }
    broker.close().await?;
    let processes = case.spans.named(&case.process_name());
    check_eq!(processes.len(), 2, "how many of the stranger's messages are recorded, whatever it said of sampling");
    for process in &processes {
        check_begins_a_trace(process, [&context()])?;
        check!(is_linked(process, &context()), "the stranger's context is linked");
        let told = process.links.iter().map(|link| link.span_context.trace_state().header()).collect::<String>();
        check_eq!(told, "", "the trace state of the link");
    }
    Ok(())
}

async fn b35_a_trust_boundary_gives_nothing_but_the_ids(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
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
    broker.publish(&case.topic, Message::new("one message").context(inside.clone()).trust_boundary(boundary)).await?;
    across.publish(&case.topic, Message::new("all messages").context(inside)).await?;
    for _ in 0..2 {
        let handler = |message: Received| async move {
            let headers = message.headers();
            check!(!headers.contains("tracestate"), "no trace state crosses the boundary");
            check_eq!(headers.get_str("baggage"), Some("tenant=acme"), "the baggage that crosses the boundary");
            Ok(())
        };
        case.handle(&mut deliveries, handler).await?;
    }
    broker.close().await?;
    let sends = case.spans.named(&case.send_name());
    let processes = case.spans.named(&case.process_name());
    check_eq!((sends.len(), processes.len()), (2, 2), "the number of send and process spans");
    for process in &processes {
        let send = sends.iter().find(|send| send.span_context.span_id() == process.parent_span_id);
        check!(send.is_some(), "the ids cross the boundary: each process span is a child of a send span");
    }
    Ok(())
}
