//! Attempts, retries, dead letters, and settlements.

use crate::names::header;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::refusing::Refusing;
use crate::broker::{Settlement, TracedBroker};
use crate::conformance::case_context::{CaseContext, numbers, refused, text};
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::spans::attribute_text;
use crate::error::ErrorKind;
use crate::message::{HandlerError, Message};

crate::conformance::case::cases! { Settlement:
    counts_attempts_until_acknowledged [AtLeastOnce]
        "A retried message is redelivered, each time with the attempt one higher, until it is acknowledged.";
    delays_a_retry [AtLeastOnce]
        "A message retried with a delay is redelivered no earlier, and others overtake it meanwhile.";
    hands_out_again_what_was_dropped [AtLeastOnce]
        "A delivery that is dropped unsettled is redelivered.";
    hands_out_again_after_an_error [AtLeastOnce]
        "Messages whose handler fails are redelivered until it succeeds, and do not hold up others.";
    contains_a_panic [AtLeastOnce]
        "A panic of a handler is an error like any other: the message is redelivered, and the span has the error.";
    holds_the_second_until_the_first_is_settled [AtLeastOnce]
        "With a prefetch of one, a message is handed out only once the one before it is settled.";
    bounds_what_is_unsettled [AtLeastOnce]
        "No more than the prefetch is unsettled at a time; once there is room, the rest comes.";
    settles_in_any_order [AtLeastOnce]
        "Messages acknowledged out of order stay settled on a new connection.";
    never_commits_past_the_oldest_unsettled [AtLeastOnce]
        "Acknowledging later messages does not settle earlier ones: those alone are redelivered on a new connection.";
    brings_acknowledgements_to_the_broker_before_closing [AtLeastOnce]
        "After closing, acknowledged messages are not redelivered; all others are.";
    gives_back_what_a_dropped_subscription_had [AtLeastOnce]
        "A subscription that ends with unsettled messages loses none: the next one of the group gets all of them.";
    fails_to_settle_after_close [AtLeastOnce]
        "Settling after closing fails, and has no effect.";
    copies_rejected_messages_to_the_dead_letter_topic [AtLeastOnce]
        "A rejected message is copied to the dead-letter topic with key, headers, creation context and reason.";
    writes_one_dead_letter_when_rejected [AtLeastOnce]
        "A dead letter is written at the rejection: not before, when attempts fail, and not twice.";
    discards_without_a_dead_letter_topic [AtLeastOnce]
        "A rejected message is not redelivered.";
    retries_when_the_dead_letter_cannot_be_published [AtLeastOnce]
        "A message whose dead letter cannot be published is not lost: the error says so, and it is redelivered.";
    treats_at_most_once_as_handled []
        "An at-most-once delivery counts as handled: retry and reject are Unsupported, and it is not redelivered.";
}

async fn counts_attempts_until_acknowledged(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("again").key("k")).await?;
    for attempt in 1..=3 {
        let delivery = case.next(&mut deliveries).await?;
        check_eq!(delivery.message().attempt(), attempt, "the attempt");
        check_eq!(delivery.message().payload(), "again", "the message");
        delivery.retry(Duration::ZERO).await?;
    }
    let delivery = case.next(&mut deliveries).await?;
    check_eq!(delivery.message().attempt(), 4, "the attempt");
    delivery.ack().await?;
    case.nothing_comes(&mut deliveries).await
}

async fn delays_a_retry(case: &CaseContext) -> Checked {
    let delay = Duration::from_millis(800);
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("first")).await?;
    let first = case.next(&mut deliveries).await?;
    let asked = Instant::now();
    first.retry(delay).await?;
    broker.publish(&case.topic, Message::new("second")).await?;
    check_eq!(case.drain(&mut deliveries, 1).await?, ["second"], "what passes meanwhile");
    let delivery = case.next(&mut deliveries).await?;
    let waited = asked.elapsed();
    // Some clocks and timers have only millisecond resolution.
    check!(waited >= delay - Duration::from_millis(20), "it is redelivered after {delay:?}, not after {waited:?}");
    check_eq!(delivery.message().payload(), "first", "the message");
    delivery.ack().await?;
    Ok(())
}

async fn hands_out_again_what_was_dropped(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("dropped")).await?;
    drop(case.next(&mut deliveries).await?);
    let delivery = case.next(&mut deliveries).await?;
    check_eq!(delivery.message().payload(), "dropped", "the message");
    delivery.ack().await?;
    Ok(())
}

async fn hands_out_again_after_an_error(case: &CaseContext) -> Checked {
    const COUNT: usize = 20;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    for number in numbers(COUNT) {
        broker.publish(&case.topic, Message::new(number).key("one")).await?;
    }
    // Every third message fails at its first attempt.
    let (mut failed, mut handled) = (BTreeSet::new(), BTreeSet::new());
    while handled.len() < COUNT {
        let delivery = case.next(&mut deliveries).await?;
        let payload = text(delivery.message().payload());
        let fails =
            payload.parse().is_ok_and(|number: usize| number.is_multiple_of(3)) && failed.insert(payload.clone());
        let handler = |_| async move { if fails { Err(HandlerError::retry("not this time")) } else { Ok(()) } };
        let processed = delivery.process(handler).await?;
        let expected = if fails { Settlement::Retried } else { Settlement::Acknowledged };
        check_eq!(processed.settlement, expected, "the settlement of message {payload}");
        if !fails {
            check!(handled.insert(payload.clone()), "message {payload} is handled once");
        }
    }
    case.nothing_comes(&mut deliveries).await
}

async fn contains_a_panic(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("bang")).await?;
    let panics = |_| async { std::panic::resume_unwind(Box::new("a bug")) };
    let processed = case.next(&mut deliveries).await?.process::<_, _, ()>(panics).await?;
    check_eq!(processed.settlement, Settlement::Retried, "the settlement");
    let words = processed.error.map(|error| error.to_string()).unwrap_or_default();
    check!(words.contains("a bug"), "the error says what the panic said: {words}");
    case.next(&mut deliveries).await?.process(|_| async { Ok(()) }).await?;
    broker.close().await?;
    let spans = case.spans.named(&case.process_name());
    check_eq!(spans.len(), 2, "the number of process spans");
    check_eq!(attribute_text(&spans[0], "error.type"), "panic", "the error of the first");
    Ok(())
}

async fn holds_the_second_until_the_first_is_settled(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").prefetch(1)).await?;
    for number in numbers(3) {
        broker.publish(&case.topic, Message::new(number).key("one")).await?;
    }
    let first = case.next(&mut deliveries).await?;
    case.nothing_comes(&mut deliveries).await?;
    first.ack().await?;
    check_eq!(case.drain(&mut deliveries, 2).await?, ["1", "2"], "the rest");
    Ok(())
}

async fn bounds_what_is_unsettled(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").prefetch(5)).await?;
    for number in numbers(20) {
        broker.publish(&case.topic, Message::new(number).key("one")).await?;
    }
    let mut unsettled = Vec::new();
    for _ in 0..5 {
        unsettled.push(case.next(&mut deliveries).await?);
    }
    case.nothing_comes(&mut deliveries).await?;
    for delivery in unsettled {
        delivery.ack().await?;
    }
    check_eq!(case.drain(&mut deliveries, 15).await?.len(), 15, "what comes once there is room");
    Ok(())
}

async fn settles_in_any_order(case: &CaseContext) -> Checked {
    const COUNT: usize = 60;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").prefetch(COUNT)).await?;
    for number in numbers(COUNT) {
        broker.publish(&case.topic, Message::new(number).key("one")).await?;
    }
    let mut unsettled = Vec::new();
    for _ in 0..COUNT {
        unsettled.push(case.next(&mut deliveries).await?);
    }
    // Messages with odd indices in reverse order, then the others in order.
    let (odd, even): (Vec<_>, Vec<_>) = unsettled.into_iter().enumerate().partition(|(index, _)| index % 2 == 1);
    for (_, delivery) in odd.into_iter().rev().chain(even) {
        delivery.ack().await?;
    }
    broker.close().await?;
    let again = case.broker().await?;
    let mut deliveries = again.subscribe(case.group("g")).await?;
    case.nothing_comes(&mut deliveries).await?;
    again.publish(&case.topic, Message::new("next").key("one")).await?;
    check_eq!(case.drain(&mut deliveries, 1).await?, ["next"], "what comes after all is settled");
    Ok(())
}

async fn never_commits_past_the_oldest_unsettled(case: &CaseContext) -> Checked {
    const COUNT: usize = 12;
    const KEPT: [usize; 2] = [3, 7];
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").prefetch(COUNT)).await?;
    for number in numbers(COUNT) {
        broker.publish(&case.topic, Message::new(number).key("one")).await?;
    }
    let mut kept = Vec::new();
    for index in 0..COUNT {
        let delivery = case.next(&mut deliveries).await?;
        if KEPT.contains(&index) {
            kept.push(delivery);
        } else {
            delivery.ack().await?;
        }
    }
    broker.close().await?;
    drop((kept, deliveries));

    let again = case.broker().await?;
    let mut deliveries = again.subscribe(case.group("g")).await?;
    // A log with one position per partition has to keep what is settled beyond it, too.
    let expected: Vec<String> = KEPT.iter().map(ToString::to_string).collect();
    let mut returned = case.drain(&mut deliveries, expected.len()).await?;
    returned.sort_by_key(|number| number.parse().unwrap_or(usize::MAX));
    check_eq!(returned, expected, "the redelivered messages");
    case.nothing_comes(&mut deliveries).await
}

async fn brings_acknowledgements_to_the_broker_before_closing(case: &CaseContext) -> Checked {
    const COUNT: usize = 300;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").prefetch(50)).await?;
    for number in numbers(COUNT + 1) {
        broker.publish(&case.topic, Message::new(number).key("one")).await?;
    }
    case.drain(&mut deliveries, COUNT).await?;
    let held = case.next(&mut deliveries).await?;
    check_eq!(held.message().payload(), &COUNT.to_string(), "the last message");
    broker.close().await?;
    drop((held, deliveries));

    let again = case.broker().await?;
    let mut deliveries = again.subscribe(case.group("g")).await?;
    check_eq!(case.drain(&mut deliveries, 1).await?, [COUNT.to_string()], "the redelivered messages");
    case.nothing_comes(&mut deliveries).await
}

async fn gives_back_what_a_dropped_subscription_had(case: &CaseContext) -> Checked {
    const COUNT: usize = 30;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").prefetch(10)).await?;
    for number in numbers(COUNT) {
        broker.publish(&case.topic, Message::new(number).key("one")).await?;
    }
    check_eq!(case.drain(&mut deliveries, 5).await?, numbers(5), "the first messages");
    let unsettled = [case.next(&mut deliveries).await?, case.next(&mut deliveries).await?];
    drop(deliveries);
    drop(unsettled);
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let mut rest = BTreeSet::new();
    while rest.len() < COUNT - 5 {
        // A message in flight when the first subscription ended may be delivered twice.
        rest.extend(case.drain(&mut deliveries, 1).await?);
    }
    check_eq!(rest, numbers(COUNT).split_off(5).into_iter().collect(), "what the next subscription gets");
    Ok(())
}

async fn fails_to_settle_after_close(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("late")).await?;
    let delivery = case.next(&mut deliveries).await?;
    broker.close().await?;
    let error = refused("settling after closing", delivery.ack().await)?;
    check!(matches!(error.kind(), ErrorKind::SettlementLost | ErrorKind::Closed), "the kind of {error}");
    let again = case.broker().await?;
    let mut deliveries = again.subscribe(case.group("g")).await?;
    check_eq!(case.drain(&mut deliveries, 1).await?, ["late"], "the redelivered messages");
    Ok(())
}

async fn copies_rejected_messages_to_the_dead_letter_topic(case: &CaseContext) -> Checked {
    let dead = case.topic("dead");
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").dead_letter(&dead)).await?;
    let mut graves = broker.subscribe(case.group_on(&dead, "graves")).await?;
    let message = Message::new("poison").key("k").header("tenant", "acme");
    broker.publish(&case.topic, message).await?;

    let delivery = case.next(&mut deliveries).await?;
    let traceparent = delivery.message().headers().get_str("traceparent").map(str::to_owned);
    check!(traceparent.is_some(), "the message carries a context");
    let rejects = |_| async { Err::<(), _>(HandlerError::reject("nobody ships\r\nthis")) };
    let processed = delivery.process(rejects).await?;
    check_eq!(processed.settlement, Settlement::Rejected, "the settlement");

    let grave = case.next(&mut graves).await?;
    let copy = grave.message();
    check_eq!(copy.payload(), "poison", "the payload of the dead letter");
    check_eq!(copy.key().map(|key| text(key)).as_deref(), Some("k"), "its key");
    let headers = copy.headers();
    check_eq!(headers.get_str("tenant"), Some("acme"), "its header");
    check_eq!(headers.get_str("traceparent").map(str::to_owned), traceparent, "its creation context");
    check_eq!(headers.get_all("traceparent").count(), 1, "how many contexts it has");
    check_eq!(headers.get_str(header::DEAD_LETTER_REASON), Some("nobody ships  this"), "its reason");
    check_eq!(headers.get_str(header::DEAD_LETTER_TOPIC), Some(&*case.topic), "where it came from");
    check_eq!(headers.get_str(header::DEAD_LETTER_ATTEMPTS), Some("1"), "its attempts");
    grave.process(|_| async { Ok(()) }).await?;
    broker.close().await?;
    case.spans.check_everything_resolves()?;
    let processed = case.spans.one(&case.process_name())?;
    let buried = case.spans.one(&format!("process {dead}"))?;
    check_eq!(buried.span_context.trace_id(), processed.span_context.trace_id(), "the trace of the dead letter");
    Ok(())
}

async fn writes_one_dead_letter_when_rejected(case: &CaseContext) -> Checked {
    let dead = case.topic("dead");
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").dead_letter(&dead)).await?;
    let mut graves = broker.subscribe(case.group_on(&dead, "graves")).await?;
    broker.publish(&case.topic, Message::new("poison")).await?;
    for _ in 0..2 {
        case.next(&mut deliveries).await?.retry(Duration::ZERO).await?;
    }
    let third = case.next(&mut deliveries).await?;
    case.nothing_comes(&mut graves).await.map_err(|failure| failure.during("before the rejection"))?;
    third.reject("for good").await?;
    check_eq!(case.drain(&mut graves, 1).await?, ["poison"], "the dead letter");
    case.nothing_comes(&mut graves).await?;
    case.nothing_comes(&mut deliveries).await
}

async fn discards_without_a_dead_letter_topic(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("unwanted")).await?;
    case.next(&mut deliveries).await?.reject("unwanted").await?;
    case.nothing_comes(&mut deliveries).await
}

async fn retries_when_the_dead_letter_cannot_be_published(case: &CaseContext) -> Checked {
    let dead = case.topic("dead");
    let broker = case.traced(Refusing::topic(case.driver().await?, dead.clone()));
    let mut deliveries = broker.subscribe(case.group("g").dead_letter(&dead)).await?;
    broker.publish(&case.topic, Message::new("kept")).await?;
    let delivery = case.next(&mut deliveries).await?;
    let error = refused("a rejection without a place for it", delivery.reject("there is no such topic").await)?;
    check_eq!(error.kind(), ErrorKind::NotFound, "the kind of {error}");
    check_eq!(case.drain(&mut deliveries, 1).await?, ["kept"], "the redelivered messages");
    Ok(())
}

async fn treats_at_most_once_as_handled(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").at_most_once()).await?;
    for payload in ["retried", "rejected"] {
        broker.publish(&case.topic, Message::new(payload)).await?;
        let delivery = case.next(&mut deliveries).await?;
        let settled = match payload {
            "retried" => delivery.retry(Duration::ZERO).await,
            _ => delivery.reject("no").await,
        };
        let error = refused("settling otherwise", settled)?;
        check_eq!(error.kind(), ErrorKind::Unsupported, "the kind of {error}");
    }
    broker.publish(&case.topic, Message::new("handled")).await?;
    let processed = case.next(&mut deliveries).await?.process(|_| async { Ok(()) }).await?;
    check_eq!(processed.settlement, Settlement::None, "the settlement");
    case.nothing_comes(&mut deliveries).await?;
    let graves = case.group("g").at_most_once().dead_letter("graves");
    let error = refused("a dead-letter topic", broker.subscribe(graves).await)?;
    check_eq!(error.kind(), ErrorKind::Unsupported, "the kind of {error}");
    Ok(())
}
