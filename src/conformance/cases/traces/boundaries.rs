//! A stranger's context behind a trust boundary, or one that is ignored: it leaves by no copy.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::TraceContextExt;

use crate::broker::{Broker, Deliveries, TracedBroker};
use crate::conformance::case_context::CaseContext;
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::foreign::{Foreign, TRACEPARENT, context};
use crate::context::propagation::{TracePolicy, TrustBoundary};
use crate::message::{HandlerError, Message, Received, Subscription};
use crate::names::header;
use crate::runtime::TracedBrokerExt;

crate::conformance::case::cases! { Trace:
    b35_a_dead_letter_takes_nothing_past_the_boundary [AtLeastOnce]
        "Who reads the dead letter of a stranger's message is not in the stranger's trace and gets no baggage that is not allowed; nor if the context was ignored.";
    b35_a_forwarded_message_takes_nothing_past_the_boundary []
        "Who reads a copy that a handler forwards or publishes is not in the stranger's trace and gets no baggage that is not allowed; nor if the context was ignored.";
    b35_a_redriven_message_takes_nothing_past_the_boundary [AtLeastOnce]
        "Who reads a stranger's message that was dead and is sent back is not in the stranger's trace and gets no baggage that is not allowed.";
    b35_a_reply_takes_nothing_past_the_boundary []
        "The reply to a stranger's request is not in the stranger's trace and has no baggage that is not allowed.";
}

const WAYS: [fn(Subscription) -> Subscription; 2] = [
    |subscription| subscription.trust_boundary(TrustBoundary::new().allow_baggage("tenant")),
    |subscription| subscription.trace_policy(TracePolicy::Ignore),
];

/// Publishes a stranger's message, with every header by which it could get through.
async fn send(foreign: &Foreign, more: &[(&str, &[u8])]) -> Checked {
    let pairs: [(&str, &[u8]); 8] = [
        ("traceparent", TRACEPARENT.as_bytes()),
        ("tracestate", b"vendor=secret"),
        ("baggage", b"tenant=acme,admin=true"),
        ("Xraceparent", TRACEPARENT.as_bytes()),
        ("b3", b"4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"),
        ("trace-policy", b"parent"),
        ("trace-hop", b"bridge"),
        ("own", b"kept"),
    ];
    check!(foreign.publish("x", &[&pairs[..], more].concat()).await?, "plain text is carried");
    Ok(())
}

/// Reads the next message and checks that it carries nothing of the stranger's context.
async fn check_next(case: &CaseContext, reader: &mut Deliveries) -> Checked {
    let handler = |message: Received| async move {
        let current = Context::current();
        check_eq!(current.baggage().get("admin"), None, "the baggage that is not allowed");
        let span = current.span().span_context().clone();
        check!(span.trace_id() != context().trace_id(), "the reader is not in the stranger's trace");
        check_eq!(span.trace_state().header(), "", "the trace state of the reader");
        for (name, value) in message.headers().iter() {
            let value = String::from_utf8_lossy(value).into_owned();
            let told = ["4bf92f3577b34da6", "admin", "secret"].iter().any(|part| value.contains(part));
            check!(!told, "no header carries the stranger's context: {name}: {value}");
        }
        for asked in [header::TRACE_POLICY, header::TRACE_HOP] {
            let value = message.headers().get_str(asked).unwrap_or("replay");
            check_eq!(value, "replay", "the request of the stranger in {asked}");
        }
        Ok(())
    };
    case.handle(reader, handler).await
}

async fn reader(case: &CaseContext, broker: &Broker, suffix: &str) -> Checked<Deliveries> {
    Ok(broker.subscribe(case.group_on(&case.topic(suffix), "reader")).await?)
}

/// Handles one message and rejects it.
async fn bury(case: &CaseContext, deliveries: &mut Deliveries) -> Checked {
    let rejects = |_| async { Err::<(), _>(HandlerError::reject("never")) };
    case.next(deliveries).await?.process(rejects).await?;
    Ok(())
}

async fn b35_a_dead_letter_takes_nothing_past_the_boundary(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let foreign = Foreign::on(case, driver).await?;
    let mut dead = reader(case, &broker, "dead").await?;
    for (name, way) in ["behind", "ignoring"].into_iter().zip(WAYS) {
        let group = way(case.group(name)).dead_letter(case.topic("dead"));
        let mut deliveries = broker.subscribe(group).await?;
        send(&foreign, &[]).await?;
        bury(case, &mut deliveries).await?;
        check_next(case, &mut dead).await?;
        // By hand, outside a process span, as well.
        send(&foreign, &[]).await?;
        case.next(&mut deliveries).await?.reject("by hand").await?;
        check_next(case, &mut dead).await?;
    }
    Ok(())
}

async fn b35_a_forwarded_message_takes_nothing_past_the_boundary(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let foreign = Foreign::on(case, driver).await?;
    let mut copies = reader(case, &broker, "copies").await?;
    for (name, way) in ["behind", "ignoring"].into_iter().zip(WAYS) {
        let mut deliveries = broker.subscribe(way(case.group(name))).await?;
        send(&foreign, &[]).await?;
        let (broker, topic) = (&broker, &case.topic("copies"));
        let handler = |message: Received| async move {
            broker.forward(topic, Message::from(&message)).await?;
            broker.publish(topic, Message::from(&message)).await?;
            Ok(())
        };
        case.handle(&mut deliveries, handler).await?;
        check_next(case, &mut copies).await?;
        check_next(case, &mut copies).await?;
    }
    Ok(())
}

async fn b35_a_redriven_message_takes_nothing_past_the_boundary(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let foreign = Foreign::on(case, driver).await?;
    let dead = case.topic("dead");
    drop(broker.subscribe(case.group_on(&dead, "redrive")).await?);
    let [behind, _] = WAYS;
    let mut deliveries = broker.subscribe(behind(case.group("behind")).dead_letter(&dead)).await?;
    send(&foreign, &[]).await?;
    bury(case, &mut deliveries).await?;
    drop(deliveries);
    let mut inside = broker.subscribe(case.group("inside")).await?;
    let idle = Duration::from_secs(5).max(case.harness.quiet());
    let redrive = broker.redrive(&dead).group(case.group_name("redrive")).idle(idle).at_most(1);
    check_eq!(redrive.run().await?.sent_back, 1, "how many letters were sent back");
    // A group that begins at the earliest message gets the stranger's own message first.
    loop {
        let next = case.next(&mut inside).await?;
        if next.message().headers().get_str(header::TRACE_HOP) == Some("replay") {
            let told = next.message().headers().get_str("baggage").unwrap_or_default().to_owned();
            check!(!told.contains("admin"), "baggage that is not allowed: {told}");
            let parent = next.message().headers().get_str("traceparent").unwrap_or_default().to_owned();
            check!(!parent.contains("4bf92f3577b34da6"), "the context of the stranger: {parent}");
            next.ack().await?;
            return Ok(());
        }
        next.ack().await?;
    }
}

async fn b35_a_reply_takes_nothing_past_the_boundary(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let foreign = Foreign::on(case, driver).await?;
    let mut replies = reader(case, &broker, "replies").await?;
    for (name, way) in ["behind", "ignoring"].into_iter().zip(WAYS) {
        let mut deliveries = broker.subscribe(way(case.group(name))).await?;
        let to = case.topic("replies");
        send(&foreign, &[(header::REPLY_TO, to.as_bytes()), (header::CORRELATION_ID, b"1")]).await?;
        let broker = &broker;
        let handler = |message: Received| async move {
            broker.reply(&message, Message::new("yes")).await.map_err(Failure::from)?;
            Ok(())
        };
        case.handle(&mut deliveries, handler).await?;
        check_next(case, &mut replies).await?;
    }
    Ok(())
}
