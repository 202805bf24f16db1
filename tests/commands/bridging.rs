//! Tests of `bridge`.

use std::collections::BTreeSet;

use serde_json::Value;
use traced_broker::{Subscription, TracedBroker as _};

use crate::command::traced_broker;
use crate::running::fed;
use crate::setup::{Setup, next, on_each_broker, text, trace_id};
use crate::support::Kind;

on_each_broker! {
    messages_cross_with_their_traces_and_it_goes_on_where_it_ended,
    what_cannot_cross_is_told,
}

/// Returns a broker of another kind.
async fn target(of: &Setup) -> Setup {
    Setup::new(match of.kind {
        Kind::Kafka => Kind::Nats,
        Kind::Nats => Kind::RabbitMq,
        Kind::RabbitMq => Kind::Redis,
        _ => Kind::Kafka,
    })
    .await
}

async fn messages_cross_with_their_traces_and_it_goes_on_where_it_ended(setup: Setup) {
    let target = target(&setup).await;
    target.make_group("end").await;
    let group = format!("bridge-{}-{}", target.broker.system(), target.topic);
    setup.make_group(&group).await;
    let lines: String = (0..50).map(|number| format!("{number}\n")).collect();
    let sent = fed(&["publish", &setup.url, &setup.topic], &lines).await.ends_with(0).out;
    let bridge = ["bridge", &setup.url, &setup.topic, &target.url, &target.topic];
    let first = traced_broker(&[&bridge[..], &["--count", "20", "--json"]].concat()).await.ends_with(0);
    let report: Value = serde_json::from_str(&first.out).unwrap();
    assert_eq!((&report["copied"], &report["given_up"]), (&20.into(), &0.into()));
    let rest = traced_broker(&[&bridge[..], &[&format!("--until-empty={}", setup.idle())]].concat()).await.ends_with(0);
    rest.prints(&["30 copied in "]);

    let arrived = target.receive("end", 50).await;
    target.assert_no_more("end").await;
    let payloads: BTreeSet<String> = arrived.iter().map(text).collect();
    assert_eq!(payloads.len(), 50, "each message once");
    for message in &arrived {
        assert!(sent.contains(&format!("trace {}", trace_id(message))), "in the trace of its publish");
    }
}

async fn what_cannot_cross_is_told(setup: Setup) {
    let target = Setup::new(Kind::Nats).await;
    if setup.kind == Kind::Nats {
        return too_large_for_kafka(&setup).await;
    }
    setup.make_group("bridge").await;
    // JetStream refuses headers of this size.
    let large = "x".repeat(70_000);
    setup.publish_raw("small", &[]).await;
    setup.publish_raw("large", &[("large", &large)]).await;
    give_up_one(&setup, &target).await;
}

async fn too_large_for_kafka(setup: &Setup) {
    let target = Setup::new(Kind::Kafka).await;
    setup.make_group("bridge").await;
    setup.publish("small").await;
    setup.publish(&"x".repeat(1_020_000)).await;
    give_up_one(setup, &target).await;
}

async fn give_up_one(setup: &Setup, target: &Setup) {
    let dead = setup.beside("stranded");
    let parked = || setup.broker.subscribe(Subscription::new(&dead).group("parked"));
    drop(parked().await.unwrap());
    let bridge = ["bridge", &setup.url, &setup.topic, &target.url, &target.topic, "--group", "bridge"];
    let until_empty = format!("--until-empty={}", setup.idle());
    let options = ["--dead-letter", &dead, &until_empty];
    let outcome = traced_broker(&[&bridge[..], &options].concat()).await.ends_with(1);
    outcome.prints(&["1 copied in ", ", 1 given up"]);
    let letter = next(&mut parked().await.unwrap()).await;
    assert_ne!(text(&letter), "small");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused() {
    let setup = Setup::new(Kind::Redis).await;
    let itself = ["bridge", &setup.url, &setup.topic, &setup.url, &setup.topic];
    traced_broker(&itself).await.ends_with(2).complains(&["to itself"]);
    let nowhere = ["bridge", &setup.url, &setup.topic, "nats://me:topsecret@127.0.0.1:9", "orders"];
    traced_broker(&nowhere)
        .await
        .ends_with(2)
        .complains(&["cannot connect to nats://127.0.0.1:9"])
        .never_shows("topsecret");
    let dialect = ["bridge", &setup.url, &setup.topic, &setup.url, "x", "--dialect", "esperanto"];
    traced_broker(&dialect).await.ends_with(2).complains(&["`esperanto` is not one of cloudevents"]);
}
