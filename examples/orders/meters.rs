//! The measurements of each service, on the way to where its spans go.

use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{MetricExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use reqwest::blocking::Client;

/// Between two exports. A minute is usual; here somebody may be watching.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long an export may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A provider whose measurements go to this endpoint every five seconds, and once more when it is shut down.
///
/// The instance is named at random: two processes of one service must not be taken for one whose counters jump back and forth.
pub(crate) fn provider(service: &'static str, endpoint: &str) -> Result<SdkMeterProvider> {
    let exporter = MetricExporter::builder()
        .with_http()
        .with_http_client(client()?)
        .with_endpoint(endpoint)
        .build()
        .with_context(|| format!("cannot send measurements to {endpoint}"))?;
    let instance = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .build();
    let reader = PeriodicReader::builder(exporter).with_interval(INTERVAL).build();
    Ok(SdkMeterProvider::builder().with_resource(resource).with_reader(reader).build())
}

/// The reader exports from a thread of its own, without a runtime. Such a client cannot be made on one of a runtime's threads.
fn client() -> Result<Client> {
    let make = || Client::builder().timeout(PATIENCE).build();
    let made = thread::spawn(make).join().map_err(|_| anyhow!("making an HTTP client panicked"))?;
    made.context("cannot make an HTTP client")
}
