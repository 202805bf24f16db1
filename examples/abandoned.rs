//! Publishes that are given up: measures what they leave in memory.
//!
//! ```text
//! cargo run --release --features full --example abandoned -- nats://127.0.0.1:4222
//! ```
//!
//! Each publish is polled once and dropped. Linux only. Exit status: 0 if the process has grown by
//! at most 16 MiB, 1 if by more.

#![expect(clippy::print_stdout, reason = "the output of the program")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use futures_util::FutureExt as _;
use traced_broker::{Message, TracedBroker, connect};

/// Publishes that are given up.
#[derive(Parser)]
struct Args {
    /// The broker.
    url: String,
    /// The number of publishes.
    #[arg(long, default_value_t = 1_000_000)]
    publishes: usize,
    /// The size of each payload, in bytes.
    #[arg(long, default_value_t = 100)]
    size: usize,
}

const LIMIT: u64 = 16 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let broker = connect(&args.url).await?;
    let payload = bytes::Bytes::from(vec![b'x'; args.size]);
    // What a driver needs for its own buffers is there before the measurement.
    for _ in 0..10_000 {
        let _ = broker.publish("abandoned", Message::new(payload.clone())).now_or_never();
        tokio::task::yield_now().await;
    }
    broker.publish("abandoned", Message::new("kept")).await?;
    let (before, begun) = (resident()?, Instant::now());
    let mut most = before;
    for number in 0..args.publishes {
        let _ = broker.publish("abandoned", Message::new(payload.clone())).now_or_never();
        if number % 1_000 == 0 {
            tokio::task::yield_now().await;
            most = most.max(resident()?);
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = resident()?;
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    println!(
        "{} publishes given up in {:.1} s: {:.1} MiB before, {:.1} at most, {:.1} after",
        args.publishes,
        begun.elapsed().as_secs_f64(),
        mib(before),
        mib(most),
        mib(after)
    );
    broker.close().await?;
    Ok(ExitCode::from(u8::from(after.saturating_sub(before) > LIMIT)))
}

/// Returns the resident memory of this process, in bytes.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("this needs Linux")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
