//! The surroundings of a delivery that must not leak into it: the receiving loop and other
//! messages. Also its headers, which stay unchanged.

use futures_util::StreamExt;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{TraceContextExt, TraceFlags, TraceId};
use opentelemetry::{Context, KeyValue};

use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, text};
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::foreign::{Foreign, TRACEPARENT, remote};
use crate::conformance::journal::Journal;
use crate::conformance::spans::{check_begins_a_trace, check_child, check_linked};
use crate::message::{HandlerError, Message, Received};
use crate::runtime::TracedBrokerExt;

crate::conformance::case::cases! { Trace:
    b16_without_a_context_the_ambient_one_is_no_parent []
        "A message without a context, or with a broken one, begins its own trace, whatever span is active where it is received.";
    b17_concurrent_deliveries_never_mix_contexts []
        "A thousand messages handled sixty-four at a time: each handler sees the context of its own message.";
    b18_messages_do_not_share_the_receiving_loops_trace []
        "A span that is current where messages are received is linked and is the parent of none.";
    b18_messages_do_not_share_the_trace_of_a_consumer []
        "A consumer that is run inside a span keeps its messages out of that span's trace, and links it.";
    b21_handlers_see_the_headers_of_the_wire []
        "The headers that a handler sees are those that were sent: none is added, removed or rewritten.";
}

async fn b16_without_a_context_the_ambient_one_is_no_parent(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let around = case.root("around");
    let mut deliveries = broker.subscribe(case.group("g")).with_context(around.clone()).await?;
    let foreign = Foreign::on(case, driver).await?;
    let broken = TRACEPARENT.replace('4', "x");
    let sets: [&[(&str, &[u8])]; 4] = [
        &[],
        &[("traceparent", b"")],
        &[("traceparent", broken.as_bytes())],
        &[("tracestate", b"a=1"), ("baggage", b"k=v")],
    ];
    for (index, pairs) in sets.into_iter().enumerate() {
        check!(foreign.publish(&index.to_string(), pairs).await?, "plain text is carried");
        let handling = async {
            let delivery = case.next(&mut deliveries).await?;
            let creation = delivery.creation_context();
            check!(!creation.span().span_context().is_valid(), "set {index} holds no context");
            let trace = around.span().span_context().trace_id();
            let handler = |_| async move {
                let current = Context::current().span().span_context().trace_id();
                check!(current != trace, "the handler of set {index} is not in the trace of what is around it");
                Ok(())
            };
            let error = delivery.process(handler).await?.error;
            check!(error.is_none(), "set {index} is handled: {error:?}");
            Checked::Ok(())
        };
        handling.with_context(around.clone()).await?;
    }
    around.span().end();
    broker.close().await?;
    let processes = case.spans.named(&case.process_name());
    check_eq!(processes.len(), sets.len(), "the number of process spans");
    for process in &processes {
        check_begins_a_trace(process, [around.span().span_context()])?;
        check_linked(process, around.span().span_context())?;
        check_eq!(process.links.len(), 1, "the number of links of a message without a context");
    }
    Ok(())
}

async fn b17_concurrent_deliveries_never_mix_contexts(case: &CaseContext) -> Checked {
    const COUNT: usize = 1_000;
    let broker = case.broker().await?;
    let deliveries = broker.subscribe(case.group("g").prefetch(128)).await?;
    let publishes = (1..=COUNT).map(|number| {
        let context = remote(number as u128, number as u64, TraceFlags::SAMPLED);
        let context = context.with_baggage([KeyValue::new("number", number.to_string())]);
        broker.publish(&case.topic, Message::new(number.to_string()).key(number.to_string()).context(context))
    });
    for result in futures_util::future::join_all(publishes).await {
        result?;
    }
    let delivered = deliveries.filter_map(|item| std::future::ready(item.ok()));
    let handled = delivered.map(|delivery| delivery.process(see_own_context)).buffer_unordered(64).take(COUNT);
    let handled: Vec<_> = case.within("all deliveries", handled.collect()).await?;
    for processed in handled {
        let error = processed?.error;
        check!(error.is_none(), "each handler sees its own context: {error:?}");
    }
    broker.close().await?;
    check_eq!(case.spans.named(&case.process_name()).len(), COUNT, "the number of process spans");
    Ok(())
}

async fn see_own_context(message: Received) -> Result<(), HandlerError> {
    tokio::task::yield_now().await;
    let number = text(message.payload());
    let current = Context::current();
    let trace: u128 = number.parse()?;
    check_eq!(current.span().span_context().trace_id(), TraceId::from(trace), "the trace of message {number}");
    check_eq!(
        current.baggage().get("number").map(ToString::to_string),
        Some(number.clone()),
        "the baggage of message {number}"
    );
    Ok(())
}

async fn b18_messages_do_not_share_the_receiving_loops_trace(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    Foreign::on(case, driver).await?.publish("no context", &[]).await?;
    broker.publish(&case.topic, Message::new("own context").key("one")).await?;
    let around = case.root("receiving loop");
    for _ in 0..2 {
        let delivery = case.next(&mut deliveries).await?;
        let work = delivery.process(|_| async { Ok(()) });
        work.with_context(around.clone()).await?;
    }
    around.span().end();
    broker.close().await?;
    let around = case.spans.one("receiving loop")?;
    let processes = case.spans.named(&case.process_name());
    check_eq!(processes.len(), 2, "the number of process spans");
    for process in processes {
        let shared = process.span_context.trace_id() == around.span_context.trace_id();
        check!(!shared, "a message is not in the trace of the receiving loop");
        check_linked(&process, &around.span_context)?;
    }
    Ok(())
}

async fn b18_messages_do_not_share_the_trace_of_a_consumer(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let handler = async |_: Received| {
        journal.write("done");
        Ok::<_, HandlerError>(())
    };
    let consumer = broker.consume(case.group("g"), handler).concurrency(2).subscribed().await?;
    for payload in ["a", "b", "c"] {
        broker.publish(&case.topic, Message::new(payload)).await?;
    }
    let around = case.root("start-up");
    consumer.run_until(journal.has(case, 3)).with_context(around.clone()).await?;
    around.span().end();
    broker.close().await?;
    let (sends, processes) = (case.spans.named(&case.send_name()), case.spans.named(&case.process_name()));
    check_eq!((sends.len(), processes.len()), (3, 3), "the number of send and process spans");
    for process in &processes {
        let send = sends.iter().find(|send| send.span_context.span_id() == process.parent_span_id);
        let send =
            send.ok_or_else(|| crate::conformance::Failure::new("each process span is a child of a send span"))?;
        check_child(process, &send.span_context)?;
        check_linked(process, around.span().span_context())?;
    }
    Ok(())
}

async fn b21_handlers_see_the_headers_of_the_wire(case: &CaseContext) -> Checked {
    const OURS: [&str; 3] = ["traceparent", "tracestate", "baggage"];
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let foreign = Foreign::on(case, driver).await?;
    let sets: [&[(&str, &[u8])]; 4] = [
        &[("x-other", b"1")],
        &[("traceparent", TRACEPARENT.as_bytes()), ("tracestate", b"b=2 , a=1"), ("baggage", b"k = v;p=1, l=%20")],
        &[("Traceparent", TRACEPARENT.as_bytes()), ("X-Tenant", b"Acme")],
        &[("traceparent", b"garbage"), ("baggage", b"=,=")],
    ];
    for (index, pairs) in sets.into_iter().enumerate() {
        check!(foreign.publish(&index.to_string(), pairs).await?, "plain text is carried");
        let handler = |message: Received| async move {
            let sent: Vec<(&str, String)> = sorted(pairs.iter().copied());
            let concerned = |name: &str| {
                let is = |other: &str| other.eq_ignore_ascii_case(name);
                OURS.iter().any(|ours| is(ours)) || pairs.iter().any(|(sent, _)| is(sent))
            };
            check_eq!(sorted(message.headers().iter().filter(|(name, _)| concerned(name))), sent, "the headers");
            Ok(())
        };
        case.handle(&mut deliveries, handler).await?;
    }
    Ok(())
}

fn sorted<'a>(pairs: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<(&'a str, String)> {
    let mut pairs: Vec<(&str, String)> = pairs.map(|(name, value)| (name, text(value))).collect();
    pairs.sort();
    pairs
}
