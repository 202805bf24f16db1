//! The NATS adapter against a real server, at the level of the driver.

mod support;

#[path = "nats/kit.rs"]
mod kit;
#[path = "nats/process.rs"]
mod process;

#[path = "nats/close.rs"]
mod close;
#[path = "nats/connect.rs"]
mod connect;
#[path = "nats/consume.rs"]
mod consume;
#[path = "nats/core.rs"]
mod core;
#[path = "nats/hostile.rs"]
mod hostile;
#[path = "nats/publish.rs"]
mod publish;
#[path = "nats/restart.rs"]
mod restart;
#[path = "nats/settle.rs"]
mod settle;
#[path = "nats/topology.rs"]
mod topology;
