//! Tests of `probe`.

use std::time::Duration;

use serde_json::Value;
use traced_broker::{HandlerError, Received, Subscription, TracedBrokerExt as _};

use crate::command::traced_broker;
use crate::running::Running;
use crate::setup::{Setup, on_each_broker, trace_id};
use crate::support::Kind;

on_each_broker! {
    a_trace_gets_through,
    what_does_not_arrive_is_lost,
    what_lost_its_context_is_broken,
    a_bridge_keeps_the_context,
}

async fn a_trace_gets_through(setup: Setup) {
    setup.make_group("workers").await;
    let outcome = traced_broker(&["probe", &setup.url, &setup.topic, "--count", "5", "--json"]).await.ends_with(0);
    let report: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((&report["fine"], &report["sent"], &report["arrived"]), (&true.into(), &5.into(), &5.into()));
    for time in ["confirmed", "in_queue", "in_total"] {
        let at = |quantile: &str| report["times_ms"][time][quantile].as_f64().unwrap();
        assert!(at("p50") <= at("p90") && at("p90") <= at("max") && at("max") < 60_000.0, "{time}: {report}");
    }
    let messages = setup.receive("workers", 5).await;
    for (message, told) in messages.iter().zip(report["messages"].as_array().unwrap()) {
        assert!(message.headers().contains("traced-broker-probe"), "so that a consumer can recognize it");
        assert_eq!(told["trace_id"], trace_id(message));
    }
    let outcome = traced_broker(&["probe", &setup.url, &setup.topic]).await.ends_with(0);
    outcome.prints(&["✓ ", "1 of 1 arrived", "\n  trace ", "\n  confirmed ", "\n  in queue ", "\n  in total "]);
}

async fn what_does_not_arrive_is_lost(setup: Setup) {
    let silent = setup.beside("silent");
    let arguments = ["probe", &setup.url, &setup.topic, "--watch-topic", &silent, "--timeout", "500ms", "--count", "2"];
    let outcome = traced_broker(&arguments).await.ends_with(1);
    outcome.prints(&["✗ 0 of 2 arrived", "✗ lost: trace ", "did not arrive in time"]);
}

/// A consumer without instrumentation publishes messages without their context.
async fn what_lost_its_context_is_broken(setup: Setup) {
    let far = setup.with_topic(&setup.beside("far"));
    setup.make_group("careless").await;
    let careless = async |message: Received| {
        let mark = message.headers().get_str("traced-broker-probe").unwrap();
        far.publish_raw("copied", &[("traced-broker-probe", mark)]).await;
        Ok::<_, HandlerError>(())
    };
    let subscription = Subscription::new(&setup.topic).group("careless");
    let probe = ["probe", &setup.url, &setup.topic, "--watch-topic", &far.topic, "--timeout", "50s"];
    let mut outcome = None;
    let told = async { outcome = Some(traced_broker(&probe).await) };
    setup.broker.consume(subscription, careless).run_until(told).await.unwrap();
    let outcome = outcome.unwrap().ends_with(1);
    outcome.prints(&[
        "✗ ",
        "1 of 1 arrived, 0 with the context as sent",
        "✗ broken: trace ",
        "  trace id: sent ",
        "received nothing",
    ]);
}

async fn a_bridge_keeps_the_context(setup: Setup) {
    let target = Setup::new(if setup.kind == Kind::Redis { Kind::Nats } else { Kind::Redis }).await;
    setup.make_group("bridge").await;
    let bridge = Running::start(&["bridge", &setup.url, &setup.topic, &target.url, &target.topic, "--group", "bridge"]);
    let probe = ["probe", &setup.url, &setup.topic, "--watch-url", &target.url, "--watch-topic", &target.topic];
    let outcome = traced_broker(&[&probe[..], &["--timeout", "50s", "--count", "3"]].concat()).await.ends_with(0);
    outcome.prints(&[" → ", "3 of 3 arrived, 3 with the context as sent"]);
    bridge.interrupt().await.ends_with(0).prints(&["3 copied"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_gets_through_core_nats() {
    let setup = Setup::new(Kind::Nats).await;
    let url = format!("{}?mode=core", setup.url);
    traced_broker(&["probe", &url, &setup.topic, "--count", "3"]).await.ends_with(0).prints(&["3 of 3 arrived"]);
}

/// The command does not wait for a message that cannot be published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_published_could_not_be_checked() {
    let setup = Setup::new(Kind::Redis).await;
    let begun = std::time::Instant::now();
    let arguments = ["probe", &setup.url, "not/a/topic", "--watch-topic", &setup.topic, "--timeout", "50s"];
    traced_broker(&arguments).await.ends_with(2).complains(&["cannot publish to not/a/topic"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
