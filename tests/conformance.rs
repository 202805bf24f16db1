//! The conformance kit on every broker of this build; each case is a separate test. `tests/run`
//! runs it.
//!
//! By default the embedded broker and those with an enabled feature are tested, each on the oldest
//! supported server. `TRACED_BROKER_CONFORMANCE_BROKERS` selects some of them, separated by commas;
//! only so are later generations of servers tested: `rabbitmq-4`, `redis-8` and `valkey`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[path = "conformance/collector.rs"]
mod collector;
#[path = "conformance/foreign.rs"]
mod foreign;
#[path = "conformance/harness.rs"]
mod harness;
mod support;

use std::process::ExitCode;
use std::sync::Arc;

use harness::{Embedded, OnServer};
use support::Kind;
use traced_broker::conformance::{self, Harness};

fn main() -> ExitCode {
    let chosen = std::env::var("TRACED_BROKER_CONFORMANCE_BROKERS").unwrap_or_default();
    let chosen: Vec<&str> = chosen.split(',').filter(|name| !name.is_empty()).collect();
    let mut harnesses = by_default();
    if !chosen.is_empty() {
        harnesses.extend(generations());
        harnesses.retain(|harness| chosen.contains(&harness.name()));
    }
    conformance::main(harnesses)
}

/// Returns the brokers of this build, each on the oldest supported server.
fn by_default() -> Vec<Arc<dyn Harness>> {
    let mut harnesses: Vec<Arc<dyn Harness>> = vec![Arc::new(Embedded::new())];
    if cfg!(feature = "kafka") {
        harnesses.push(Arc::new(OnServer::new("kafka", Kind::Kafka, "")));
    }
    if cfg!(feature = "amqp") {
        harnesses.push(Arc::new(OnServer::new("amqp", Kind::RabbitMq, "")));
    }
    if cfg!(feature = "nats") {
        harnesses.push(Arc::new(OnServer::new("nats", Kind::Nats, "")));
        harnesses.push(Arc::new(OnServer::new("nats-core", Kind::Nats, "?mode=core")));
    }
    if cfg!(feature = "redis") {
        harnesses.push(Arc::new(OnServer::new("redis", Kind::Redis, "")));
    }
    harnesses
}

/// Returns the brokers of this build that have later generations of servers, on those.
fn generations() -> Vec<Arc<dyn Harness>> {
    let mut harnesses: Vec<Arc<dyn Harness>> = Vec::new();
    if cfg!(feature = "amqp") {
        harnesses.push(Arc::new(OnServer::new("rabbitmq-4", Kind::RabbitMq4, "")));
    }
    if cfg!(feature = "redis") {
        harnesses.push(Arc::new(OnServer::new("redis-8", Kind::Redis8, "")));
        harnesses.push(Arc::new(OnServer::new("valkey", Kind::Valkey, "")));
    }
    harnesses
}
