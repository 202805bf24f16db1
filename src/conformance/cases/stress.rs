//! Much at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::{join_all, try_join_all};
use parking_lot::Mutex;

use super::super::failure::{Checked, Failure, check};
use super::super::world::{World, numbers, text};
use crate::broker::{Broker, TracedBroker};
use crate::consumer::Deliveries;
use crate::message::Message;

super::super::case::cases! { Stress:
    serves_fifty_subscribers_at_once []
        "Fifty subscribers that begin at once, on five connections, each get everything.";
    loses_none_of_ten_thousand [AtLeastOnce]
        "Ten thousand messages of twenty publishers reach a group of four, every one.";
}

async fn serves_fifty_subscribers_at_once(world: &World) -> Checked {
    const SUBSCRIBERS: usize = 50;
    const COUNT: usize = 20;
    let brokers: Vec<Broker> = try_join_all((0..5).map(|_| world.broker())).await?;
    // The topic is there before its readers, which begin at its end.
    world.publish_before(&brokers[0]).await?;
    let subscribing = (0..SUBSCRIBERS).map(|index| brokers[index % brokers.len()].subscribe(world.reader()));
    let mut subscribed: Vec<Deliveries> = Vec::new();
    for deliveries in world.within("all subscriptions", join_all(subscribing)).await? {
        subscribed.push(deliveries?);
    }
    for number in numbers(COUNT) {
        brokers[0].publish(&world.topic, Message::new(number)).await?;
    }
    let expected: BTreeSet<String> = numbers(COUNT).into_iter().collect();
    let draining = subscribed.iter_mut().map(|deliveries| world.drain(deliveries, COUNT));
    for (index, payloads) in join_all(draining).await.into_iter().enumerate() {
        let seen: BTreeSet<String> =
            payloads.map_err(|failure| failure.during(&format!("subscriber {index}")))?.into_iter().collect();
        check!(seen == expected, "subscriber {index} gets all messages: {} of them", seen.len());
    }
    Ok(())
}

async fn loses_none_of_ten_thousand(world: &World) -> Checked {
    const COUNT: usize = 10_000;
    const PUBLISHERS: usize = 20;
    let brokers = [world.broker().await?, world.broker().await?];
    let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    for index in 0..4 {
        let deliveries = brokers[index % 2].subscribe(world.group("g").prefetch(200)).await?;
        // Ends with its connection.
        tokio::spawn(consume(deliveries, Arc::clone(&seen)));
    }
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let (broker, topic) = (brokers[publisher % 2].clone(), world.topic.clone());
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
            tokio::time::sleep(world.harness.quiet() / 20).await;
        }
    };
    let arrived = world.within("the last messages", arriving).await;
    let missing: Vec<String> =
        numbers(COUNT).into_iter().filter(|number| !seen.lock().contains(number)).take(10).collect();
    check!(arrived.is_ok(), "all messages arrive: {} did, among those missing are {missing:?}", seen.lock().len());
    Ok(())
}

/// Acknowledges everything; a settlement that is lost to a rebalance comes again.
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
