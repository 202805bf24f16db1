//! Where groups and readers begin, and moving groups.

use std::time::{Duration, SystemTime};

use super::super::failure::{Checked, Failure, check, check_eq};
use super::super::world::{World, numbers, text};
use crate::address::{Start, Subscription};
use crate::broker::{Broker, TracedBroker};
use crate::consumer::Deliveries;
use crate::message::Message;

super::super::case::cases! { Positions:
    begins_a_group_at_a_time [Groups, StartAtTime]
        "A new group that begins at a time gets what was stored from then on, and nothing older.";
    begins_a_reader_at_a_time [StartAtTime]
        "A reader that begins at a time gets what was stored from then on, and nothing older.";
    begins_a_group_at_an_offset [Groups, StartAtOffset]
        "A new group that begins at the offset of a message gets that one and what follows.";
    begins_a_reader_at_an_offset [StartAtOffset]
        "A reader that begins at the offset of a message gets that one and what follows.";
    keeps_the_position_of_a_known_group [AtLeastOnce, Groups]
        "A group that has a position goes on there, wherever a subscription asks to begin.";
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

/// How far apart the two halves of a topic's messages are stored; clocks count in milliseconds here and there.
const APART: Duration = Duration::from_millis(300);
const HALF: usize = 5;

/// Ten messages, and a time between the first five and the last.
async fn publish_halves(world: &World, broker: &Broker) -> Checked<SystemTime> {
    let mut between = SystemTime::now();
    for (index, number) in numbers(2 * HALF).into_iter().enumerate() {
        if index == HALF {
            tokio::time::sleep(APART).await;
            between = SystemTime::now();
            tokio::time::sleep(APART).await;
        }
        broker.publish(&world.topic, Message::new(number).key("one")).await?;
    }
    Ok(between)
}

fn later_half() -> Vec<String> {
    numbers(2 * HALF).split_off(HALF)
}

/// A subscription at this position gets the later half of the messages, and nothing else.
async fn check_gets_later_half(world: &World, broker: &Broker, subscription: Subscription) -> Checked {
    let mut deliveries = broker.subscribe(subscription).await?;
    check_gets(world, &mut deliveries, later_half()).await
}

async fn check_gets(world: &World, deliveries: &mut Deliveries, expected: Vec<String>) -> Checked {
    check_eq!(world.drain(deliveries, expected.len()).await?, expected, "what comes");
    world.nothing_comes(deliveries).await
}

async fn begins_a_group_at_a_time(world: &World) -> Checked {
    let broker = world.broker().await?;
    let between = publish_halves(world, &broker).await?;
    check_gets_later_half(world, &broker, world.group("g").start(Start::Time(between))).await
}

async fn begins_a_reader_at_a_time(world: &World) -> Checked {
    let broker = world.broker().await?;
    let between = publish_halves(world, &broker).await?;
    check_gets_later_half(world, &broker, world.reader().start(Start::Time(between))).await
}

async fn begins_a_group_at_an_offset(world: &World) -> Checked {
    let broker = world.broker().await?;
    publish_halves(world, &broker).await?;
    let offset = offset_of_later_half(world, &broker).await?;
    check_gets_later_half(world, &broker, world.group("g").start(Start::Offset(offset))).await
}

async fn begins_a_reader_at_an_offset(world: &World) -> Checked {
    let broker = world.broker().await?;
    publish_halves(world, &broker).await?;
    let offset = offset_of_later_half(world, &broker).await?;
    check_gets_later_half(world, &broker, world.reader().start(Start::Offset(offset))).await
}

/// The offset of the first message of the later half, as a consumer sees it.
async fn offset_of_later_half(world: &World, broker: &Broker) -> Checked<u64> {
    let mut deliveries = broker.subscribe(world.group("looking")).await?;
    for _ in 0..2 * HALF {
        let delivery = world.next(&mut deliveries).await?;
        let offset = delivery.message().offset();
        let found = text(delivery.message().payload()) == HALF.to_string();
        delivery.ack().await?;
        if found {
            let offset = offset.and_then(|offset| u64::try_from(offset).ok());
            return offset
                .ok_or_else(|| Failure::new("a broker with offsets tells those of its messages: there is none"));
        }
    }
    Err(Failure::new(format!("message {HALF} is among the first {}: it is not", 2 * HALF)))
}

async fn keeps_the_position_of_a_known_group(world: &World) -> Checked {
    let broker = world.broker().await?;
    world.make_group("g").await?;
    for number in numbers(6) {
        broker.publish(&world.topic, Message::new(number).key("one")).await?;
    }
    let mut deliveries = broker.subscribe(world.group("g").prefetch(1)).await?;
    let mut handled = world.drain(&mut deliveries, 2).await?;
    check_eq!(handled, numbers(2), "the first messages");
    drop(deliveries);
    let mut starts = vec![Start::Latest, Start::Earliest];
    if world.capabilities.start_at_time {
        starts.push(Start::Time(SystemTime::UNIX_EPOCH));
    }
    if world.capabilities.start_at_offset {
        starts.push(Start::Offset(0));
    }
    for start in starts {
        let mut deliveries = broker.subscribe(world.group("g").start(start).prefetch(1)).await?;
        // Which of the rest comes first is not said: the one before may still be on its way back.
        let next = world.drain(&mut deliveries, 1).await?.remove(0);
        check!(!handled.contains(&next), "what comes was not handled before, asked to begin at {start:?}: {next}");
        handled.push(next);
    }
    Ok(())
}

/// A group that has handled the first `handled` of ten messages, and left.
async fn group_that_handled(world: &World, broker: &Broker, handled: usize) -> Checked<SystemTime> {
    world.make_group("g").await?;
    let between = publish_halves(world, broker).await?;
    let member = world.broker().await?;
    let mut deliveries = member.subscribe(world.group("g")).await?;
    check_eq!(world.drain(&mut deliveries, handled).await?, numbers(handled), "the first messages");
    drop(deliveries);
    member.close().await?;
    Ok(between)
}

async fn moves_a_group_to_the_earliest(world: &World) -> Checked {
    let broker = world.broker().await?;
    group_that_handled(world, &broker, 2 * HALF).await?;
    broker.reposition(&world.group("g"), Start::Earliest).await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    check_gets(world, &mut deliveries, numbers(2 * HALF)).await
}

async fn moves_a_group_to_the_latest(world: &World) -> Checked {
    let broker = world.broker().await?;
    group_that_handled(world, &broker, 2).await?;
    broker.reposition(&world.group("g"), Start::Latest).await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("after").key("one")).await?;
    check_gets(world, &mut deliveries, vec!["after".to_owned()]).await
}

async fn moves_a_group_to_a_time(world: &World) -> Checked {
    let broker = world.broker().await?;
    let between = group_that_handled(world, &broker, 2 * HALF).await?;
    broker.reposition(&world.group("g"), Start::Time(between)).await?;
    check_gets_later_half(world, &broker, world.group("g")).await
}

async fn moves_a_group_to_an_offset(world: &World) -> Checked {
    let broker = world.broker().await?;
    group_that_handled(world, &broker, 2).await?;
    let offset = offset_of_later_half(world, &broker).await?;
    broker.reposition(&world.group("g"), Start::Offset(offset)).await?;
    check_gets_later_half(world, &broker, world.group("g")).await
}

async fn moves_one_group_and_no_other(world: &World) -> Checked {
    let broker = world.broker().await?;
    group_that_handled(world, &broker, 2 * HALF).await?;
    let mut other = broker.subscribe(world.group("other")).await?;
    if world.capabilities.backlog {
        check_eq!(world.drain(&mut other, 2 * HALF).await?, numbers(2 * HALF), "what the other group gets");
    }
    broker.reposition(&world.group("g"), Start::Earliest).await?;
    world.nothing_comes(&mut other).await?;
    broker.publish(&world.topic, Message::new("after").key("one")).await?;
    check_eq!(world.drain(&mut other, 1).await?, ["after"], "what the other group gets");
    Ok(())
}
