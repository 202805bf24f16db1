//! The time in the queue: on every delivery, from the broker's clock, and never negative.

use std::time::Duration;

use opentelemetry_sdk::trace::SpanData;

use super::super::super::failure::{Checked, check, check_eq};
use super::super::super::foreign::Foreign;
use super::super::super::measurements::total;
use super::super::super::spans::{attribute, attribute_text};
use super::super::super::watched::Watched;
use super::super::super::world::World;
use crate::broker::TracedBroker;
use crate::message::Message;
use crate::metrics::QUEUE_SKEWED;
use crate::span;

super::super::super::case::cases! { Trace:
    b40_the_time_in_the_queue_is_on_every_delivery []
        "The process span says how long its message was in the queue, and by whose clock, also that of a producer of another make; the metric says the same.";
    b40_the_time_in_the_queue_is_never_negative []
        "Where the clock of the broker is ahead, the time in the queue is zero, and that is counted.";
}

/// What a process span says of the queue, in seconds.
fn queued(process: &SpanData) -> Checked<f64> {
    let text = attribute_text(process, span::QUEUE_DURATION);
    let queued = text.parse();
    check!(queued.is_ok(), "the time in the queue is a number: {text:?}");
    Ok(queued.unwrap_or_default())
}

async fn b40_the_time_in_the_queue_is_on_every_delivery(world: &World) -> Checked {
    let wait = Duration::from_millis(120);
    let driver = world.driver().await?;
    let broker = world.traced(driver.clone());
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let foreign = Foreign::on(world, driver).await?;
    broker.publish(&world.topic, Message::new("ours").key("one")).await?;
    check!(foreign.publish("theirs", &[]).await?, "a message without headers is carried");
    tokio::time::sleep(wait).await;
    for _ in 0..2 {
        world.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    }
    broker.close().await?;
    let processes = world.spans.named(&world.process_name());
    check_eq!(processes.len(), 2, "the number of process spans");
    let mut sum = 0.0;
    for process in &processes {
        let Some(source) = world.capabilities.timestamp else {
            check!(attribute(process, span::QUEUE_DURATION).is_none(), "no time is made up where there is no clock");
            continue;
        };
        let queued = queued(process)?;
        sum += queued;
        // Clocks of brokers tick coarsely, and may lie on another machine.
        check!((0.08..20.0).contains(&queued), "a time in the queue that can be, after {wait:?}: {queued} s");
        check_eq!(attribute_text(process, span::QUEUE_CLOCK), source.as_str(), "the clock");
    }
    let measured = world.measurements.points(span::QUEUE_DURATION, ("messaging.system", broker.system()))?;
    let due = if world.capabilities.timestamp.is_some() { 2 } else { 0 };
    check_eq!(total(&measured), due, "how many times in the queue are measured");
    let measured: f64 = measured.iter().map(|point| point.sum).sum();
    let differs = (measured - sum).abs() > 1e-6;
    check!(!differs, "what is measured is what the spans say: {measured} s, {sum} s");
    Ok(())
}

async fn b40_the_time_in_the_queue_is_never_negative(world: &World) -> Checked {
    let broker = world.traced(Watched::ahead(world.driver().await?, Duration::from_secs(3600)));
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("from the future")).await?;
    world.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    broker.close().await?;
    let process = world.spans.one(&world.process_name())?;
    if world.capabilities.timestamp.is_none() {
        check!(attribute(&process, span::QUEUE_DURATION).is_none(), "no time is made up where there is no clock");
        return Ok(());
    }
    check_eq!(queued(&process)?, 0.0, "the time in the queue where the clock of the broker is ahead");
    let skewed = world.measurements.points(QUEUE_SKEWED, ("messaging.system", broker.system()))?;
    check_eq!(total(&skewed), 1, "how often a clock that is ahead is counted");
    Ok(())
}
