//! Traces, metrics and propagators from the environment, in one call.
//!
//! Start a Collector or a Jaeger, then
//!
//! ```sh
//! OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 cargo run --features otlp --example otlp
//! ```
//!
//! With `OTEL_PROPAGATORS=b3` the message travels with another header, with
//! `OTEL_TRACES_SAMPLER=always_off` without spans. The module `otlp` lists all variables.
#![expect(clippy::print_stdout, reason = "the output of the program")]

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::Notify;
use traced_broker::{Message, Received, Subscription, TracedBroker as _, TracedBrokerExt as _, connect, otlp};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let telemetry = otlp::Setup::new().service_name("shop").start()?;
    let broker = telemetry.instrument(connect("memory://shop").await?);

    let shipped = Arc::new(Notify::new());
    let done = Arc::clone(&shipped);
    let ship = move |message: Received| {
        let done = Arc::clone(&done);
        async move {
            for (name, value) in message.headers().iter() {
                println!("{name}: {}", String::from_utf8_lossy(value));
            }
            done.notify_one();
            Ok(())
        }
    };
    let workers = broker.consume(Subscription::new("orders").group("workers"), ship).subscribed().await?;
    broker.publish("orders", Message::new("one pair of shoes")).await?;
    println!("{}", workers.run_until(shipped.notified()).await?);

    // Spans that end after the shutdown are not exported, so the broker is closed first.
    broker.close().await?;
    telemetry.shutdown().await?;
    Ok(())
}
