//! The RabbitMQ adapter against a real server, at the level of its driver.

mod support;

#[path = "amqp/connecting.rs"]
mod connecting;
#[path = "amqp/consuming.rs"]
mod consuming;
#[path = "amqp/driving.rs"]
mod driving;
#[path = "amqp/faults.rs"]
mod faults;
#[path = "amqp/hostile.rs"]
mod hostile;
#[path = "amqp/publishing.rs"]
mod publishing;
#[path = "amqp/wire.rs"]
mod wire;
