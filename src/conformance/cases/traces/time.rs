//! The time in the queue: on every delivery, from the broker's clock, and never negative.

use crate::names::attribute;
use std::time::Duration;

use opentelemetry_sdk::trace::SpanData;

use crate::broker::TracedBroker;
use crate::conformance::case_context::CaseContext;
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::foreign::Foreign;
use crate::conformance::measurements::total;
use crate::conformance::spans::{attribute, attribute_text};
use crate::conformance::watched::Watched;
use crate::message::Message;
use crate::names::metric;

crate::conformance::case::cases! { Trace:
    b40_the_time_in_the_queue_is_on_every_delivery []
        "The process span states the time in the queue and the clock it is from, for messages of foreign producers, too; the metric agrees.";
    b40_the_time_in_the_queue_is_never_negative []
        "If the clock of the broker is ahead, the time in the queue is zero, and that is counted.";
}

/// Returns the time in the queue that a process span states, in seconds.
fn queued(process: &SpanData) -> Checked<f64> {
    let text = attribute_text(process, attribute::QUEUE_DURATION);
    let queued = text.parse();
    check!(queued.is_ok(), "the time in the queue is a number: {text:?}");
    Ok(queued.unwrap_or_default())
}

async fn b40_the_time_in_the_queue_is_on_every_delivery(case: &CaseContext) -> Checked {
    let wait = Duration::from_millis(120);
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let foreign = Foreign::on(case, driver).await?;
    broker.publish(&case.topic, Message::new("ours").key("one")).await?;
    check!(foreign.publish("theirs", &[]).await?, "a message without headers is carried");
    tokio::time::sleep(wait).await;
    for _ in 0..2 {
        case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    }
    broker.close().await?;
    let processes = case.spans.named(&case.process_name());
    check_eq!(processes.len(), 2, "the number of process spans");
    let mut sum = 0.0;
    for process in &processes {
        let Some(source) = case.capabilities.timestamp else {
            check!(
                attribute(process, attribute::QUEUE_DURATION).is_none(),
                "no time is made up where there is no clock"
            );
            continue;
        };
        let queued = queued(process)?;
        sum += queued;
        // Broker clocks are coarse, and may be on another machine.
        check!((0.08..20.0).contains(&queued), "a time in the queue that can be, after {wait:?}: {queued} s");
        check_eq!(attribute_text(process, attribute::QUEUE_CLOCK), source.as_str(), "the clock");
    }
    let measured = case.measurements.points(attribute::QUEUE_DURATION, ("messaging.system", broker.system()))?;
    let due = if case.capabilities.timestamp.is_some() { 2 } else { 0 };
    check_eq!(total(&measured), due, "how many times in the queue are measured");
    let measured: f64 = measured.iter().map(|point| point.sum).sum();
    let differs = (measured - sum).abs() > 1e-6;
    check!(!differs, "what is measured is what the spans say: {measured} s, {sum} s");
    Ok(())
}

async fn b40_the_time_in_the_queue_is_never_negative(case: &CaseContext) -> Checked {
    let broker = case.traced(Watched::ahead(case.driver().await?, Duration::from_secs(3600)));
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("from the future")).await?;
    case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    broker.close().await?;
    let process = case.spans.one(&case.process_name())?;
    if case.capabilities.timestamp.is_none() {
        check!(attribute(&process, attribute::QUEUE_DURATION).is_none(), "no time is made up where there is no clock");
        return Ok(());
    }
    check_eq!(queued(&process)?, 0.0, "the time in the queue where the clock of the broker is ahead");
    let skewed = case.measurements.points(metric::QUEUE_SKEWED.name, ("messaging.system", broker.system()))?;
    check_eq!(total(&skewed), 1, "how often a clock that is ahead is counted");
    Ok(())
}
