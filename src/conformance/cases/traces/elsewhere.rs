//! Contexts that come from or go to other systems: names that a server changed, dialects, a bridge,
//! a job.

use crate::names::attribute;
use opentelemetry::trace::{SpanKind, TraceContextExt};
use parking_lot::Mutex;

use crate::broker::{Deliveries, TracedBroker};
use crate::conformance::case_context::CaseContext;
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::foreign::{Foreign, TRACEPARENT, context};
use crate::conformance::spans::{attribute_text, check_begins_a_trace, check_child, check_kind, check_linked};
use crate::context::dialect::Dialect;
use crate::message::Message;
use crate::runtime::TracedBrokerExt;
use crate::runtime::job::{Job, TraceReference};

crate::conformance::case::cases! { Trace:
    b24_a_name_that_a_server_changed_is_understood []
        "A context under the name Xraceparent, as some servers write it, is found by default.";
    b27_dialects_are_read_where_they_are_asked_for []
        "The headers of other systems are read only by a subscription that names their dialect, and the span names it.";
    b34_a_bridge_is_one_trace []
        "Sent, bridged, processed behind the bridge: one trace, which contains the bridge's own hop.";
    b38_a_job_is_linked_to_who_asked_for_it []
        "A job that messages ask for has its own trace, linked to the handler of each, and its publishes are in that trace.";
}

async fn b24_a_name_that_a_server_changed_is_understood(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let foreign = Foreign::on(case, driver).await?;
    for name in ["Xraceparent", "xraceparent"] {
        check!(foreign.publish(name, &[(name, TRACEPARENT.as_bytes())]).await?, "plain text is carried");
        case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    }
    broker.close().await?;
    let processes = case.spans.named(&case.process_name());
    check_eq!(processes.len(), 2, "the number of process spans");
    for process in &processes {
        check_child(process, &context())?;
        check_linked(process, &context())?;
        check_eq!(attribute_text(process, attribute::CONTEXT_DIALECT), "nats-server", "the dialect");
    }
    Ok(())
}

/// The context of [`TRACEPARENT`] as other systems write it into headers.
const DIALECTS: &[(Dialect, &str, &str)] = &[
    (Dialect::CloudEvents, "ce-traceparent", TRACEPARENT),
    (Dialect::MassTransit, "MT-Activity-Id", TRACEPARENT),
    (Dialect::Wolverine, "parent-id", TRACEPARENT),
    (Dialect::B3, "b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"),
    (Dialect::Jaeger, "uber-trace-id", "4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:1"),
    (Dialect::Azure, "Diagnostic-Id", TRACEPARENT),
];

async fn b27_dialects_are_read_where_they_are_asked_for(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let asked = case.group("asked").dialects(DIALECTS.iter().map(|(dialect, ..)| *dialect));
    let mut asked = broker.subscribe(asked).await?;
    let mut not_asked = broker.subscribe(case.group("not-asked")).await?;
    let foreign = Foreign::on(case, driver).await?;
    for (dialect, name, value) in DIALECTS {
        check!(foreign.publish(dialect.as_str(), &[(name, value.as_bytes())]).await?, "plain text is carried");
        for deliveries in [&mut asked, &mut not_asked] {
            handle(case, deliveries).await?;
        }
    }
    broker.close().await?;
    let processes = case.spans.named(&case.process_name());
    check_eq!(processes.len(), 2 * DIALECTS.len(), "the number of process spans");
    for (pair, (dialect, ..)) in processes.chunks(2).zip(DIALECTS) {
        check_child(&pair[0], &context()).map_err(|failure| failure.during(dialect.as_str()))?;
        check_linked(&pair[0], &context())?;
        check_eq!(attribute_text(&pair[0], attribute::CONTEXT_DIALECT), dialect.as_str(), "the dialect");
        check_begins_a_trace(&pair[1], [&context()])?;
        check_eq!(pair[1].links.len(), 0, "the links of a message in the dialect {dialect} that nobody asked for");
    }
    Ok(())
}

async fn handle(case: &CaseContext, deliveries: &mut Deliveries) -> Checked {
    case.handle(deliveries, |_| async { Ok(()) }).await
}

async fn b34_a_bridge_is_one_trace(case: &CaseContext) -> Checked {
    let far = case.topic("far");
    let (here, there) = (case.broker().await?, case.broker().await?);
    let mut arriving = there.subscribe(case.group_on(&far, "end")).await?;
    drop(here.subscribe(case.group("bridge")).await?);
    let root = case.root("POST /orders");
    let mut crossed = Ok(());
    let crossing = async {
        if !case.capabilities.backlog || !case.capabilities.at_least_once {
            // The bridge must run before the message is published.
            tokio::time::sleep(case.harness.quiet()).await;
        }
        here.publish(&case.topic, Message::new("x").context(root.clone())).await?;
        handle(case, &mut arriving).await
    };
    here.bridge(case.group("bridge"), &there, &*far).run_until(async { crossed = crossing.await }).await?;
    crossed?;
    root.span().end();
    there.close().await?;
    here.close().await?;
    let (send, bridging) = (case.spans.one(&case.send_name())?, case.spans.one(&case.process_name())?);
    let (copy, end) = (case.spans.one(&format!("send {far}"))?, case.spans.one(&format!("process {far}"))?);
    check_child(&send, root.span().span_context())?;
    check_child(&bridging, &send.span_context)?;
    check_kind(&copy, SpanKind::Client)?;
    check_child(&copy, &bridging.span_context)?;
    check_linked(&copy, &send.span_context)?;
    check_child(&end, &send.span_context)?;
    check_linked(&end, &send.span_context)?;
    case.expect_whole_traces();
    Ok(())
}

async fn b38_a_job_is_linked_to_who_asked_for_it(case: &CaseContext) -> Checked {
    const ASKERS: usize = 3;
    let (broker, done) = (case.broker().await?, case.topic("done"));
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let mut results = broker.subscribe(case.group_on(&done, "g")).await?;
    // Stored as text, as in the database row of a job.
    let asked: Mutex<Vec<String>> = Mutex::default();
    for _ in 0..ASKERS {
        broker.publish(&case.topic, Message::new("please")).await?;
        let asks = async |_| {
            asked.lock().extend(TraceReference::current().map(|reference| reference.to_string()));
            Ok(())
        };
        case.handle(&mut deliveries, asks).await?;
    }
    let references = asked.into_inner().into_iter().map(|text| text.parse::<TraceReference>());
    let references: Result<Vec<_>, _> = references.collect();
    let references = references.map_err(|error| Failure::new(format!("references can be read back: {error}")))?;
    let job = Job::new("report").trigger("schedule").references(references).with_tracer_provider(&case.provider);
    job.run(broker.publish(&done, Message::new("report"))).await?;
    case.handle(&mut results, |_| async { Ok(()) }).await?;
    broker.close().await?;
    let (job, askers) = (case.spans.one("job report")?, case.spans.named(&case.process_name()));
    check_eq!(askers.len(), ASKERS, "the number of those who asked");
    check_begins_a_trace(&job, askers.iter().map(|asker| &asker.span_context))?;
    for asker in &askers {
        check_linked(&job, &asker.span_context)?;
    }
    check_eq!(job.links.len(), ASKERS, "the number of links of the job");
    let (send, process) = (case.spans.one(&format!("send {done}"))?, case.spans.one(&format!("process {done}"))?);
    check_eq!(send.span_context.trace_id(), job.span_context.trace_id(), "the trace of what the job publishes");
    check_child(&process, &send.span_context)?;
    case.expect_whole_traces();
    Ok(())
}
