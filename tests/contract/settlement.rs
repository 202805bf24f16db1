//! Attempts, retries, dead letters, and what is settled when.

use std::time::{Duration, Instant};

use traced_broker::{ErrorKind, HandlerError, Message, Settlement, TracedBroker, dead_letter};

use super::World;
use super::world::{drain, next, nothing_comes, text};

pub(crate) async fn counts_attempts_until_acknowledged(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    broker.publish(&world.topic, Message::new("again").key("k")).await.unwrap();
    for attempt in 1..=3 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.message().attempt(), attempt);
        assert_eq!(delivery.message().payload(), "again");
        delivery.retry(Duration::ZERO).await.unwrap();
    }
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.message().attempt(), 4);
    delivery.ack().await.unwrap();
    nothing_comes(&mut deliveries).await;
    broker.close().await.unwrap();
}

pub(crate) async fn delays_a_retry(world: &World) {
    let delay = Duration::from_millis(800);
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    broker.publish(&world.topic, Message::new("first")).await.unwrap();
    let asked = Instant::now();
    next(&mut deliveries).await.retry(delay).await.unwrap();
    broker.publish(&world.topic, Message::new("second")).await.unwrap();
    assert_eq!(drain(&mut deliveries, 1).await, ["second"], "others pass meanwhile");
    let delivery = next(&mut deliveries).await;
    assert!(asked.elapsed() >= delay - Duration::from_millis(20), "came back after {:?}", asked.elapsed());
    assert_eq!(delivery.message().payload(), "first");
    assert_eq!(delivery.message().attempt(), 2);
    delivery.ack().await.unwrap();
    broker.close().await.unwrap();
}

pub(crate) async fn hands_out_again_what_was_dropped(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    broker.publish(&world.topic, Message::new("dropped")).await.unwrap();
    drop(next(&mut deliveries).await);
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.message().payload(), "dropped");
    assert_eq!(delivery.message().attempt(), 2);
    delivery.ack().await.unwrap();
    broker.close().await.unwrap();
}

pub(crate) async fn brings_acknowledgements_to_the_broker_before_closing(world: &World) {
    const COUNT: usize = 300;
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g").prefetch(50)).await.unwrap();
    for number in 0..COUNT + 1 {
        broker.publish(&world.topic, Message::new(number.to_string()).key("one")).await.unwrap();
    }
    drain(&mut deliveries, COUNT).await;
    let held = next(&mut deliveries).await;
    assert_eq!(held.message().payload(), &COUNT.to_string());
    broker.close().await.unwrap();
    drop((held, deliveries));

    let again = world.broker().await;
    let mut deliveries = again.subscribe(world.group("g")).await.unwrap();
    assert_eq!(drain(&mut deliveries, 1).await, [COUNT.to_string()], "only what was not acknowledged comes back");
    nothing_comes(&mut deliveries).await;
    again.close().await.unwrap();
}

pub(crate) async fn fails_to_settle_after_close(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    broker.publish(&world.topic, Message::new("late")).await.unwrap();
    let delivery = next(&mut deliveries).await;
    broker.close().await.unwrap();
    let error = delivery.ack().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::SettlementLost | ErrorKind::Closed), "{error}");
}

pub(crate) async fn copies_rejected_messages_to_the_dead_letter_topic(world: &World) {
    let dead = format!("{}.dead", world.topic);
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g").dead_letter(&dead)).await.unwrap();
    let mut graves = broker.subscribe(world.group_on(&dead, "graves")).await.unwrap();
    let message = Message::new("poison").key("k").header("tenant", "acme");
    broker.publish(&world.topic, message).await.unwrap();

    let delivery = next(&mut deliveries).await;
    let traceparent = delivery.message().headers().get_str("traceparent").map(str::to_owned);
    assert!(traceparent.is_some());
    let processed =
        delivery.process(|_| async { Err::<(), _>(HandlerError::reject("nobody ships\r\nthis")) }).await.unwrap();
    assert_eq!(processed.settlement, Settlement::Rejected);

    let grave = next(&mut graves).await;
    let copy = grave.message();
    assert_eq!(copy.payload(), "poison");
    assert_eq!(copy.key().map(|key| text(key)), Some("k".to_owned()));
    assert_eq!(copy.headers().get_str("tenant"), Some("acme"));
    assert_eq!(copy.headers().get_str("traceparent").map(str::to_owned), traceparent, "the creation context");
    assert_eq!(copy.headers().get_all("traceparent").count(), 1);
    assert_eq!(copy.headers().get_str(dead_letter::REASON), Some("nobody ships  this"));
    assert_eq!(copy.headers().get_str(dead_letter::TOPIC), Some(&*world.topic));
    assert_eq!(copy.headers().get_str(dead_letter::ATTEMPTS), Some("1"));
    grave.process(|_| async { Ok(()) }).await.unwrap();
    nothing_comes(&mut deliveries).await;
    broker.close().await.unwrap();
    world.assert_everything_resolves();
    let processed = world.the_span(&world.process_name());
    let buried = world.the_span(&format!("process {dead}"));
    assert_eq!(buried.span_context.trace_id(), processed.span_context.trace_id(), "the trace goes on");
}

pub(crate) async fn discards_without_a_dead_letter_topic(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    broker.publish(&world.topic, Message::new("unwanted")).await.unwrap();
    next(&mut deliveries).await.reject("unwanted").await.unwrap();
    nothing_comes(&mut deliveries).await;
    broker.close().await.unwrap();
}

pub(crate) async fn retries_when_the_dead_letter_cannot_be_published(world: &World) {
    let broker = world.broker().await;
    drop(broker.subscribe(world.group("g")).await.unwrap());
    broker.publish(&world.topic, Message::new("kept")).await.unwrap();

    let strict = world.connect_with("topology=check").await;
    let dead = format!("{}.dead", world.topic);
    let mut deliveries = match strict.subscribe(world.group("g").dead_letter(&dead)).await {
        Ok(deliveries) => deliveries,
        // Some brokers can tell before the first message is rejected.
        Err(error) => return assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
    };
    let delivery = next(&mut deliveries).await;
    let attempt = delivery.message().attempt();
    let error = delivery.reject("the dead-letter topic does not exist").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let delivery = next(&mut deliveries).await;
    assert_eq!((delivery.message().payload(), delivery.message().attempt()), (&"kept".into(), attempt + 1), "not lost");
    delivery.ack().await.unwrap();
    strict.close().await.unwrap();
    broker.close().await.unwrap();
}

pub(crate) async fn contains_a_panic(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    broker.publish(&world.topic, Message::new("bang")).await.unwrap();
    let delivery = next(&mut deliveries).await;
    let processed = delivery
        .process(|message| async move {
            assert!(message.attempt() > 1, "a bug");
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(processed.settlement, Settlement::Retried);
    assert!(processed.error.unwrap().to_string().contains("a bug"));
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.message().attempt(), 2);
    delivery.process(|_| async { Ok(()) }).await.unwrap();
    broker.close().await.unwrap();
    let spans = world.spans_named(&world.process_name());
    assert_eq!(super::world::attribute_text(&spans[0], "error.type"), "panic");
    assert_eq!(spans.len(), 2);
}

pub(crate) async fn treats_at_most_once_as_handled(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g").at_most_once()).await.unwrap();
    broker.publish(&world.topic, Message::new("once")).await.unwrap();
    let delivery = next(&mut deliveries).await;
    let error = delivery.retry(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    broker.publish(&world.topic, Message::new("twice")).await.unwrap();
    let processed = next(&mut deliveries).await.process(|_| async { Ok(()) }).await.unwrap();
    assert_eq!(processed.settlement, Settlement::None);
    nothing_comes(&mut deliveries).await;
    let refused = broker.subscribe(world.group("g").at_most_once().dead_letter("graves")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    broker.close().await.unwrap();
}
