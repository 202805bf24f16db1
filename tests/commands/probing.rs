//! `probe`.

use std::time::Duration;

use serde_json::Value;
use traced_broker::{HandlerError, Received, Subscription, TracedBrokerExt as _};

use crate::command::traced_broker;
use crate::running::Running;
use crate::support::Kind;
use crate::world::{World, on_each_broker, trace_id};

on_each_broker! {
    a_trace_gets_through,
    what_does_not_arrive_is_lost,
    what_lost_its_context_is_broken,
    a_bridge_keeps_the_context,
}

async fn a_trace_gets_through(world: World) {
    world.make_group("workers").await;
    let outcome = traced_broker(&["probe", &world.url, &world.topic, "--count", "5", "--json"]).await.ends_with(0);
    let report: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((&report["fine"], &report["sent"], &report["arrived"]), (&true.into(), &5.into(), &5.into()));
    for time in ["confirmed", "in_queue", "in_total"] {
        let at = |quantile: &str| report["times_ms"][time][quantile].as_f64().unwrap();
        assert!(at("p50") <= at("p90") && at("p90") <= at("max") && at("max") < 60_000.0, "{time}: {report}");
    }
    let messages = world.receive("workers", 5).await;
    for (message, told) in messages.iter().zip(report["messages"].as_array().unwrap()) {
        assert!(message.headers().contains("traced-broker-probe"), "by which a consumer can tell it");
        assert_eq!(told["trace_id"], trace_id(message));
    }
    let outcome = traced_broker(&["probe", &world.url, &world.topic]).await.ends_with(0);
    outcome.prints(&["✓ ", "1 of 1 arrived", "\n  trace ", "\n  confirmed ", "\n  in queue ", "\n  in total "]);
}

async fn what_does_not_arrive_is_lost(world: World) {
    let silent = world.beside("silent");
    let arguments = ["probe", &world.url, &world.topic, "--watch-topic", &silent, "--timeout", "500ms", "--count", "2"];
    let outcome = traced_broker(&arguments).await.ends_with(1);
    outcome.prints(&["✗ 0 of 2 arrived", "✗ lost: trace ", "did not arrive in time"]);
}

/// Publishes what it gets, without what it carries, as a consumer does that was never instrumented.
async fn what_lost_its_context_is_broken(world: World) {
    let far = world.with_topic(&world.beside("far"));
    world.make_group("careless").await;
    let careless = async |message: Received| {
        let mark = message.headers().get_str("traced-broker-probe").unwrap();
        far.publish_raw("copied", &[("traced-broker-probe", mark)]).await;
        Ok::<_, HandlerError>(())
    };
    let subscription = Subscription::new(&world.topic).group("careless");
    let probe = ["probe", &world.url, &world.topic, "--watch-topic", &far.topic, "--timeout", "50s"];
    let mut outcome = None;
    let told = async { outcome = Some(traced_broker(&probe).await) };
    world.broker.consume(subscription, careless).run_until(told).await.unwrap();
    let outcome = outcome.unwrap().ends_with(1);
    outcome.prints(&[
        "✗ ",
        "1 of 1 arrived, 0 with the context as sent",
        "✗ broken: trace ",
        "  trace id: sent ",
        "came nothing",
    ]);
}

async fn a_bridge_keeps_the_context(world: World) {
    let target = World::new(if world.kind == Kind::Redis { Kind::Nats } else { Kind::Redis }).await;
    world.make_group("bridge").await;
    let bridge = Running::start(&["bridge", &world.url, &world.topic, &target.url, &target.topic, "--group", "bridge"]);
    let probe = ["probe", &world.url, &world.topic, "--watch-url", &target.url, "--watch-topic", &target.topic];
    let outcome = traced_broker(&[&probe[..], &["--timeout", "50s", "--count", "3"]].concat()).await.ends_with(0);
    outcome.prints(&[" → ", "3 of 3 arrived, 3 with the context as sent"]);
    bridge.interrupt().await.ends_with(0).prints(&["3 copied"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_gets_through_core_nats() {
    let world = World::new(Kind::Nats).await;
    let url = format!("{}?mode=core", world.url);
    traced_broker(&["probe", &url, &world.topic, "--count", "3"]).await.ends_with(0).prints(&["3 of 3 arrived"]);
}

/// What cannot be published is not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_published_could_not_be_checked() {
    let world = World::new(Kind::Redis).await;
    let begun = std::time::Instant::now();
    let arguments = ["probe", &world.url, "not/a/topic", "--watch-topic", &world.topic, "--timeout", "50s"];
    traced_broker(&arguments).await.ends_with(2).complains(&["cannot publish to not/a/topic"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
