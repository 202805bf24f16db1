//! The RabbitMQ adapter against a real server: the contract of all brokers, and at the level of the driver what is
//! particular to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod contract;
mod support;

#[path = "amqp/connecting.rs"]
mod connecting;
#[path = "amqp/consuming.rs"]
mod consuming;
#[path = "amqp/delaying.rs"]
mod delaying;
#[path = "amqp/driving.rs"]
mod driving;
#[path = "amqp/faults.rs"]
mod faults;
#[path = "amqp/hostile.rs"]
mod hostile;
#[path = "amqp/publishing.rs"]
mod publishing;
#[path = "amqp/retrying.rs"]
mod retrying;
#[path = "amqp/wire.rs"]
mod wire;

contract::contract!(crate::support::shared(crate::support::Kind::RabbitMq));

/// The example, with nothing changed but the URL.
#[test]
fn runs_the_order_system() {
    support::orders::check_orders_on(support::shared(support::Kind::RabbitMq));
}
