//! Delayed messages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, text};
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::spans::check_linked;
use crate::message::Message;

crate::conformance::case::cases! { Delays:
    delivers_no_earlier_than_asked [DelayedPublish]
        "A delayed message arrives no earlier than asked and soon after; others overtake it meanwhile.";
    delivers_delayed_messages_as_they_were [DelayedPublish]
        "A delayed message arrives once, with payload, key, id, headers and context as they were sent.";
    delivers_at_different_times [DelayedPublish]
        "Messages with different delays arrive in the order of their due times, not of their publishing.";
    keeps_delayed_messages_when_the_publisher_closes [DelayedPublish]
        "A delayed message is kept by the broker: it arrives even after its publisher has closed.";
    delivers_at_once_what_was_due_before []
        "A message that is already due arrives at once, on every broker.";
}

/// Tolerated difference between the timers of brokers and of this machine.
const TOLERANCE: Duration = Duration::from_millis(30);

async fn delivers_no_earlier_than_asked(case: &CaseContext) -> Checked {
    let delay = Duration::from_millis(1_500);
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let asked = Instant::now();
    broker.publish(&case.topic, Message::new("later").key("one").delay(delay)).await?;
    broker.publish(&case.topic, Message::new("now").key("one")).await?;
    check_eq!(case.drain(&mut deliveries, 1).await?, ["now"], "what comes first");
    check_eq!(case.drain(&mut deliveries, 1).await?, ["later"], "what comes after the delay");
    let waited = asked.elapsed();
    check!(waited + TOLERANCE >= delay, "it comes after {delay:?}, not after {waited:?}");
    check!(waited < delay + case.harness.patience() / 2, "it comes soon after {delay:?}, not after {waited:?}");
    case.nothing_comes(&mut deliveries).await
}

async fn delivers_delayed_messages_as_they_were(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let root = case.root("POST /reminders");
    let message = Message::new("reminder")
        .key("customer-7")
        .id("reminder-1")
        .header("tenant", "acme")
        .header("x-repeated", "one")
        .header("x-repeated", "two")
        .context(root.clone())
        .delay(Duration::from_millis(600));
    broker.publish(&case.topic, message).await?;
    let delivery = case.next(&mut deliveries).await?;
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
    case.nothing_comes(&mut deliveries).await?;
    opentelemetry::trace::TraceContextExt::span(&root).end();
    case.spans.check_everything_resolves()?;
    let (send, process) = (case.spans.one(&case.send_name())?, case.spans.one(&case.process_name())?);
    check!(process.span_context.trace_id() != send.span_context.trace_id(), "what is done later is a trace of its own");
    check_linked(&process, &send.span_context)
}

async fn delivers_at_different_times(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let asked = Instant::now();
    let delays: BTreeMap<String, Duration> = [("slow", 2_400), ("fast", 600), ("middle", 1_500)]
        .map(|(name, delay)| (name.to_owned(), Duration::from_millis(delay)))
        .into();
    for (name, delay) in &delays {
        broker.publish(&case.topic, Message::new(name.clone()).key("one").delay(*delay)).await?;
    }
    for expected in ["fast", "middle", "slow"] {
        let came = case.drain(&mut deliveries, 1).await?;
        check_eq!(came, [expected], "the next message");
        let waited = asked.elapsed();
        let delay = delays.get(expected).copied().unwrap_or_default();
        check!(waited + TOLERANCE >= delay, "{expected} comes after {delay:?}, not after {waited:?}");
    }
    Ok(())
}

async fn keeps_delayed_messages_when_the_publisher_closes(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let publisher = case.broker().await?;
    publisher.publish(&case.topic, Message::new("later").delay(Duration::from_millis(1_000))).await?;
    publisher.close().await?;
    drop(publisher);
    check_eq!(case.drain(&mut deliveries, 1).await?, ["later"], "what comes");
    Ok(())
}

async fn delivers_at_once_what_was_due_before(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let past = SystemTime::now() - Duration::from_secs(60);
    broker.publish(&case.topic, Message::new("overdue").deliver_at(past)).await?;
    broker.publish(&case.topic, Message::new("no delay").delay(Duration::ZERO)).await?;
    let mut seen = case.drain(&mut deliveries, 2).await?;
    seen.sort();
    check_eq!(seen, ["no delay", "overdue"], "what comes");
    Ok(())
}
