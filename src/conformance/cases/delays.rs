//! Messages for later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use super::super::failure::{Checked, check, check_eq};
use super::super::spans::check_linked;
use super::super::world::{World, text};
use crate::broker::TracedBroker;
use crate::message::Message;

super::super::case::cases! { Delays:
    delivers_no_earlier_than_asked [DelayedPublish]
        "A delayed message comes no earlier than asked and soon after; others pass it meanwhile.";
    delivers_delayed_messages_as_they_were [DelayedPublish]
        "A delayed message arrives once, with payload, key, id, headers and context as they were sent.";
    delivers_at_different_times [DelayedPublish]
        "Messages with different delays come in the order of their times, not of their publishing.";
    keeps_delayed_messages_when_the_publisher_closes [DelayedPublish]
        "A delayed message is the broker's: it comes when its publisher is long closed.";
    delivers_at_once_what_was_due_before []
        "A message whose time is past comes at once, on every broker.";
}

/// Timers of brokers and of this machine may differ by that much.
const TOLERANCE: Duration = Duration::from_millis(30);

async fn delivers_no_earlier_than_asked(world: &World) -> Checked {
    let delay = Duration::from_millis(1_500);
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let asked = Instant::now();
    broker.publish(&world.topic, Message::new("later").key("one").delay(delay)).await?;
    broker.publish(&world.topic, Message::new("now").key("one")).await?;
    check_eq!(world.drain(&mut deliveries, 1).await?, ["now"], "what comes first");
    check_eq!(world.drain(&mut deliveries, 1).await?, ["later"], "what comes after the delay");
    let waited = asked.elapsed();
    check!(waited + TOLERANCE >= delay, "it comes after {delay:?}, not after {waited:?}");
    check!(waited < delay + world.harness.patience() / 2, "it comes soon after {delay:?}, not after {waited:?}");
    world.nothing_comes(&mut deliveries).await
}

async fn delivers_delayed_messages_as_they_were(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let root = world.root("POST /reminders");
    let message = Message::new("reminder")
        .key("customer-7")
        .id("reminder-1")
        .header("tenant", "acme")
        .header("x-repeated", "one")
        .header("x-repeated", "two")
        .context(root.clone())
        .delay(Duration::from_millis(600));
    broker.publish(&world.topic, message).await?;
    let delivery = world.next(&mut deliveries).await?;
    let message = delivery.message();
    check_eq!(text(message.payload()), "reminder", "the payload");
    check_eq!(message.key().map(|key| text(key)).as_deref(), Some("customer-7"), "the key");
    check_eq!(message.id(), Some("reminder-1"), "the id");
    check_eq!(message.attempt(), 1, "the attempt");
    check_eq!(message.headers().get_str("tenant"), Some("acme"), "a header");
    let repeated: Vec<String> = message.headers().get_all("x-repeated").map(text).collect();
    check_eq!(repeated, ["one", "two"], "a repeated header");
    check_eq!(message.headers().get_all("traceparent").count(), 1, "how many contexts it carries");
    delivery.process(|_| async { Ok(()) }).await?;
    world.nothing_comes(&mut deliveries).await?;
    opentelemetry::trace::TraceContextExt::span(&root).end();
    world.spans.check_everything_resolves()?;
    let (send, process) = (world.spans.one(&world.send_name())?, world.spans.one(&world.process_name())?);
    check!(process.span_context.trace_id() != send.span_context.trace_id(), "what is done later is a trace of its own");
    check_linked(&process, &send.span_context)
}

async fn delivers_at_different_times(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let asked = Instant::now();
    let delays: BTreeMap<String, Duration> = [("slow", 2_400), ("fast", 600), ("middle", 1_500)]
        .map(|(name, delay)| (name.to_owned(), Duration::from_millis(delay)))
        .into();
    for (name, delay) in &delays {
        broker.publish(&world.topic, Message::new(name.clone()).key("one").delay(*delay)).await?;
    }
    for expected in ["fast", "middle", "slow"] {
        let came = world.drain(&mut deliveries, 1).await?;
        check_eq!(came, [expected], "the next message");
        let waited = asked.elapsed();
        let delay = delays.get(expected).copied().unwrap_or_default();
        check!(waited + TOLERANCE >= delay, "{expected} comes after {delay:?}, not after {waited:?}");
    }
    Ok(())
}

async fn keeps_delayed_messages_when_the_publisher_closes(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let publisher = world.broker().await?;
    publisher.publish(&world.topic, Message::new("later").delay(Duration::from_millis(1_000))).await?;
    publisher.close().await?;
    drop(publisher);
    check_eq!(world.drain(&mut deliveries, 1).await?, ["later"], "what comes");
    Ok(())
}

async fn delivers_at_once_what_was_due_before(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let past = SystemTime::now() - Duration::from_secs(60);
    broker.publish(&world.topic, Message::new("overdue").deliver_at(past)).await?;
    broker.publish(&world.topic, Message::new("no delay").delay(Duration::ZERO)).await?;
    let mut seen = world.drain(&mut deliveries, 2).await?;
    seen.sort();
    check_eq!(seen, ["no delay", "overdue"], "what comes");
    Ok(())
}
