//! The order in which messages arrive.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;

use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, numbers, text};
use crate::conformance::failure::{Checked, check, check_eq};
use crate::message::Message;

crate::conformance::case::cases! { Order:
    keeps_the_callers_order_with_many_in_flight []
        "Three thousand messages of one key, all in flight at once, arrive in the order in which they were published.";
    keeps_the_order_of_each_key []
        "A thousand messages of sixteen keys arrive, those of each key in the order in which they were published.";
    keeps_the_order_across_a_batch []
        "Messages published one by one, in a batch and one by one again arrive in that order.";
}

async fn keeps_the_callers_order_with_many_in_flight(case: &CaseContext) -> Checked {
    const COUNT: usize = 3_000;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").prefetch(500)).await?;
    let mut publishes: FuturesOrdered<_> =
        numbers(COUNT).into_iter().map(|number| broker.publish(&case.topic, Message::new(number).key("one"))).collect();
    let publishing = async {
        while let Some(result) = publishes.next().await {
            case.check_receipt(&result?)?;
        }
        Checked::Ok(())
    };
    let (published, received) = tokio::join!(publishing, case.drain(&mut deliveries, COUNT));
    published?;
    let received = received?;
    let expected = numbers(COUNT);
    let first = received.iter().zip(&expected).position(|(seen, expected)| seen != expected);
    check!(first.is_none(), "the order of publishing: message {first:?} is {:?}", first.map(|index| &received[index]));
    Ok(())
}

async fn keeps_the_order_of_each_key(case: &CaseContext) -> Checked {
    const COUNT: usize = 1_000;
    const KEYS: usize = 16;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").prefetch(100)).await?;
    let publishes = (0..COUNT).map(|number| {
        let key = format!("key-{}", number % KEYS);
        broker.publish(&case.topic, Message::new(number.to_string()).key(key))
    });
    for result in futures_util::future::join_all(publishes).await {
        result?;
    }
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..COUNT {
        let delivery = case.next(&mut deliveries).await?;
        let key = delivery.message().key().map(|key| text(key)).unwrap_or_default();
        let number: usize = text(delivery.message().payload()).parse().unwrap_or(usize::MAX);
        check_eq!(key, format!("key-{}", number % KEYS), "the key of message {number}");
        let expected = last.get(&key).map_or(number % KEYS, |before| before + KEYS);
        check_eq!(number, expected, "the next message of {key}");
        last.insert(key, number);
        delivery.ack().await?;
    }
    Ok(())
}

async fn keeps_the_order_across_a_batch(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let message = |number: usize| Message::new(number.to_string()).key("one");
    broker.publish(&case.topic, message(0)).await?;
    let before = broker.publish(&case.topic, message(1));
    let batch = broker.publish_batch(&case.topic, (2..30).map(message).collect());
    let after = broker.publish(&case.topic, message(30));
    let (before, batch, after) = tokio::join!(before, batch, after);
    before?;
    after?;
    for result in batch {
        result?;
    }
    check_eq!(case.drain(&mut deliveries, 31).await?, numbers(31), "the order");
    Ok(())
}
