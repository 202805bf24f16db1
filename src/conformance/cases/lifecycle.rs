//! Subscribing, cancelling, closing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;

use crate::broker::{Broker, Deliveries, TracedBroker};
use crate::conformance::case_context::{CaseContext, numbers, refused, text};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::driver::capability::Confirm;
use crate::driver::{DriverExt, Outbound};
use crate::error::{ErrorKind, PublishOutcome};
use crate::message::{Message, Topic};

crate::conformance::case::cases! { Lifecycle:
    closes_once_and_for_all []
        "After closing, everything is refused as Closed, streams end, and a second close succeeds.";
    closes_from_many_tasks_at_once []
        "Closing from ten tasks at once, including clones of the broker, closes it once and without errors.";
    closes_while_many_publish []
        "Closing under twenty publishers: confirmed messages arrive, NotSent ones do not.";
    drives_and_closes_below_the_telemetry []
        "The driver alone publishes, refuses after closing, ends its sources, and can be closed twice.";
    flushes_what_nobody_waits_for [AtLeastOnce]
        "Closing flushes earlier publishes and settlements to the broker, even those whose answer is not awaited.";
    survives_a_cancelled_receive []
        "Waiting for a delivery can be cancelled at any time without losing a message.";
    survives_a_cancelled_publish []
        "Publishes can be cancelled: each arrives at most once, and later ones arrive in order.";
    continues_after_a_subscriber_is_gone []
        "When one subscriber ends, others on the same connection go on.";
    hands_the_work_of_a_closed_member_to_the_others [AtLeastOnce, Groups]
        "When a member of a group closes with unsettled messages, the other gets them, and none is lost.";
    answers_a_ping []
        "A ping succeeds on an open connection.";
}

async fn closes_once_and_for_all(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("before")).await?;
    broker.close().await?;
    let ends = async { while deliveries.next().await.is_some() {} };
    case.within("the stream ends", ends).await?;
    broker.close().await?;
    let error = refused("publishing", broker.publish(&case.topic, Message::new("late")).await)?;
    check_eq!(error.kind(), ErrorKind::Closed, "the kind of {error}");
    check_eq!(error.publish_outcome(), PublishOutcome::NotSent, "the outcome");
    let error = refused("subscribing", broker.subscribe(case.group("g")).await)?;
    check_eq!(error.kind(), ErrorKind::Closed, "the kind of {error}");
    let error = refused("a ping", broker.ping().await)?;
    check_eq!(error.kind(), ErrorKind::Closed, "the kind of {error}");
    Ok(())
}

async fn closes_from_many_tasks_at_once(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    for number in numbers(10) {
        broker.publish(&case.topic, Message::new(number)).await?;
    }
    let unsettled = case.next(&mut deliveries).await?;
    let closing: Vec<_> =
        (0..10).map(|_| broker.clone()).map(|broker| tokio::spawn(async move { broker.close().await })).collect();
    for closed in closing {
        let closed = case.within("closing", closed).await?;
        closed.map_err(|error| Failure::new(format!("closing does not panic: {error}")))??;
    }
    drop(unsettled);
    case.within("the stream ends", async { while deliveries.next().await.is_some() {} }).await
}

/// The outcome of each publish, by payload.
#[derive(Default)]
struct Fates {
    confirmed: Mutex<BTreeSet<String>>,
    not_sent: Mutex<BTreeSet<String>>,
}

async fn closes_while_many_publish(case: &CaseContext) -> Checked {
    const PUBLISHERS: usize = 20;
    const BEFORE_CLOSE: usize = 600;
    let broker = case.broker().await?;
    // Subscribed before the first publish, for brokers that keep no backlog.
    let reader = case.broker().await?;
    let mut deliveries = reader.subscribe(case.group("g").prefetch(1_000)).await?;
    let (fates, count) = (Arc::new(Fates::default()), Arc::new(AtomicUsize::new(0)));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let (broker, topic, fates) = (broker.clone(), case.topic.clone(), Arc::clone(&fates));
            tokio::spawn(publish_until_closed(broker, topic, publisher, fates, Arc::clone(&count)))
        })
        .collect();
    let under_way = async {
        while count.load(Ordering::Relaxed) < BEFORE_CLOSE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    case.within("publishing", under_way).await?;
    broker.close().await?;
    for publisher in publishers {
        let ended = case.within("the publisher ends", publisher).await?;
        ended.map_err(|error| Failure::new(format!("publishing does not panic: {error}")))??;
    }
    let seen = collect_until_quiet(case, &mut deliveries).await?;
    let lost: Vec<String> =
        fates.confirmed.lock().iter().filter(|payload| !seen.contains_key(*payload)).cloned().collect();
    check!(case.capabilities.confirm == Confirm::Never || lost.is_empty(), "what was confirmed arrives: lost {lost:?}");
    let wrong: Vec<String> =
        fates.not_sent.lock().iter().filter(|payload| seen.contains_key(*payload)).cloned().collect();
    check_eq!(wrong, Vec::<String>::new(), "the messages that were certainly not sent, and arrived");
    Ok(())
}

async fn publish_until_closed(
    broker: Broker,
    topic: String,
    publisher: usize,
    fates: Arc<Fates>,
    count: Arc<AtomicUsize>,
) -> Checked {
    /// Maximum number of messages per publisher: enough to still be busy when the broker is closed,
    /// and in total no more than a broker keeps in memory.
    const MOST: usize = 240;
    for number in 0..MOST {
        let payload = format!("{publisher}/{number}");
        match broker.publish(&topic, Message::new(payload.clone()).key(publisher.to_string())).await {
            Ok(_) => {
                count.fetch_add(1, Ordering::Relaxed);
                fates.confirmed.lock().insert(payload);
                // Gives the other publishers a turn even if the broker confirms at once.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                if error.publish_outcome() == PublishOutcome::NotSent {
                    fates.not_sent.lock().insert(payload);
                }
                check_eq!(error.kind(), ErrorKind::Closed, "the kind of {error}");
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Receives and acknowledges until no more messages arrive. Returns the number of deliveries of
/// each payload.
async fn collect_until_quiet(case: &CaseContext, deliveries: &mut Deliveries) -> Checked<BTreeMap<String, usize>> {
    let mut seen = BTreeMap::new();
    // The first delivery may take long, for example if the consumer must join a group.
    let mut wait = case.harness.patience();
    while let Ok(Some(item)) = tokio::time::timeout(wait, deliveries.next()).await {
        let Ok(delivery) = item else { continue };
        *seen.entry(text(delivery.message().payload())).or_default() += 1;
        delivery.ack().await?;
        wait = 3 * case.harness.quiet();
    }
    Ok(seen)
}

async fn drives_and_closes_below_the_telemetry(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let topic = Topic::new(&case.topic)?;
    driver.declare(&topic).await?;
    let mut source = driver.subscribe(&case.group("g")).await?;
    let receipt = driver.enqueue(&topic, Outbound::new("one")).await?;
    case.check_receipt(&receipt)?;
    let inbound = std::future::poll_fn(|cx| source.poll_next(cx));
    let inbound = match case.within("the message", inbound).await? {
        Some(inbound) => inbound?,
        None => return Err(Failure::new("the source goes on until the driver is closed: it ended")),
    };
    check_eq!(inbound.payload.as_deref().map(text).as_deref(), Some("one"), "the payload");
    check!(inbound.headers.is_empty(), "nothing is added to the headers: {:?}", inbound.headers);
    inbound.handle.settle(crate::driver::Disposition::Ack).await?;
    driver.ping().await?;
    driver.close().await?;
    driver.close().await?;
    let ends = async { while std::future::poll_fn(|cx| source.poll_next(cx)).await.is_some() {} };
    case.within("the source ends", ends).await?;
    let error = refused("publishing", driver.enqueue(&topic, Outbound::new("two")).await)?;
    check_eq!(error.kind(), ErrorKind::Closed, "the kind of {error}");
    check_eq!(error.publish_outcome(), PublishOutcome::NotSent, "the outcome");
    check_eq!(refused("declaring", driver.declare(&topic).await)?.kind(), ErrorKind::Closed, "the kind of the error");
    check_eq!(
        refused("subscribing", driver.subscribe(&case.group("g")).await)?.kind(),
        ErrorKind::Closed,
        "the kind of the error"
    );
    Ok(())
}

async fn flushes_what_nobody_waits_for(case: &CaseContext) -> Checked {
    const COUNT: usize = 40;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").prefetch(COUNT)).await?;
    let publishing =
        numbers(COUNT).into_iter().map(|number| broker.publish(&case.topic, Message::new(number).key("one")));
    for result in futures_util::future::join_all(publishing).await {
        result?;
    }
    for _ in 0..COUNT {
        let delivery = case.next(&mut deliveries).await?;
        // Polled once, then dropped: the settlement is in flight.
        let _ = delivery.ack().now_or_never();
    }
    let mut last = broker.publish(&case.topic, Message::new("last").key("one"));
    let _ = (&mut last).now_or_never();
    drop(last);
    broker.close().await?;

    let again = case.broker().await?;
    let mut deliveries = again.subscribe(case.group("g")).await?;
    check_eq!(case.drain(&mut deliveries, 1).await?, ["last"], "what comes on a new connection");
    case.nothing_comes(&mut deliveries).await
}

async fn survives_a_cancelled_receive(case: &CaseContext) -> Checked {
    const COUNT: usize = 100;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").prefetch(10)).await?;
    let (publisher, topic) = (broker.clone(), case.topic.clone());
    let publishing = tokio::spawn(async move {
        for number in numbers(COUNT) {
            publisher.publish(&topic, Message::new(number).key("one")).await?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Checked::Ok(())
    });
    let mut seen = Vec::new();
    let receive = async {
        while seen.len() < COUNT {
            // Cancelled again and again, often just as a message arrives.
            let Ok(item) = tokio::time::timeout(Duration::from_millis(1), deliveries.next()).await else { continue };
            let Some(Ok(delivery)) = item else { continue };
            seen.push(text(delivery.message().payload()));
            delivery.ack().await?;
        }
        Checked::Ok(())
    };
    let received = case.within("all messages", receive).await;
    check!(received.is_ok(), "all {COUNT} messages arrive: {}", seen.len());
    received??;
    check_eq!(seen, numbers(COUNT), "the messages");
    publishing.await.map_err(|error| Failure::new(format!("publishing does not panic: {error}")))?
}

async fn survives_a_cancelled_publish(case: &CaseContext) -> Checked {
    const COUNT: usize = 50;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("first").key("one")).await?;
    for number in 0..COUNT {
        // Polled once, then dropped: the message may have been sent.
        let mut given_up = broker.publish(&case.topic, Message::new(format!("given up {number}")).key("one"));
        let _ = (&mut given_up).now_or_never();
        drop(given_up);
        broker.publish(&case.topic, Message::new(number.to_string()).key("one")).await?;
    }
    let (mut kept, mut given_up) = (Vec::new(), Vec::new());
    while kept.len() < COUNT + 1 {
        let delivery = case.next(&mut deliveries).await?;
        let payload = text(delivery.message().payload());
        if payload.starts_with("given up") {
            given_up.push(payload)
        } else {
            kept.push(payload)
        }
        delivery.ack().await?;
    }
    let mut expected = numbers(COUNT);
    expected.insert(0, "first".to_owned());
    check_eq!(kept, expected, "the messages that were not given up");
    let once: BTreeSet<&String> = given_up.iter().collect();
    check_eq!(once.len(), given_up.len(), "how many of those given up arrive, each once");
    Ok(())
}

async fn continues_after_a_subscriber_is_gone(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let other = case.topic("other");
    let mut stays = broker.subscribe(case.group("stays")).await?;
    let mut elsewhere = broker.subscribe(case.group_on(&other, "elsewhere")).await?;
    let mut goes = broker.subscribe(case.group("goes")).await?;
    broker.publish(&case.topic, Message::new("0").key("one")).await?;
    let unsettled = case.next(&mut goes).await?;
    drop(goes);
    drop(unsettled);
    for number in ["1", "2", "3"] {
        broker.publish(&case.topic, Message::new(number).key("one")).await?;
        broker.publish(&other, Message::new(number).key("one")).await?;
    }
    check_eq!(case.drain(&mut stays, 4).await?, numbers(4), "what the other group gets");
    check_eq!(case.drain(&mut elsewhere, 3).await?, ["1", "2", "3"], "what arrives at the other topic");
    Ok(())
}

async fn hands_the_work_of_a_closed_member_to_the_others(case: &CaseContext) -> Checked {
    const COUNT: usize = 40;
    let (leaving, staying) = (case.broker().await?, case.broker().await?);
    let mut first = leaving.subscribe(case.group("g").prefetch(COUNT)).await?;
    for number in numbers(COUNT) {
        staying.publish(&case.topic, Message::new(number.clone()).key(number)).await?;
    }
    let mut settled = BTreeSet::new();
    let mut unsettled = Vec::new();
    for index in 0..COUNT / 2 {
        let delivery = case.next(&mut first).await?;
        if index % 2 == 0 {
            settled.insert(text(delivery.message().payload()));
            delivery.ack().await?;
        } else {
            unsettled.push(delivery);
        }
    }
    let mut second = staying.subscribe(case.group("g")).await?;
    leaving.close().await?;
    drop((unsettled, first));
    while settled.len() < COUNT {
        // A message may be delivered twice: a log also redelivers everything after the oldest
        // unsettled message.
        settled.extend(case.drain(&mut second, 1).await?);
    }
    check_eq!(settled, numbers(COUNT).into_iter().collect(), "the messages that the two get");
    Ok(())
}

async fn answers_a_ping(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    broker.ping().await?;
    check_eq!(broker.system(), broker.get_ref().identity().system, "the name of the system");
    Ok(())
}
