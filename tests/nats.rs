//! Tests of the NATS adapter at the driver level, against a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod support;

#[path = "nats/kit.rs"]
mod kit;
#[path = "nats/process.rs"]
mod process;
#[path = "nats/proxy.rs"]
mod proxy;

#[path = "nats/attempts.rs"]
mod attempts;
#[path = "nats/close.rs"]
mod close;
#[path = "nats/connect.rs"]
mod connect;
#[path = "nats/consume.rs"]
mod consume;
#[path = "nats/core.rs"]
mod core;
#[path = "nats/credentials.rs"]
mod credentials;
#[path = "nats/delay.rs"]
mod delay;
#[path = "nats/election.rs"]
mod election;
#[path = "nats/hostile.rs"]
mod hostile;
#[path = "nats/ids.rs"]
mod ids;
#[path = "nats/lame_duck.rs"]
mod lame_duck;
#[path = "nats/late.rs"]
mod late;
#[path = "nats/position.rs"]
mod position;
#[path = "nats/publish.rs"]
mod publish;
#[path = "nats/reconnect.rs"]
mod reconnect;
#[path = "nats/restart.rs"]
mod restart;
#[path = "nats/settle.rs"]
mod settle;
#[path = "nats/tenure.rs"]
mod tenure;
#[path = "nats/tls.rs"]
mod tls;
#[path = "nats/topology.rs"]
mod topology;
#[path = "nats/unanswered.rs"]
mod unanswered;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_described_in_the_readme() {
    support::readme::check_column(support::shared(support::Kind::Nats)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn core_is_described_in_the_readme() {
    let url = format!("{}?mode=core", support::shared(support::Kind::Nats));
    support::readme::check_column(&url).await;
}

/// The example runs with only the URL changed.
#[test]
fn runs_the_order_system() {
    support::orders::check_orders_on(support::shared(support::Kind::Nats));
}
