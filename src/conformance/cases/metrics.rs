//! Exported metrics: their counts and attributes, and durations that equal those of the spans.

use crate::names::{attribute, header};
use std::collections::BTreeSet;
use std::time::Duration;

use opentelemetry_sdk::trace::SpanData;

use super::refusing::Refusing;
use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, numbers, refused};
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::measurements::{Point, total};
use crate::driver::{DriverExt, Outbound};
use crate::message::{HandlerError, Message, Received, Topic};

crate::conformance::case::cases! { Telemetry:
    measures_what_is_sent_and_handled []
        "Each message sent and handed out is counted once, and durations are those of the spans, by the attributes of the conventions.";
    measures_failures_with_their_type []
        "Failures are measured like successes, with the type of the error.";
    measures_batches_by_call_and_by_message []
        "Each message of a batch is counted, and each call to the broker is timed.";
    measures_every_delivery_again [AtLeastOnce]
        "A redelivered message is counted and timed again, and so is each settlement.";
    measures_the_time_in_the_queue []
        "The time in the queue is measured for every message that has a timestamp, including those of foreign producers.";
    counts_what_was_not_used_of_headers []
        "Context headers that are not used are counted, by header and reason.";
}

const SENT: &str = "messaging.client.sent.messages";
const CONSUMED: &str = "messaging.client.consumed.messages";
const OPERATION: &str = "messaging.client.operation.duration";
const PROCESS: &str = "messaging.process.duration";
const REJECTED: &str = "traced_broker.context.rejected";

const NAME: &str = "messaging.operation.name";
const ERROR: &str = "error.type";

async fn measures_what_is_sent_and_handled(case: &CaseContext) -> Checked {
    const COUNT: usize = 5;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    for number in numbers(COUNT) {
        broker.publish(&case.topic, Message::new(number)).await?;
    }
    for _ in 0..COUNT {
        let works = |_: Received| async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Ok(())
        };
        case.next(&mut deliveries).await?.process(works).await?;
    }
    broker.close().await?;

    let (sends, processes) = (case.spans.named(&case.send_name()), case.spans.named(&case.process_name()));
    check_eq!((sends.len(), processes.len()), (COUNT, COUNT), "the number of spans");
    for (metric, operation) in [(SENT, "send"), (CONSUMED, "process")] {
        let points = case.measurements.points(metric, (NAME, operation))?;
        check_eq!(total(&points), COUNT as u64, "what {metric} counts");
        check!(points.iter().all(|point| point.text(ERROR).is_empty()), "no error in {metric}");
    }
    check_timed(&case.measurements.points(OPERATION, (NAME, "send"))?, &sends)?;
    check_timed(&case.measurements.points(PROCESS, (NAME, "process"))?, &processes)?;
    check_attributes(case, OPERATION, "send", &sends[0], &["messaging.operation.type"])?;
    check_attributes(case, SENT, "send", &sends[0], &[])?;
    check_attributes(case, PROCESS, "process", &processes[0], &["messaging.consumer.group.name"])?;
    check_attributes(case, CONSUMED, "process", &processes[0], &["messaging.consumer.group.name"])
}

/// Checks that the histogram contains exactly the durations of the spans.
fn check_timed(points: &[Point], spans: &[SpanData]) -> Checked {
    check_eq!(total(points), spans.len() as u64, "how many durations there are");
    let of_spans: Duration = spans.iter().filter_map(|span| span.end_time.duration_since(span.start_time).ok()).sum();
    let measured: f64 = points.iter().map(|point| point.sum).sum();
    // Compares a sum of floating-point seconds with a sum of nanoseconds.
    let apart = (measured - of_spans.as_secs_f64()).abs();
    let equal = apart < 1e-9 * (1 + spans.len()) as f64;
    check!(equal, "durations are those of the spans: {measured} s, {of_spans:?}");
    let advised = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
    check!(points.iter().all(|point| point.bounds == advised), "the buckets are those advised: {points:?}");
    Ok(())
}

/// Checks that measurements have the attributes of the span, as far as the conventions name them
/// for metrics.
fn check_attributes(case: &CaseContext, metric: &str, operation: &str, span: &SpanData, more: &[&str]) -> Checked {
    let common = [
        "messaging.system",
        NAME,
        "messaging.destination.name",
        "messaging.destination.template",
        "messaging.destination.partition.id",
        "server.address",
        "server.port",
    ];
    let expected: BTreeSet<&str> = common.into_iter().chain(more.iter().copied()).collect();
    let of_span = |name: &str| span.attributes.iter().find(|pair| pair.key.as_str() == name).map(|pair| &pair.value);
    for point in case.measurements.points(metric, (NAME, operation))? {
        let has: BTreeSet<&str> = point.attributes.keys().map(String::as_str).collect();
        let should: BTreeSet<&str> = expected.iter().copied().filter(|name| of_span(name).is_some()).collect();
        check_eq!(has, should, "the attributes of {metric}");
        // Messages without a key may go to any partition.
        for name in has.iter().filter(|name| **name != "messaging.destination.partition.id") {
            check_eq!(point.attributes.get(*name), of_span(name), "{name} of {metric}");
        }
    }
    Ok(())
}

async fn measures_failures_with_their_type(case: &CaseContext) -> Checked {
    let driver = Refusing::payload(case.driver().await?, "refused");
    let broker = case.traced(driver);
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    refused("the message", broker.publish(&case.topic, Message::new("refused")).await)?;
    refused("the name", broker.publish("not a name", Message::new("x")).await)?;
    broker.publish(&case.topic, Message::new("x")).await?;
    let handled = case.next(&mut deliveries).await?.process(|_| async { Err::<(), _>(HandlerError::reject("no")) });
    // An at-most-once delivery cannot be rejected, which is a separate error.
    let rejectable = case.capabilities.at_least_once;
    check_eq!(handled.await.is_ok(), rejectable, "whether the message can be rejected");
    broker.close().await?;

    // A message with a bad name of a topic was never given to the driver.
    for (metric, named) in [(SENT, 0), (OPERATION, 1)] {
        let points = case.measurements.points(metric, (NAME, "send"))?;
        let of = |error: &str| {
            points.iter().filter(|point| point.text(ERROR) == error).map(|point| point.count).sum::<u64>()
        };
        let seen = (of("rejected"), of("invalid_config"), of(""));
        check_eq!(seen, (1, named, 1), "what {metric} has of a refusal, a bad name and a success");
    }
    let processed = case.spans.one(&case.process_name())?;
    let error = processed.attributes.iter().find(|pair| pair.key.as_str() == ERROR).map(|pair| pair.value.to_string());
    let points = case.measurements.points(PROCESS, (ERROR, &error.unwrap_or_default()))?;
    check_timed(&points, &[processed])?;
    let consumed = case.measurements.points(CONSUMED, (NAME, "process"))?;
    check!(consumed.iter().all(|point| point.text(ERROR).is_empty()), "handing out did not fail");
    check_eq!(total(&consumed), 1, "what was handed out");
    Ok(())
}

async fn measures_batches_by_call_and_by_message(case: &CaseContext) -> Checked {
    const COUNT: usize = 150;
    let broker = case.broker().await?;
    let messages = numbers(COUNT).into_iter().map(|number| Message::new(number).key("one")).collect();
    for result in broker.publish_batch(&case.topic, messages).await {
        result?;
    }
    broker.close().await?;
    let sent = case.measurements.points(SENT, (NAME, "send"))?;
    check_eq!(total(&sent), COUNT as u64, "how many messages were sent");
    let calls = case.spans.named(&case.send_name());
    check_eq!(calls.len(), COUNT.div_ceil(128), "how many calls there were");
    check_timed(&case.measurements.points(OPERATION, (NAME, "send"))?, &calls)?;
    let created = case.measurements.points(OPERATION, (NAME, "create"))?;
    check_eq!(total(&created), 0, "creating a context is no call to the broker");
    Ok(())
}

async fn measures_every_delivery_again(case: &CaseContext) -> Checked {
    let broker = case.broker().await?.with_settle_spans();
    let dead = case.topic("dead");
    let mut deliveries = broker.subscribe(case.group("g").dead_letter(&dead)).await?;
    broker.publish(&case.topic, Message::new("x").key("one")).await?;
    for attempt in 1..=3 {
        let handler = |_: Received| async move {
            match attempt {
                1 | 2 => Err(HandlerError::retry_after("not yet", Duration::from_millis(50))),
                _ => Ok(()),
            }
        };
        case.next(&mut deliveries).await?.process(handler).await?;
    }
    broker.publish(&case.topic, Message::new("bad").key("one")).await?;
    case.next(&mut deliveries).await?.process(|_| async { Err::<(), _>(HandlerError::reject("no")) }).await?;
    broker.close().await?;

    let consumed = case.measurements.points(CONSUMED, (NAME, "process"))?;
    // A retry that is held in this process is not handed out by the broker again.
    let handed_out = if case.capabilities.retries_natively(Duration::from_millis(50)) { 4 } else { 2 };
    check_eq!(total(&consumed), handed_out, "how many deliveries were handed out");
    let processes = case.spans.named(&case.process_name());
    check_timed(&case.measurements.points(PROCESS, (NAME, "process"))?, &processes)?;
    // A retry that is held in this process is not a call to the broker.
    let mut calls = 0;
    for operation in ["ack", "retry", "reject"] {
        let spans = case.spans.named(&format!("{operation} {}", case.topic));
        check_timed(&case.measurements.points(OPERATION, (NAME, operation))?, &spans)?;
        calls += spans.len();
    }
    let retries = if case.capabilities.retries_natively(Duration::from_millis(50)) { 2 } else { 0 };
    check_eq!(calls, 2 + retries, "how many settlements the broker was told");
    Ok(())
}

async fn measures_the_time_in_the_queue(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("ours")).await?;
    let topic = Topic::new(&case.topic)?;
    driver.enqueue(&topic, Outbound::new("foreign")).await?;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let mut stamped = Vec::new();
    for _ in 0..2 {
        let delivery = case.next(&mut deliveries).await?;
        stamped.extend(delivery.message().timestamp().map(|timestamp| timestamp.source.as_str()));
        delivery.process(|_| async { Ok(()) }).await?;
    }
    broker.close().await?;
    check_eq!(stamped.len(), if case.capabilities.timestamp.is_some() { 2 } else { 0 }, "how many have a timestamp");
    let points = case.measurements.points(attribute::QUEUE_DURATION, (NAME, "process"))?;
    check_eq!(total(&points), stamped.len() as u64, "how many times in the queue are measured");
    for point in &points {
        check!(stamped.contains(&&*point.text(attribute::QUEUE_CLOCK)), "the clock is named: {point:?}");
        check!(
            point.bounds.last().is_some_and(|last| *last >= 86_400.0),
            "the buckets reach a day: {:?}",
            point.bounds
        );
    }
    let measured: f64 = points.iter().map(|point| point.sum).sum();
    let of_spans = case.spans.named(&case.process_name());
    let of_spans =
        of_spans.iter().flat_map(|span| &span.attributes).filter(|pair| pair.key.as_str() == attribute::QUEUE_DURATION);
    let of_spans: f64 = of_spans.filter_map(|pair| pair.value.as_str().parse::<f64>().ok()).sum();
    let equal = (measured - of_spans).abs() < 1e-6;
    check!(equal, "metric and attribute agree: {measured} s, {of_spans} s");
    check!((0.0..20.0).contains(&measured), "a time that can be: {measured} s");
    Ok(())
}

/// The headers of a foreign message, the header that is not used, the reason, and the count.
type Unused<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str, u64);

async fn counts_what_was_not_used_of_headers(case: &CaseContext) -> Checked {
    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let foreign: [Unused<'_>; 7] = [
        (&[(header::TRACEPARENT, "short")], header::TRACEPARENT, "length", 1),
        (
            &[(header::TRACEPARENT, "00-00000000000000000000000000000000-00f067aa0ba902b7-01")],
            header::TRACEPARENT,
            "zero_trace_id",
            1,
        ),
        (&[(header::TRACEPARENT, GOOD), (header::TRACEPARENT, "other")], header::TRACEPARENT, "conflicting", 1),
        (&[(header::TRACEPARENT, GOOD), (header::TRACESTATE, "Foo=1")], header::TRACESTATE, "key", 1),
        (&[(header::TRACESTATE, "foo=1")], header::TRACESTATE, "orphaned", 1),
        (&[(header::TRACEPARENT, GOOD), (header::BAGGAGE, "a=1,b,c")], header::BAGGAGE, "member", 2),
        (&[(header::TRACEPARENT, GOOD), (header::TRACESTATE, "foo=1"), (header::BAGGAGE, "a=1")], "", "", 0),
    ];
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let topic = Topic::new(&case.topic)?;
    driver.declare(&topic).await?;
    for (headers, ..) in foreign {
        driver.enqueue(&topic, Outbound { headers: headers.iter().copied().collect(), ..Outbound::new("x") }).await?;
        // Reading the context twice counts once.
        let delivery = case.next(&mut deliveries).await?;
        let _ = (delivery.creation_context(), delivery.creation_context());
        delivery.process(|_| async { Ok(()) }).await?;
    }
    broker.close().await?;
    let mut rest = 0;
    for (_, header, reason, count) in foreign {
        let points = case.measurements.points(REJECTED, ("traced_broker.context.header", header))?;
        let of_reason: Vec<Point> =
            points.into_iter().filter(|point| point.text("traced_broker.context.reason") == reason).collect();
        check_eq!(total(&of_reason), count, "how often a {header} was not used for {reason}");
        rest += count;
    }
    let all = case.measurements.points(REJECTED, ("messaging.system", broker.system()))?;
    check_eq!(total(&all), rest, "how many headers were not used");
    Ok(())
}
