//! High load.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::{join_all, try_join_all};
use parking_lot::Mutex;

use crate::broker::{Broker, Deliveries, TracedBroker};
use crate::conformance::case_context::{CaseContext, numbers, text};
use crate::conformance::failure::{Checked, Failure, check};
use crate::message::Message;

crate::conformance::case::cases! { Stress:
    serves_fifty_subscribers_at_once []
        "Fifty subscribers that start at once, on five connections, each get all messages.";
    loses_none_of_ten_thousand [AtLeastOnce]
        "All of ten thousand messages from twenty publishers reach a group of four.";
}

async fn serves_fifty_subscribers_at_once(case: &CaseContext) -> Checked {
    const SUBSCRIBERS: usize = 50;
    const COUNT: usize = 20;
    let brokers: Vec<Broker> = try_join_all((0..5).map(|_| case.broker())).await?;
    // The topic must exist before its readers, which begin at its end.
    case.publish_before(&brokers[0]).await?;
    let subscribing = (0..SUBSCRIBERS).map(|index| brokers[index % brokers.len()].subscribe(case.reader()));
    let mut subscribed: Vec<Deliveries> = Vec::new();
    for deliveries in case.within("all subscriptions", join_all(subscribing)).await? {
        subscribed.push(deliveries?);
    }
    for number in numbers(COUNT) {
        brokers[0].publish(&case.topic, Message::new(number)).await?;
    }
    let expected: BTreeSet<String> = numbers(COUNT).into_iter().collect();
    let draining = subscribed.iter_mut().map(|deliveries| case.drain(deliveries, COUNT));
    for (index, payloads) in join_all(draining).await.into_iter().enumerate() {
        let seen: BTreeSet<String> =
            payloads.map_err(|failure| failure.during(&format!("subscriber {index}")))?.into_iter().collect();
        check!(seen == expected, "subscriber {index} gets all messages: {} of them", seen.len());
    }
    Ok(())
}

async fn loses_none_of_ten_thousand(case: &CaseContext) -> Checked {
    const COUNT: usize = 10_000;
    const PUBLISHERS: usize = 20;
    let brokers = [case.broker().await?, case.broker().await?];
    let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    for index in 0..4 {
        let deliveries = brokers[index % 2].subscribe(case.group("g").prefetch(200)).await?;
        // The task ends with its connection.
        tokio::spawn(consume(deliveries, Arc::clone(&seen)));
    }
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let (broker, topic) = (brokers[publisher % 2].clone(), case.topic.clone());
        tokio::spawn(async move {
            for number in (publisher..COUNT).step_by(PUBLISHERS) {
                broker.publish(&topic, Message::new(number.to_string()).key(number.to_string())).await?;
            }
            Checked::Ok(())
        })
    });
    for published in join_all(publishers).await {
        published.map_err(|error| Failure::new(format!("publishing does not panic: {error}")))??;
    }
    let arriving = async {
        while seen.lock().len() < COUNT {
            tokio::time::sleep(case.harness.quiet() / 20).await;
        }
    };
    let arrived = case.within("the last messages", arriving).await;
    let missing: Vec<String> =
        numbers(COUNT).into_iter().filter(|number| !seen.lock().contains(number)).take(10).collect();
    check!(arrived.is_ok(), "all messages arrive: {} did; some of those missing: {missing:?}", seen.lock().len());
    Ok(())
}

/// Acknowledges everything. A message whose settlement is lost to a rebalance is redelivered.
async fn consume(deliveries: Deliveries, seen: Arc<Mutex<BTreeSet<String>>>) {
    deliveries
        .for_each_concurrent(50, |item| async {
            if let Ok(delivery) = item {
                seen.lock().insert(text(delivery.message().payload()));
                let _ = delivery.ack().await;
            }
        })
        .await;
}
