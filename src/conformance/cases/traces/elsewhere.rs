//! Contexts from elsewhere and to elsewhere: names that a server changed, the dialects of other systems, a bridge, a job.

use opentelemetry::trace::{SpanKind, TraceContextExt};
use parking_lot::Mutex;

use super::super::super::failure::{Checked, Failure, check, check_eq};
use super::super::super::foreign::{Foreign, TRACEPARENT, context};
use super::super::super::spans::{attribute_text, check_begins_a_trace, check_child, check_kind, check_linked};
use super::super::super::world::World;
use crate::broker::TracedBroker;
use crate::broker_ext::TracedBrokerExt;
use crate::consumer::Deliveries;
use crate::dialect::Dialect;
use crate::job::{Job, TraceReference};
use crate::message::Message;
use crate::span;

super::super::super::case::cases! { Trace:
    b24_a_name_that_a_server_changed_is_understood []
        "A context under the name Xraceparent, as some servers write it, is found without asking for it.";
    b27_dialects_are_read_where_they_are_asked_for []
        "The headers of other systems are read by a subscription that names their dialect, which the span tells, and by no other.";
    b34_a_bridge_is_one_trace []
        "Sent, bridged, processed behind the bridge: one trace, in which the bridge's own hop shows.";
    b38_a_job_is_linked_to_who_asked_for_it []
        "A job that messages ask for is a trace of its own, linked to the handler of each, and what it publishes is in its trace.";
}

async fn b24_a_name_that_a_server_changed_is_understood(world: &World) -> Checked {
    let driver = world.driver().await?;
    let broker = world.traced(driver.clone());
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let foreign = Foreign::on(world, driver).await?;
    for name in ["Xraceparent", "xraceparent"] {
        check!(foreign.publish(name, &[(name, TRACEPARENT.as_bytes())]).await?, "plain text is carried");
        world.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    }
    broker.close().await?;
    let processes = world.spans.named(&world.process_name());
    check_eq!(processes.len(), 2, "the number of process spans");
    for process in &processes {
        check_child(process, &context())?;
        check_linked(process, &context())?;
        check_eq!(attribute_text(process, span::CONTEXT_DIALECT), "nats-server", "the dialect");
    }
    Ok(())
}

/// The context of [`TRACEPARENT`] as others write it into headers.
const DIALECTS: &[(Dialect, &str, &str)] = &[
    (Dialect::CloudEvents, "ce-traceparent", TRACEPARENT),
    (Dialect::MassTransit, "MT-Activity-Id", TRACEPARENT),
    (Dialect::Wolverine, "parent-id", TRACEPARENT),
    (Dialect::B3, "b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"),
    (Dialect::Jaeger, "uber-trace-id", "4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:1"),
    (Dialect::Azure, "Diagnostic-Id", TRACEPARENT),
];

async fn b27_dialects_are_read_where_they_are_asked_for(world: &World) -> Checked {
    let driver = world.driver().await?;
    let broker = world.traced(driver.clone());
    let asked = world.group("asked").dialects(DIALECTS.iter().map(|(dialect, ..)| *dialect));
    let mut asked = broker.subscribe(asked).await?;
    let mut not_asked = broker.subscribe(world.group("not-asked")).await?;
    let foreign = Foreign::on(world, driver).await?;
    for (dialect, name, value) in DIALECTS {
        check!(foreign.publish(dialect.as_str(), &[(name, value.as_bytes())]).await?, "plain text is carried");
        for deliveries in [&mut asked, &mut not_asked] {
            handle(world, deliveries).await?;
        }
    }
    broker.close().await?;
    let processes = world.spans.named(&world.process_name());
    check_eq!(processes.len(), 2 * DIALECTS.len(), "the number of process spans");
    for (pair, (dialect, ..)) in processes.chunks(2).zip(DIALECTS) {
        check_child(&pair[0], &context()).map_err(|failure| failure.during(dialect.as_str()))?;
        check_linked(&pair[0], &context())?;
        check_eq!(attribute_text(&pair[0], span::CONTEXT_DIALECT), dialect.as_str(), "the dialect");
        check_begins_a_trace(&pair[1], [&context()])?;
        check_eq!(pair[1].links.len(), 0, "the links of a message in the dialect {dialect} that nobody asked for");
    }
    Ok(())
}

async fn handle(world: &World, deliveries: &mut Deliveries) -> Checked {
    world.handle(deliveries, |_| async { Ok(()) }).await
}

async fn b34_a_bridge_is_one_trace(world: &World) -> Checked {
    let far = world.topic("far");
    let (here, there) = (world.broker().await?, world.broker().await?);
    let mut arriving = there.subscribe(world.group_on(&far, "end")).await?;
    drop(here.subscribe(world.group("bridge")).await?);
    let root = world.root("POST /orders");
    let mut crossed = Ok(());
    let crossing = async {
        if !world.capabilities.backlog || !world.capabilities.at_least_once {
            // The bridge is there before the message.
            tokio::time::sleep(world.harness.quiet()).await;
        }
        here.publish(&world.topic, Message::new("x").context(root.clone())).await?;
        handle(world, &mut arriving).await
    };
    here.bridge(world.group("bridge"), &there, &*far).run_until(async { crossed = crossing.await }).await?;
    crossed?;
    root.span().end();
    there.close().await?;
    here.close().await?;
    let (send, bridging) = (world.spans.one(&world.send_name())?, world.spans.one(&world.process_name())?);
    let (copy, end) = (world.spans.one(&format!("send {far}"))?, world.spans.one(&format!("process {far}"))?);
    check_child(&send, root.span().span_context())?;
    check_child(&bridging, &send.span_context)?;
    check_kind(&copy, SpanKind::Client)?;
    check_child(&copy, &bridging.span_context)?;
    check_linked(&copy, &send.span_context)?;
    check_child(&end, &send.span_context)?;
    check_linked(&end, &send.span_context)?;
    world.expect_whole_traces();
    Ok(())
}

async fn b38_a_job_is_linked_to_who_asked_for_it(world: &World) -> Checked {
    const ASKERS: usize = 3;
    let (broker, done) = (world.broker().await?, world.topic("done"));
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let mut results = broker.subscribe(world.group_on(&done, "g")).await?;
    // As text, which is how a job's row in a database holds them.
    let asked: Mutex<Vec<String>> = Mutex::default();
    for _ in 0..ASKERS {
        broker.publish(&world.topic, Message::new("please")).await?;
        let asks = async |_| {
            asked.lock().extend(TraceReference::current().map(|reference| reference.to_string()));
            Ok(())
        };
        world.handle(&mut deliveries, asks).await?;
    }
    let references = asked.into_inner().into_iter().map(|text| text.parse::<TraceReference>());
    let references: Result<Vec<_>, _> = references.collect();
    let references = references.map_err(|error| Failure::new(format!("references can be read back: {error}")))?;
    let job = Job::new("report").trigger("schedule").references(references).with_tracer_provider(&world.provider);
    job.run(broker.publish(&done, Message::new("report"))).await?;
    world.handle(&mut results, |_| async { Ok(()) }).await?;
    broker.close().await?;
    let (job, askers) = (world.spans.one("job report")?, world.spans.named(&world.process_name()));
    check_eq!(askers.len(), ASKERS, "the number of those who asked");
    check_begins_a_trace(&job, askers.iter().map(|asker| &asker.span_context))?;
    for asker in &askers {
        check_linked(&job, &asker.span_context)?;
    }
    check_eq!(job.links.len(), ASKERS, "the number of links of the job");
    let (send, process) = (world.spans.one(&format!("send {done}"))?, world.spans.one(&format!("process {done}"))?);
    check_eq!(send.span_context.trace_id(), job.span_context.trace_id(), "the trace of what the job publishes");
    check_child(&process, &send.span_context)?;
    world.expect_whole_traces();
    Ok(())
}
