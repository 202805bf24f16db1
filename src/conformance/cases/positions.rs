//! The starting positions of groups and readers, and moving groups.

use std::time::{Duration, SystemTime};

use crate::broker::{Broker, Deliveries, TracedBroker};
use crate::conformance::case_context::{CaseContext, numbers, text};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::message::{Message, Start, Subscription};

crate::conformance::case::cases! { Positions:
    begins_a_group_at_a_time [Groups, StartAtTime]
        "A new group that begins at a time gets what was stored from then on, and nothing older.";
    begins_a_reader_at_a_time [StartAtTime]
        "A reader that begins at a time gets what was stored from then on, and nothing older.";
    begins_a_group_at_an_offset [Groups, StartAtOffset]
        "A new group that begins at the offset of a message gets that one and what follows.";
    begins_a_reader_at_an_offset [StartAtOffset]
        "A reader that begins at the offset of a message gets that one and what follows.";
    keeps_the_position_of_a_known_group [AtLeastOnce, Groups]
        "A group that has a position continues there, whatever start a subscription asks for.";
    moves_a_group_to_the_earliest [AtLeastOnce, Groups, Reposition]
        "A group that is moved to the earliest message gets all of them again.";
    moves_a_group_to_the_latest [AtLeastOnce, Groups, Reposition]
        "A group that is moved to the latest gets what is published from then on.";
    moves_a_group_to_a_time [AtLeastOnce, Groups, Reposition, StartAtTime]
        "A group that is moved to a time gets what was stored from then on, again or for the first time.";
    moves_a_group_to_an_offset [AtLeastOnce, Groups, Reposition, StartAtOffset]
        "A group that is moved to the offset of a message gets that one and what follows, again or for the first time.";
    moves_one_group_and_no_other [AtLeastOnce, Groups, Reposition]
        "Moving a group leaves the position of every other group where it was.";
}

/// Pause before and after the time between the two halves of a topic's messages; some clocks have
/// only millisecond resolution.
const APART: Duration = Duration::from_millis(300);
const HALF: usize = 5;

/// Publishes ten messages, and returns a time between the first five and the last five.
async fn publish_halves(case: &CaseContext, broker: &Broker) -> Checked<SystemTime> {
    let mut between = SystemTime::now();
    for (index, number) in numbers(2 * HALF).into_iter().enumerate() {
        if index == HALF {
            tokio::time::sleep(APART).await;
            between = SystemTime::now();
            tokio::time::sleep(APART).await;
        }
        broker.publish(&case.topic, Message::new(number).key("one")).await?;
    }
    Ok(between)
}

fn later_half() -> Vec<String> {
    numbers(2 * HALF).split_off(HALF)
}

/// Checks that a subscription at this position gets the later half of the messages, and no others.
async fn check_gets_later_half(case: &CaseContext, broker: &Broker, subscription: Subscription) -> Checked {
    let mut deliveries = broker.subscribe(subscription).await?;
    check_gets(case, &mut deliveries, later_half()).await
}

async fn check_gets(case: &CaseContext, deliveries: &mut Deliveries, expected: Vec<String>) -> Checked {
    check_eq!(case.drain(deliveries, expected.len()).await?, expected, "what comes");
    case.nothing_comes(deliveries).await
}

async fn begins_a_group_at_a_time(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let between = publish_halves(case, &broker).await?;
    check_gets_later_half(case, &broker, case.group("g").start(Start::Time(between))).await
}

async fn begins_a_reader_at_a_time(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let between = publish_halves(case, &broker).await?;
    check_gets_later_half(case, &broker, case.reader().start(Start::Time(between))).await
}

async fn begins_a_group_at_an_offset(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    publish_halves(case, &broker).await?;
    let offset = offset_of_later_half(case, &broker).await?;
    check_gets_later_half(case, &broker, case.group("g").start(Start::Offset(offset))).await
}

async fn begins_a_reader_at_an_offset(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    publish_halves(case, &broker).await?;
    let offset = offset_of_later_half(case, &broker).await?;
    check_gets_later_half(case, &broker, case.reader().start(Start::Offset(offset))).await
}

/// Returns the offset of the first message of the later half, as a consumer sees it.
async fn offset_of_later_half(case: &CaseContext, broker: &Broker) -> Checked<u64> {
    let mut deliveries = broker.subscribe(case.group("looking")).await?;
    for _ in 0..2 * HALF {
        let delivery = case.next(&mut deliveries).await?;
        let offset = delivery.message().offset();
        let found = text(delivery.message().payload()) == HALF.to_string();
        delivery.ack().await?;
        if found {
            let offset = offset.and_then(|offset| u64::try_from(offset).ok());
            return offset
                .ok_or_else(|| Failure::new("a broker with offsets reports that of each message: there is none"));
        }
    }
    Err(Failure::new(format!("message {HALF} is among the first {}: it is not", 2 * HALF)))
}

async fn keeps_the_position_of_a_known_group(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    case.make_group("g").await?;
    for number in numbers(6) {
        broker.publish(&case.topic, Message::new(number).key("one")).await?;
    }
    let mut deliveries = broker.subscribe(case.group("g").prefetch(1)).await?;
    let mut handled = case.drain(&mut deliveries, 2).await?;
    check_eq!(handled, numbers(2), "the first messages");
    drop(deliveries);
    let mut starts = vec![Start::Latest, Start::Earliest];
    if case.capabilities.start_at_time {
        starts.push(Start::Time(SystemTime::UNIX_EPOCH));
    }
    if case.capabilities.start_at_offset {
        starts.push(Start::Offset(0));
    }
    for start in starts {
        let mut deliveries = broker.subscribe(case.group("g").start(start).prefetch(1)).await?;
        // Any of the remaining messages may come first, because the previous one may still be on
        // its way back.
        let next = case.drain(&mut deliveries, 1).await?.remove(0);
        check!(!handled.contains(&next), "the next message was not handled before, with {start:?}: {next}");
        handled.push(next);
    }
    Ok(())
}

/// Creates a group that has handled the first `handled` of ten messages and has left. Returns a
/// time between the two halves.
async fn group_that_handled(case: &CaseContext, broker: &Broker, handled: usize) -> Checked<SystemTime> {
    case.make_group("g").await?;
    let between = publish_halves(case, broker).await?;
    let member = case.broker().await?;
    let mut deliveries = member.subscribe(case.group("g")).await?;
    check_eq!(case.drain(&mut deliveries, handled).await?, numbers(handled), "the first messages");
    drop(deliveries);
    member.close().await?;
    Ok(between)
}

async fn moves_a_group_to_the_earliest(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    group_that_handled(case, &broker, 2 * HALF).await?;
    broker.reposition(&case.group("g"), Start::Earliest).await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    check_gets(case, &mut deliveries, numbers(2 * HALF)).await
}

async fn moves_a_group_to_the_latest(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    group_that_handled(case, &broker, 2).await?;
    broker.reposition(&case.group("g"), Start::Latest).await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("after").key("one")).await?;
    check_gets(case, &mut deliveries, vec!["after".to_owned()]).await
}

async fn moves_a_group_to_a_time(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let between = group_that_handled(case, &broker, 2 * HALF).await?;
    broker.reposition(&case.group("g"), Start::Time(between)).await?;
    check_gets_later_half(case, &broker, case.group("g")).await
}

async fn moves_a_group_to_an_offset(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    group_that_handled(case, &broker, 2).await?;
    let offset = offset_of_later_half(case, &broker).await?;
    broker.reposition(&case.group("g"), Start::Offset(offset)).await?;
    check_gets_later_half(case, &broker, case.group("g")).await
}

async fn moves_one_group_and_no_other(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    group_that_handled(case, &broker, 2 * HALF).await?;
    let mut other = broker.subscribe(case.group("other")).await?;
    if case.capabilities.backlog {
        check_eq!(case.drain(&mut other, 2 * HALF).await?, numbers(2 * HALF), "what the other group gets");
    }
    broker.reposition(&case.group("g"), Start::Earliest).await?;
    case.nothing_comes(&mut other).await?;
    broker.publish(&case.topic, Message::new("after").key("one")).await?;
    check_eq!(case.drain(&mut other, 1).await?, ["after"], "what the other group gets");
    Ok(())
}
