//! Streams and consumers: created, found, checked.

use async_nats::jetstream::{self, consumer, stream};
use traced_broker::driver::Driver;
use traced_broker::{ErrorKind, Start, Subscription, Topic};

use crate::kit::{self, ack, assert_quiet, message, next, publish, subscribe, text, topic};
use crate::support::{Kind, shared};

async fn context() -> jetstream::Context {
    jetstream::new(kit::raw().await)
}

#[tokio::test]
async fn declaring_is_idempotent_and_safe_at_once() {
    let topic = topic("declare");
    let nats = kit::connect().await;
    let others = [kit::connect().await, kit::connect_with("?max_age=60000").await];
    let declared = futures_util::future::join_all(
        [&nats, &others[0], &others[1], &nats].into_iter().map(|nats| nats.declare(&topic)),
    );
    for destination in declared.await {
        destination.unwrap();
    }
    nats.declare(&topic).await.unwrap();
    let mut found = context().await.get_stream(topic.replace('.', "~")).await.unwrap();
    let config = &found.info().await.unwrap().config;
    assert_eq!(config.subjects, [topic.to_string(), format!("@delayed.{}.>", topic.replace('.', "~"))]);
    assert!(config.allow_message_schedules && config.allow_message_ttl);
    assert_eq!((config.storage, config.retention), (stream::StorageType::File, stream::RetentionPolicy::Limits));
}

#[tokio::test]
async fn options_shape_what_is_created() {
    let topic = topic("options");
    let nats = kit::connect_with("?max_age=3600000&ack_wait=7000").await;
    nats.declare(&topic).await.unwrap();
    let _source = subscribe(&nats, &topic, "workers").await;
    let mut found = context().await.get_stream(topic.replace('.', "~")).await.unwrap();
    assert_eq!(found.info().await.unwrap().config.max_age.as_secs(), 3600);
    let config = found.consumer_info("workers").await.unwrap().config;
    assert_eq!((config.ack_wait.as_secs(), config.ack_policy), (7, consumer::AckPolicy::Explicit));
    assert_eq!((config.durable_name.as_deref(), config.filter_subject.as_str()), (Some("workers"), topic.as_str()));
}

#[tokio::test]
async fn limits_are_those_of_what_is_created() {
    let topic = topic("limits");
    let options = "?max_bytes=100000&max_msgs=3&duplicate_window=5000&storage=memory&max_age=60000";
    let nats = kit::connect_with(options).await;
    nats.declare(&topic).await.unwrap();
    let mut found = context().await.get_stream(topic.replace('.', "~")).await.unwrap();
    let config = &found.info().await.unwrap().config;
    assert_eq!((config.max_bytes, config.max_messages, config.max_age.as_secs()), (100_000, 3, 60));
    assert_eq!((config.duplicate_window.as_secs(), config.storage), (5, stream::StorageType::Memory));
    for number in 0..5 {
        publish(&nats, &topic, message(number.to_string())).await.unwrap();
    }
    let mut source = subscribe(&nats, &topic, "workers").await;
    for number in 2..5 {
        let inbound = next(&mut source).await;
        assert_eq!(text(&inbound), number.to_string());
        ack(inbound).await;
    }
    for refused in ["?max_bytes=0", "?max_msgs=-1", "?max_age=1000&duplicate_window=2000", "?storage=disk"] {
        let error = kit::connect_to(&format!("{}{refused}", shared(Kind::Nats))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{refused}: {error}");
    }
}

#[tokio::test]
async fn a_stream_that_exists_is_used_as_it_is() {
    let topic = topic("existing");
    let name = topic.replace('.', "-of-the-user-");
    let wide = stream::Config {
        name: name.clone(),
        subjects: vec![format!("{topic}.>"), topic.to_string()],
        ..Default::default()
    };
    context().await.create_stream(wide).await.unwrap();
    let nats = kit::connect_with("?topology=check").await;
    let inner = Topic::new(&format!("{topic}.inner")).unwrap();
    for topic in [&topic, &inner] {
        let destination = nats.declare(topic).await.unwrap();
        assert_eq!(destination.attributes, [("messaging.nats.stream", name.as_str().into())]);
        publish(&nats, topic, message(topic.to_string())).await.unwrap();
    }
    let nats = kit::connect().await;
    let mut source = subscribe(&nats, &inner, "inner-workers").await;
    let inbound = next(&mut source).await;
    assert_eq!(text(&inbound), inner.as_str());
    ack(inbound).await;
    assert_quiet(&mut source).await;
    let error = nats.subscribe(&Subscription::new(&*topic).group("inner-workers")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "one consumer has one subject: {error}");
}

#[tokio::test]
async fn checking_creates_nothing() {
    let topic = topic("check");
    let checking = kit::connect_with("?topology=check").await;
    let error = checking.declare(&topic).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(topic.as_str()), "{error}");
    let subscription = Subscription::new(&*topic).group("workers");
    assert_eq!(checking.subscribe(&subscription).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(context().await.get_stream(topic.replace('.', "~")).await.is_err());

    let creating = kit::connect().await;
    creating.declare(&topic).await.unwrap();
    checking.declare(&topic).await.unwrap();
    let error = checking.subscribe(&subscription).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "the group is missing still");
    assert!(error.to_string().contains("workers"), "{error}");
    drop(subscribe(&creating, &topic, "workers").await);
    drop(checking.subscribe(&subscription).await.unwrap());
    // A reader leaves no topology behind, so it may always be created.
    drop(checking.subscribe(&Subscription::new(&*topic)).await.unwrap());
}

#[tokio::test]
async fn what_cannot_be_used_is_a_conflict() {
    let nats = kit::connect().await;
    let context = context().await;
    let topic = topic("conflict");
    let silent = stream::Config {
        name: topic.replace('.', "-silent-"),
        subjects: vec![topic.to_string()],
        no_ack: true,
        ..Default::default()
    };
    context.create_stream(silent).await.unwrap();
    assert_eq!(nats.declare(&topic).await.unwrap_err().kind(), ErrorKind::Conflict);

    let topic = kit::topic("taken");
    let other =
        stream::Config { name: topic.replace('.', "~"), subjects: vec![format!("{topic}.x")], ..Default::default() };
    context.create_stream(other).await.unwrap();
    assert_eq!(nats.declare(&topic).await.unwrap_err().kind(), ErrorKind::Conflict);

    let topic = kit::topic("groups");
    nats.declare(&topic).await.unwrap();
    let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
    let push = consumer::push::Config {
        durable_name: Some("push".into()),
        deliver_subject: "somewhere".into(),
        ..Default::default()
    };
    stream.create_consumer(push).await.unwrap();
    let none = consumer::pull::Config {
        durable_name: Some("none".into()),
        ack_policy: consumer::AckPolicy::None,
        ..Default::default()
    };
    stream.create_consumer(none).await.unwrap();
    let everything = consumer::pull::Config { durable_name: Some("everything".into()), ..Default::default() };
    stream.create_consumer(everything).await.unwrap();
    for group in ["push", "none", "everything"] {
        let error = nats.subscribe(&Subscription::new(&*topic).group(group)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{group}: {error}");
    }
}

#[tokio::test]
async fn limits_of_a_consumer_of_the_users_own_are_kept() {
    let nats = kit::connect().await;
    let topic = topic("limits");
    kit::publish_numbers(&nats, &topic, 0..20).await;
    let stream = context().await.get_stream(topic.replace('.', "~")).await.unwrap();
    let own = consumer::pull::Config {
        durable_name: Some("own".into()),
        filter_subject: topic.to_string(),
        max_batch: 3,
        max_expires: std::time::Duration::from_secs(2),
        max_ack_pending: 5,
        ..Default::default()
    };
    stream.create_consumer(own).await.unwrap();
    let mut source = subscribe(&nats, &topic, "own").await;
    for number in 0..20 {
        let inbound = next(&mut source).await;
        assert_eq!(text(&inbound), number.to_string());
        ack(inbound).await;
    }
    // Longer than the longest request that the consumer allows.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    kit::publish_numbers(&nats, &topic, 20..25).await;
    for number in 20..25 {
        let inbound = next(&mut source).await;
        assert_eq!(text(&inbound), number.to_string());
        ack(inbound).await;
    }
}

#[tokio::test]
async fn every_legal_topic_and_group_works() {
    let nats = kit::connect().await;
    let unique = topic("x").replace('.', "-");
    let long = format!("{unique}{}", "y".repeat(249 - unique.len()));
    for name in [format!(".{unique}"), format!("{unique}."), format!("a..{unique}"), format!("A_b-1.{unique}"), long] {
        let topic = Topic::new(&name).unwrap();
        nats.declare(&topic).await.unwrap();
        publish(&nats, &topic, message(name.clone())).await.unwrap();
        let mut source = subscribe(&nats, &topic, &name).await;
        let inbound = next(&mut source).await;
        assert_eq!(text(&inbound), name);
        ack(inbound).await;
        assert_quiet(&mut source).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_made_anew_is_read_from_its_start() {
    let nats = kit::connect().await;
    let topic = topic("anew");
    kit::publish_numbers(&nats, &topic, 0..5).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    for _ in 0..5 {
        ack(next(&mut source).await).await;
    }
    context().await.delete_stream(topic.replace('.', "~")).await.unwrap();
    kit::publish_numbers(&nats, &topic, 5..8).await;
    for number in 5..8 {
        let inbound = kit::next_message(&mut source).await;
        assert_eq!((text(&inbound), inbound.offset), (number.to_string().as_str(), Some(i64::from(number) - 4)));
        ack(inbound).await;
    }
}

/// A reader of a work queue would take messages away from the group.
#[tokio::test]
async fn a_work_queue_has_no_readers_beside_its_group() {
    let topic = topic("queue");
    let retention = stream::RetentionPolicy::WorkQueue;
    let name = topic.replace('.', "~");
    let queue = stream::Config { name, subjects: vec![topic.to_string()], retention, ..Default::default() };
    context().await.create_stream(queue).await.unwrap();
    let nats = kit::connect().await;
    publish(&nats, &topic, message("work")).await.unwrap();
    for start in [Start::Earliest, Start::Latest] {
        let reader = Subscription::new(&*topic).start(start).at_most_once();
        let refused = nats.subscribe(&reader).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    }
    let mut source = subscribe(&nats, &topic, "workers").await;
    assert_eq!(text(&next(&mut source).await), "work");
}
