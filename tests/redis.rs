//! Tests of the Redis adapter's own behaviour, at the driver level, against a real server.
//! `tests/run redis` runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod support;

#[path = "redis/harness.rs"]
mod harness;

#[path = "redis/attempts.rs"]
mod attempts;
#[path = "redis/close.rs"]
mod close;
#[path = "redis/connect.rs"]
mod connect;
#[path = "redis/consume.rs"]
mod consume;
#[path = "redis/groups.rs"]
mod groups;
#[path = "redis/hostile.rs"]
mod hostile;
#[path = "redis/idle.rs"]
mod idle;
#[path = "redis/names.rs"]
mod names;
#[path = "redis/pages.rs"]
mod pages;
#[path = "redis/permissions.rs"]
mod permissions;
#[path = "redis/position.rs"]
mod position;
#[path = "redis/publish.rs"]
mod publish;
#[path = "redis/repair.rs"]
mod repair;
#[path = "redis/replicas.rs"]
mod replicas;
#[path = "redis/restart.rs"]
mod restart;
#[path = "redis/retention.rs"]
mod retention;
#[path = "redis/settle.rs"]
mod settle;
#[path = "redis/stop.rs"]
mod stop;
#[path = "redis/tls.rs"]
mod tls;
#[path = "redis/transports.rs"]
mod transports;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_described_in_the_readme() {
    support::readme::check_column(support::shared(support::Kind::Redis.of_generation())).await;
}

/// The example runs with only the URL changed.
#[test]
fn runs_the_order_system() {
    support::orders::check_orders_on(support::shared(support::Kind::Redis.of_generation()));
}
