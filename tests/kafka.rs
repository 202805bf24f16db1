//! Tests of the Kafka adapter at the driver level, against a real server. `tests/run kafka` runs
//! them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod support;

#[path = "kafka/close.rs"]
mod close;
#[path = "kafka/codecs.rs"]
mod codecs;
#[path = "kafka/connect.rs"]
mod connect;
#[path = "kafka/consume.rs"]
mod consume;
#[path = "kafka/graceful.rs"]
mod graceful;
#[path = "kafka/groups.rs"]
mod groups;
#[path = "kafka/harness.rs"]
mod harness;
#[path = "kafka/hostile.rs"]
mod hostile;
#[path = "kafka/partitions.rs"]
mod partitions;
#[path = "kafka/permissions.rs"]
mod permissions;
#[path = "kafka/positions.rs"]
mod positions;
#[path = "kafka/progress.rs"]
mod progress;
#[path = "kafka/publish.rs"]
mod publish;
#[path = "kafka/rebalance.rs"]
mod rebalance;
#[path = "kafka/refused.rs"]
mod refused;
#[path = "kafka/restart.rs"]
mod restart;
#[path = "kafka/silent.rs"]
mod silent;
#[path = "kafka/tls.rs"]
mod tls;
#[path = "kafka/wire.rs"]
mod wire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_described_in_the_readme() {
    support::readme::check_column(support::shared(support::Kind::Kafka)).await;
}

/// The example runs with only the URL changed.
#[test]
fn runs_the_order_system() {
    support::orders::check_orders_on(support::shared(support::Kind::Kafka));
}
