//! One message, one hop: the parent of the process span, its duration, and the work inside it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{SpanKind, TraceContextExt, Tracer, TracerProvider};
use parking_lot::Mutex;

use crate::broker::TracedBroker;
use crate::conformance::case_context::CaseContext;
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::journal::Journal;
use crate::conformance::spans::{check_child, check_kind, check_linked, check_succeeded};
use crate::conformance::watched::Watched;
use crate::context::current::{in_current, in_current_fn};
use crate::message::{HandlerError, Message, Received};
use crate::runtime::TracedBrokerExt;

crate::conformance::case::cases! { Trace:
    b01_every_reference_leads_to_an_exported_span []
        "However a message is published, each parent and each link of each span is an exported span, and the traces are whole.";
    b02_the_handlers_work_is_inside_its_process_span []
        "The process span is current in the handler, after each await, and in a task or thread that is given it.";
    b02_a_handler_in_its_own_task_is_inside_its_process_span []
        "The process span is current even if the runtime gives each handler its own task.";
    b03_the_process_span_lasts_until_the_settlement []
        "The process span starts before the handler and ends after the broker has answered the settlement.";
    b19_the_receiver_continues_the_send_span []
        "The process span is in the sender's trace, a child of the send span and linked to it.";
}

async fn b01_every_reference_leads_to_an_exported_span(case: &CaseContext) -> Checked {
    let (onward, last) = (case.topic("onward"), case.topic("last"));
    let broker = case.broker().await?;
    let mut first = broker.subscribe(case.group("g")).await?;
    let mut second = broker.subscribe(case.group_on(&onward, "g")).await?;
    let mut third = broker.subscribe(case.group_on(&last, "g")).await?;
    let root = case.root("POST /orders");
    let within = |payload: &'static str| Message::new(payload).key("one").context(root.clone());
    broker.publish(&case.topic, within("alone")).await?;
    let batch = vec![within("a"), within("b")];
    for result in broker.publish_batch(&case.topic, batch).with_context(root.clone()).await {
        result?;
    }
    for _ in 0..3 {
        let (publisher, to) = (broker.clone(), onward.clone());
        let publishes = |message: Received| async move { Ok(publisher.publish(&to, Message::from(&message)).await?) };
        case.handle(&mut first, publishes).await?;
        let (forwarder, to) = (broker.clone(), last.clone());
        let forwards = |message: Received| async move { Ok(forwarder.forward(&to, Message::from(&message)).await?) };
        case.handle(&mut second, forwards).await?;
        case.handle(&mut third, |_| async { Ok(()) }).await?;
    }
    root.span().end();
    broker.close().await?;
    case.spans.check_everything_resolves()?;
    case.expect_whole_traces();
    let ends = case.spans.named(&format!("process {last}"));
    check_eq!(ends.len(), 3, "the number of messages that came to the last topic");
    let trace = root.span().span_context().trace_id();
    check!(case.spans.all().iter().all(|span| span.span_context.trace_id() == trace), "all spans are in one trace");
    Ok(())
}

async fn b02_the_handlers_work_is_inside_its_process_span(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("x")).await?;
    let tracer = case.provider.tracer("application");
    let handler = |_| async move {
        drop(tracer.start("at the start"));
        tokio::task::yield_now().await;
        drop(tracer.start("after a turn"));
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(tracer.start("after a wait"));
        let tracer = Arc::new(tracer);
        let (in_task, in_thread) = (Arc::clone(&tracer), tracer);
        tokio::spawn(in_current(async move { drop(in_task.start("in a task")) })).await?;
        tokio::task::spawn_blocking(in_current_fn(move || drop(in_thread.start("in a thread")))).await?;
        Ok(())
    };
    case.handle(&mut deliveries, handler).await?;
    broker.close().await?;
    let process = case.spans.one(&case.process_name())?;
    for name in ["at the start", "after a turn", "after a wait", "in a task", "in a thread"] {
        let work = case.spans.one(name)?;
        check_child(&work, &process.span_context)?;
        let inside = process.start_time <= work.start_time && work.end_time <= process.end_time;
        check!(inside, "what is done {name} lies within the process span");
    }
    case.expect_whole_traces();
    Ok(())
}

async fn b02_a_handler_in_its_own_task_is_inside_its_process_span(case: &CaseContext) -> Checked {
    const COUNT: usize = 20;
    let (broker, journal) = (case.broker().await?, Arc::new(Journal::default()));
    let (tracer, done) = (Arc::new(case.provider.tracer("application")), Arc::clone(&journal));
    let handler = move |_: Received| {
        let (tracer, done) = (Arc::clone(&tracer), Arc::clone(&done));
        async move {
            tokio::task::yield_now().await;
            drop(tracer.start("work"));
            done.write("done");
            Ok::<_, HandlerError>(())
        }
    };
    let consumer = broker.consume(case.group("g"), handler).concurrency(8).in_own_tasks().subscribed().await?;
    for _ in 0..COUNT {
        broker.publish(&case.topic, Message::new("x")).await?;
    }
    consumer.run_until(journal.has(case, COUNT)).await?;
    broker.close().await?;
    let (processes, works) = (case.spans.named(&case.process_name()), case.spans.named("work"));
    check_eq!((processes.len(), works.len()), (COUNT, COUNT), "the number of process spans and of spans inside");
    for process in processes {
        let inside = works.iter().filter(|work| work.parent_span_id == process.span_context.span_id());
        check_eq!(inside.count(), 1, "how much work is inside each process span");
    }
    Ok(())
}

async fn b03_the_process_span_lasts_until_the_settlement(case: &CaseContext) -> Checked {
    let (driver, watch) = Watched::late(case.driver().await?, Duration::from_millis(40));
    let broker = case.traced(driver);
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("x")).await?;
    let worked: Mutex<Vec<SystemTime>> = Mutex::default();
    let handler = async |_| {
        worked.lock().push(SystemTime::now());
        tokio::time::sleep(Duration::from_millis(10)).await;
        worked.lock().push(SystemTime::now());
        Ok(())
    };
    case.handle(&mut deliveries, handler).await?;
    broker.close().await?;
    let process = case.spans.one(&case.process_name())?;
    let worked = worked.into_inner();
    check_eq!(worked.len(), 2, "how often the handler took note of the time");
    check!(process.start_time <= worked[0], "the process span starts before the handler");
    check!(process.end_time >= worked[1], "the process span ends after the handler");
    if case.capabilities.at_least_once {
        let settled = watch.settled();
        check_eq!(settled.len(), 1, "how often the delivery was settled");
        check!(process.end_time >= settled[0], "the process span ends after the broker answered the settlement");
    }
    Ok(())
}

async fn b19_the_receiver_continues_the_send_span(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let root = case.root("POST /orders");
    broker.publish(&case.topic, Message::new("x").key("k").context(root.clone())).await?;
    let wait = Duration::from_millis(5);
    let waits = |_| async move {
        tokio::time::sleep(wait).await;
        Ok(())
    };
    case.handle(&mut deliveries, waits).await?;
    root.span().end();
    broker.close().await?;

    let (root, send) = (case.spans.one("POST /orders")?, case.spans.one(&case.send_name())?);
    let process = case.spans.one(&case.process_name())?;
    check_child(&send, &root.span_context)?;
    check_child(&process, &send.span_context)?;
    check_linked(&process, &send.span_context)?;
    check_kind(&send, SpanKind::Producer)?;
    check_kind(&process, SpanKind::Consumer)?;
    check_succeeded(&send)?;
    check_succeeded(&process)?;
    let lasted = process.end_time.duration_since(process.start_time).unwrap_or_default();
    check!(lasted >= wait, "the process span lasts as long as the handler: {lasted:?}");
    case.expect_whole_traces();
    Ok(())
}
