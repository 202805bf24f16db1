//! Attempts, retries, dead letters, and what is settled when.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::super::failure::{Checked, check, check_eq};
use super::super::spans::attribute_text;
use super::super::world::{World, numbers, refused, text};
use super::refusing::Refusing;
use crate::broker::TracedBroker;
use crate::capability::Order;
use crate::dead_letter;
use crate::delivery::Settlement;
use crate::error::ErrorKind;
use crate::handler::HandlerError;
use crate::message::Message;

super::super::case::cases! { Settlement:
    counts_attempts_until_acknowledged [AtLeastOnce]
        "A retried message comes again, each time with the attempt one higher, and not once it is acknowledged.";
    delays_a_retry [AtLeastOnce]
        "A message retried with a delay comes again no earlier, and others pass it meanwhile.";
    hands_out_again_what_was_dropped [AtLeastOnce]
        "A delivery that is dropped unsettled comes again.";
    hands_out_again_after_an_error [AtLeastOnce]
        "Messages whose handler fails come again until it succeeds, and others are not kept from coming.";
    contains_a_panic [AtLeastOnce]
        "A handler that panics is an error like any other: the message comes again, the span says so.";
    holds_the_second_until_the_first_is_settled [AtLeastOnce]
        "With a prefetch of one, a message is handed out only once the one before it is settled.";
    bounds_what_is_unsettled [AtLeastOnce]
        "No more than the prefetch is unsettled at a time; once there is room, the rest comes.";
    settles_in_any_order [AtLeastOnce]
        "Messages acknowledged in another order than they came in stay settled over a new connection.";
    never_commits_past_the_oldest_unsettled [AtLeastOnce]
        "Acknowledging later messages does not settle earlier ones: they come again on a new connection.";
    brings_acknowledgements_to_the_broker_before_closing [AtLeastOnce]
        "What was acknowledged does not come again after closing; what was not, does.";
    gives_back_what_a_dropped_subscription_had [AtLeastOnce]
        "A subscription that ends with messages unsettled loses none: the next of the group gets all that is not settled.";
    fails_to_settle_after_close [AtLeastOnce]
        "Settling after closing fails, and settles nothing.";
    copies_rejected_messages_to_the_dead_letter_topic [AtLeastOnce]
        "A rejected message is copied to the dead-letter topic with key, headers, creation context and reason.";
    writes_one_dead_letter_when_rejected [AtLeastOnce]
        "A dead letter is written at the rejection: not before, when attempts fail, and not twice.";
    discards_without_a_dead_letter_topic [AtLeastOnce]
        "A rejected message does not come again.";
    retries_when_the_dead_letter_cannot_be_published [AtLeastOnce]
        "A message whose dead letter cannot be published is not lost: the error says so, and it comes again.";
    treats_at_most_once_as_handled []
        "An at-most-once delivery counts as handled: retry and reject are Unsupported, and it does not come again.";
}

async fn counts_attempts_until_acknowledged(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("again").key("k")).await?;
    for attempt in 1..=3 {
        let delivery = world.next(&mut deliveries).await?;
        check_eq!(delivery.message().attempt(), attempt, "the attempt");
        check_eq!(delivery.message().payload(), "again", "the message");
        delivery.retry(Duration::ZERO).await?;
    }
    let delivery = world.next(&mut deliveries).await?;
    check_eq!(delivery.message().attempt(), 4, "the attempt");
    delivery.ack().await?;
    world.nothing_comes(&mut deliveries).await
}

async fn delays_a_retry(world: &World) -> Checked {
    let delay = Duration::from_millis(800);
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("first")).await?;
    let first = world.next(&mut deliveries).await?;
    let asked = Instant::now();
    first.retry(delay).await?;
    broker.publish(&world.topic, Message::new("second")).await?;
    check_eq!(world.drain(&mut deliveries, 1).await?, ["second"], "what passes meanwhile");
    let delivery = world.next(&mut deliveries).await?;
    let waited = asked.elapsed();
    // Clocks and timers count in milliseconds here and there.
    check!(waited >= delay - Duration::from_millis(20), "it comes again after {delay:?}, not after {waited:?}");
    check_eq!(delivery.message().payload(), "first", "the message");
    delivery.ack().await?;
    Ok(())
}

async fn hands_out_again_what_was_dropped(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("dropped")).await?;
    drop(world.next(&mut deliveries).await?);
    let delivery = world.next(&mut deliveries).await?;
    check_eq!(delivery.message().payload(), "dropped", "the message");
    delivery.ack().await?;
    Ok(())
}

async fn hands_out_again_after_an_error(world: &World) -> Checked {
    const COUNT: usize = 20;
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    for number in numbers(COUNT) {
        broker.publish(&world.topic, Message::new(number).key("one")).await?;
    }
    // Every third fails the first time.
    let (mut failed, mut handled) = (BTreeSet::new(), BTreeSet::new());
    while handled.len() < COUNT {
        let delivery = world.next(&mut deliveries).await?;
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
    world.nothing_comes(&mut deliveries).await
}

async fn contains_a_panic(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("bang")).await?;
    let panics = |_| async { std::panic::resume_unwind(Box::new("a bug")) };
    let processed = world.next(&mut deliveries).await?.process::<_, _, ()>(panics).await?;
    check_eq!(processed.settlement, Settlement::Retried, "the settlement");
    let words = processed.error.map(|error| error.to_string()).unwrap_or_default();
    check!(words.contains("a bug"), "the error says what the panic said: {words}");
    world.next(&mut deliveries).await?.process(|_| async { Ok(()) }).await?;
    broker.close().await?;
    let spans = world.spans.named(&world.process_name());
    check_eq!(spans.len(), 2, "the number of process spans");
    check_eq!(attribute_text(&spans[0], "error.type"), "panic", "the error of the first");
    Ok(())
}

async fn holds_the_second_until_the_first_is_settled(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").prefetch(1)).await?;
    for number in numbers(3) {
        broker.publish(&world.topic, Message::new(number).key("one")).await?;
    }
    let first = world.next(&mut deliveries).await?;
    world.nothing_comes(&mut deliveries).await?;
    first.ack().await?;
    check_eq!(world.drain(&mut deliveries, 2).await?, ["1", "2"], "the rest");
    Ok(())
}

async fn bounds_what_is_unsettled(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").prefetch(5)).await?;
    for number in numbers(20) {
        broker.publish(&world.topic, Message::new(number).key("one")).await?;
    }
    let mut unsettled = Vec::new();
    for _ in 0..5 {
        unsettled.push(world.next(&mut deliveries).await?);
    }
    world.nothing_comes(&mut deliveries).await?;
    for delivery in unsettled {
        delivery.ack().await?;
    }
    check_eq!(world.drain(&mut deliveries, 15).await?.len(), 15, "what comes once there is room");
    Ok(())
}

async fn settles_in_any_order(world: &World) -> Checked {
    const COUNT: usize = 60;
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").prefetch(COUNT)).await?;
    for number in numbers(COUNT) {
        broker.publish(&world.topic, Message::new(number).key("one")).await?;
    }
    let mut unsettled = Vec::new();
    for _ in 0..COUNT {
        unsettled.push(world.next(&mut deliveries).await?);
    }
    // Backwards, but for each second message, which follows forwards.
    let (odd, even): (Vec<_>, Vec<_>) = unsettled.into_iter().enumerate().partition(|(index, _)| index % 2 == 1);
    for (_, delivery) in odd.into_iter().rev().chain(even) {
        delivery.ack().await?;
    }
    broker.close().await?;
    let again = world.broker().await?;
    let mut deliveries = again.subscribe(world.group("g")).await?;
    world.nothing_comes(&mut deliveries).await?;
    again.publish(&world.topic, Message::new("next").key("one")).await?;
    check_eq!(world.drain(&mut deliveries, 1).await?, ["next"], "what comes after all is settled");
    Ok(())
}

async fn never_commits_past_the_oldest_unsettled(world: &World) -> Checked {
    const COUNT: usize = 12;
    const KEPT: [usize; 2] = [3, 7];
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").prefetch(COUNT)).await?;
    for number in numbers(COUNT) {
        broker.publish(&world.topic, Message::new(number).key("one")).await?;
    }
    let mut kept = Vec::new();
    for index in 0..COUNT {
        let delivery = world.next(&mut deliveries).await?;
        if KEPT.contains(&index) {
            kept.push(delivery);
        } else {
            delivery.ack().await?;
        }
    }
    broker.close().await?;
    drop((kept, deliveries));

    let again = world.broker().await?;
    let mut deliveries = again.subscribe(world.group("g")).await?;
    // A log with one position per partition brings back what follows the oldest unsettled message, too.
    let expected: Vec<String> = match world.capabilities.order {
        Order::Partition => numbers(COUNT).split_off(KEPT[0]),
        Order::Stream | Order::Publisher => KEPT.iter().map(ToString::to_string).collect(),
    };
    let mut returned = world.drain(&mut deliveries, expected.len()).await?;
    returned.sort_by_key(|number| number.parse().unwrap_or(usize::MAX));
    check_eq!(returned, expected, "what comes again");
    world.nothing_comes(&mut deliveries).await
}

async fn brings_acknowledgements_to_the_broker_before_closing(world: &World) -> Checked {
    const COUNT: usize = 300;
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").prefetch(50)).await?;
    for number in numbers(COUNT + 1) {
        broker.publish(&world.topic, Message::new(number).key("one")).await?;
    }
    world.drain(&mut deliveries, COUNT).await?;
    let held = world.next(&mut deliveries).await?;
    check_eq!(held.message().payload(), &COUNT.to_string(), "the last message");
    broker.close().await?;
    drop((held, deliveries));

    let again = world.broker().await?;
    let mut deliveries = again.subscribe(world.group("g")).await?;
    check_eq!(world.drain(&mut deliveries, 1).await?, [COUNT.to_string()], "what comes again");
    world.nothing_comes(&mut deliveries).await
}

async fn gives_back_what_a_dropped_subscription_had(world: &World) -> Checked {
    const COUNT: usize = 30;
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").prefetch(10)).await?;
    for number in numbers(COUNT) {
        broker.publish(&world.topic, Message::new(number).key("one")).await?;
    }
    check_eq!(world.drain(&mut deliveries, 5).await?, numbers(5), "the first messages");
    let unsettled = [world.next(&mut deliveries).await?, world.next(&mut deliveries).await?];
    drop(deliveries);
    drop(unsettled);
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let mut rest = BTreeSet::new();
    while rest.len() < COUNT - 5 {
        // One may come twice: what was under way when the first subscription ended.
        rest.extend(world.drain(&mut deliveries, 1).await?);
    }
    check_eq!(rest, numbers(COUNT).split_off(5).into_iter().collect(), "what the next subscription gets");
    Ok(())
}

async fn fails_to_settle_after_close(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("late")).await?;
    let delivery = world.next(&mut deliveries).await?;
    broker.close().await?;
    let error = refused("settling after closing", delivery.ack().await)?;
    check!(matches!(error.kind(), ErrorKind::SettlementLost | ErrorKind::Closed), "the kind of {error}");
    let again = world.broker().await?;
    let mut deliveries = again.subscribe(world.group("g")).await?;
    check_eq!(world.drain(&mut deliveries, 1).await?, ["late"], "what comes again");
    Ok(())
}

async fn copies_rejected_messages_to_the_dead_letter_topic(world: &World) -> Checked {
    let dead = world.topic("dead");
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").dead_letter(&dead)).await?;
    let mut graves = broker.subscribe(world.group_on(&dead, "graves")).await?;
    let message = Message::new("poison").key("k").header("tenant", "acme");
    broker.publish(&world.topic, message).await?;

    let delivery = world.next(&mut deliveries).await?;
    let traceparent = delivery.message().headers().get_str("traceparent").map(str::to_owned);
    check!(traceparent.is_some(), "the message carries a context");
    let rejects = |_| async { Err::<(), _>(HandlerError::reject("nobody ships\r\nthis")) };
    let processed = delivery.process(rejects).await?;
    check_eq!(processed.settlement, Settlement::Rejected, "the settlement");

    let grave = world.next(&mut graves).await?;
    let copy = grave.message();
    check_eq!(copy.payload(), "poison", "the payload of the dead letter");
    check_eq!(copy.key().map(|key| text(key)).as_deref(), Some("k"), "its key");
    let headers = copy.headers();
    check_eq!(headers.get_str("tenant"), Some("acme"), "its header");
    check_eq!(headers.get_str("traceparent").map(str::to_owned), traceparent, "its creation context");
    check_eq!(headers.get_all("traceparent").count(), 1, "how many contexts it has");
    check_eq!(headers.get_str(dead_letter::REASON), Some("nobody ships  this"), "its reason");
    check_eq!(headers.get_str(dead_letter::TOPIC), Some(&*world.topic), "where it came from");
    check_eq!(headers.get_str(dead_letter::ATTEMPTS), Some("1"), "its attempts");
    grave.process(|_| async { Ok(()) }).await?;
    broker.close().await?;
    world.spans.check_everything_resolves()?;
    let processed = world.spans.one(&world.process_name())?;
    let buried = world.spans.one(&format!("process {dead}"))?;
    check_eq!(buried.span_context.trace_id(), processed.span_context.trace_id(), "the trace of the dead letter");
    Ok(())
}

async fn writes_one_dead_letter_when_rejected(world: &World) -> Checked {
    let dead = world.topic("dead");
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").dead_letter(&dead)).await?;
    let mut graves = broker.subscribe(world.group_on(&dead, "graves")).await?;
    broker.publish(&world.topic, Message::new("poison")).await?;
    for _ in 0..2 {
        world.next(&mut deliveries).await?.retry(Duration::ZERO).await?;
    }
    let third = world.next(&mut deliveries).await?;
    world.nothing_comes(&mut graves).await.map_err(|failure| failure.during("before the rejection"))?;
    third.reject("for good").await?;
    check_eq!(world.drain(&mut graves, 1).await?, ["poison"], "the dead letter");
    world.nothing_comes(&mut graves).await?;
    world.nothing_comes(&mut deliveries).await
}

async fn discards_without_a_dead_letter_topic(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("unwanted")).await?;
    world.next(&mut deliveries).await?.reject("unwanted").await?;
    world.nothing_comes(&mut deliveries).await
}

async fn retries_when_the_dead_letter_cannot_be_published(world: &World) -> Checked {
    let dead = world.topic("dead");
    let broker = world.traced(Refusing::topic(world.driver().await?, dead.clone()));
    let mut deliveries = broker.subscribe(world.group("g").dead_letter(&dead)).await?;
    broker.publish(&world.topic, Message::new("kept")).await?;
    let delivery = world.next(&mut deliveries).await?;
    let error = refused("a rejection without a place for it", delivery.reject("there is no such topic").await)?;
    check_eq!(error.kind(), ErrorKind::NotFound, "the kind of {error}");
    check_eq!(world.drain(&mut deliveries, 1).await?, ["kept"], "what comes again");
    Ok(())
}

async fn treats_at_most_once_as_handled(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").at_most_once()).await?;
    for payload in ["retried", "rejected"] {
        broker.publish(&world.topic, Message::new(payload)).await?;
        let delivery = world.next(&mut deliveries).await?;
        let settled = match payload {
            "retried" => delivery.retry(Duration::ZERO).await,
            _ => delivery.reject("no").await,
        };
        let error = refused("settling otherwise", settled)?;
        check_eq!(error.kind(), ErrorKind::Unsupported, "the kind of {error}");
    }
    broker.publish(&world.topic, Message::new("handled")).await?;
    let processed = world.next(&mut deliveries).await?.process(|_| async { Ok(()) }).await?;
    check_eq!(processed.settlement, Settlement::None, "the settlement");
    world.nothing_comes(&mut deliveries).await?;
    let graves = world.group("g").at_most_once().dead_letter("graves");
    let error = refused("a dead-letter topic", broker.subscribe(graves).await)?;
    check_eq!(error.kind(), ErrorKind::Unsupported, "the kind of {error}");
    Ok(())
}
