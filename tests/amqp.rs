//! Tests of the RabbitMQ adapter's own behaviour, at the driver level, against a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod support;

#[path = "amqp/attempts.rs"]
mod attempts;
#[path = "amqp/beside.rs"]
mod beside;
#[path = "amqp/connecting.rs"]
mod connecting;
#[path = "amqp/consuming.rs"]
mod consuming;
#[path = "amqp/copies.rs"]
mod copies;
#[path = "amqp/delaying.rs"]
mod delaying;
#[path = "amqp/deleted.rs"]
mod deleted;
#[path = "amqp/driving.rs"]
mod driving;
#[path = "amqp/faults.rs"]
mod faults;
#[path = "amqp/hostile.rs"]
mod hostile;
#[path = "amqp/limits.rs"]
mod limits;
#[path = "amqp/losing.rs"]
mod losing;
#[path = "amqp/outages.rs"]
mod outages;
#[path = "amqp/parking.rs"]
mod parking;
#[path = "amqp/publishing.rs"]
mod publishing;
#[path = "amqp/refusing.rs"]
mod refusing;
#[path = "amqp/retrying.rs"]
mod retrying;
#[path = "amqp/tls.rs"]
mod tls;
#[path = "amqp/trials.rs"]
mod trials;
#[path = "amqp/wire.rs"]
mod wire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_described_in_the_readme() {
    support::readme::check_column(support::shared(support::Kind::RabbitMq.of_generation())).await;
}

/// The example runs with only the URL changed.
#[test]
fn runs_the_order_system() {
    support::orders::check_orders_on(support::shared(support::Kind::RabbitMq.of_generation()));
}
