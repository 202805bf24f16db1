//! `bridge`.

use std::collections::BTreeSet;

use serde_json::Value;
use traced_broker::{Subscription, TracedBroker as _};

use crate::command::traced_broker;
use crate::running::fed;
use crate::support::Kind;
use crate::world::{World, next, on_each_broker, text, trace_id};

on_each_broker! {
    messages_cross_with_their_traces_and_it_goes_on_where_it_ended,
    what_cannot_cross_is_told,
}

/// Another broker than this one.
async fn target(of: &World) -> World {
    World::new(match of.kind {
        Kind::Kafka => Kind::Nats,
        Kind::Nats => Kind::RabbitMq,
        Kind::RabbitMq => Kind::Redis,
        _ => Kind::Kafka,
    })
    .await
}

async fn messages_cross_with_their_traces_and_it_goes_on_where_it_ended(world: World) {
    let target = target(&world).await;
    target.make_group("end").await;
    let group = format!("bridge-{}-{}", target.broker.system(), target.topic);
    world.make_group(&group).await;
    let lines: String = (0..50).map(|number| format!("{number}\n")).collect();
    let sent = fed(&["publish", &world.url, &world.topic], &lines).await.ends_with(0).out;
    let bridge = ["bridge", &world.url, &world.topic, &target.url, &target.topic];
    let first = traced_broker(&[&bridge[..], &["--count", "20", "--json"]].concat()).await.ends_with(0);
    let report: Value = serde_json::from_str(&first.out).unwrap();
    assert_eq!((&report["copied"], &report["given_up"]), (&20.into(), &0.into()));
    let rest = traced_broker(&[&bridge[..], &[&format!("--until-empty={}", world.idle())]].concat()).await.ends_with(0);
    rest.prints(&["30 copied in "]);

    let arrived = target.receive("end", 50).await;
    target.assert_no_more("end").await;
    let payloads: BTreeSet<String> = arrived.iter().map(text).collect();
    assert_eq!(payloads.len(), 50, "each of them once");
    for message in &arrived {
        assert!(sent.contains(&format!("trace {}", trace_id(message))), "in the trace in which it was published");
    }
}

async fn what_cannot_cross_is_told(world: World) {
    let target = World::new(Kind::Nats).await;
    if world.kind == Kind::Nats {
        return too_large_for_kafka(&world).await;
    }
    world.make_group("bridge").await;
    // Of a name that JetStream does not carry: more headers than fit.
    let large = "x".repeat(70_000);
    world.publish_raw("small", &[]).await;
    world.publish_raw("large", &[("large", &large)]).await;
    give_up_one(&world, &target).await;
}

async fn too_large_for_kafka(world: &World) {
    let target = World::new(Kind::Kafka).await;
    world.make_group("bridge").await;
    world.publish("small").await;
    world.publish(&"x".repeat(1_020_000)).await;
    give_up_one(world, &target).await;
}

async fn give_up_one(world: &World, target: &World) {
    let dead = world.beside("stranded");
    let parked = || world.broker.subscribe(Subscription::new(&dead).group("parked"));
    drop(parked().await.unwrap());
    let bridge = ["bridge", &world.url, &world.topic, &target.url, &target.topic, "--group", "bridge"];
    let until_empty = format!("--until-empty={}", world.idle());
    let options = ["--dead-letter", &dead, &until_empty];
    let outcome = traced_broker(&[&bridge[..], &options].concat()).await.ends_with(1);
    outcome.prints(&["1 copied in ", ", 1 given up"]);
    let letter = next(&mut parked().await.unwrap()).await;
    assert_ne!(text(&letter), "small");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused() {
    let world = World::new(Kind::Redis).await;
    let itself = ["bridge", &world.url, &world.topic, &world.url, &world.topic];
    traced_broker(&itself).await.ends_with(2).complains(&["to itself"]);
    let nowhere = ["bridge", &world.url, &world.topic, "nats://me:topsecret@127.0.0.1:9", "orders"];
    traced_broker(&nowhere)
        .await
        .ends_with(2)
        .complains(&["cannot connect to nats://127.0.0.1:9"])
        .never_shows("topsecret");
    let dialect = ["bridge", &world.url, &world.topic, &world.url, "x", "--dialect", "esperanto"];
    traced_broker(&dialect).await.ends_with(2).complains(&["`esperanto` is not one of cloudevents"]);
}
