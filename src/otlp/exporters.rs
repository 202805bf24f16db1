//! The exporters that send batches to the Collector.

use std::thread;
use std::time::Duration;

use opentelemetry_otlp::{MetricExporter, SpanExporter, WithHttpConfig as _};
use reqwest::blocking::Client;
use reqwest::redirect;

use crate::error::{BoxError, Error, ErrorKind, Result};

/// Creates an exporter of spans. Its crate reads the address and headers from the variables.
pub(super) fn spans(timeout: Duration) -> Result<SpanExporter> {
    SpanExporter::builder().with_http().with_http_client(client(timeout)?).build().map_err(not_started)
}

/// Creates an exporter of measurements.
pub(super) fn measurements(timeout: Duration) -> Result<MetricExporter> {
    MetricExporter::builder().with_http().with_http_client(client(timeout)?).build().map_err(not_started)
}

/// Creates a blocking client: the SDK exports from its own threads, which have no runtime, and the
/// application's runtime may be blocked or gone when the last batch is sent. The client is created
/// on another thread, because a runtime's thread must not create it.
///
/// It follows no redirect, which could carry headers with credentials to another host.
fn client(timeout: Duration) -> Result<Client> {
    let make = move || Client::builder().timeout(timeout).redirect(redirect::Policy::none()).build();
    let thread = thread::Builder::new().name("otlp-client".to_owned()).spawn(make).map_err(not_started)?;
    let made = thread.join().map_err(|_| not_started("creating the HTTP client panicked"))?;
    made.map_err(not_started)
}

fn not_started(error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Unexpected, "telemetry cannot be started").with_source(error)
}
