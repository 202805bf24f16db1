//! What brings batches to the Collector.

use std::thread;
use std::time::Duration;

use opentelemetry_otlp::{MetricExporter, SpanExporter, WithHttpConfig as _};
use reqwest::blocking::Client;
use reqwest::redirect;

use crate::error::{BoxError, Error, ErrorKind, Result};

/// An exporter of spans. Its address and headers are read from the variables by its own crate.
pub(super) fn spans(timeout: Duration) -> Result<SpanExporter> {
    SpanExporter::builder().with_http().with_http_client(client(timeout)?).build().map_err(not_started)
}

/// An exporter of measurements.
pub(super) fn measurements(timeout: Duration) -> Result<MetricExporter> {
    MetricExporter::builder().with_http().with_http_client(client(timeout)?).build().map_err(not_started)
}

/// A client that blocks: the SDK exports from threads of its own, where no runtime is, and the application's runtime may be blocked
/// or gone when the last batch leaves. It is made on another thread because it must not be made on one of a runtime.
///
/// It follows no redirection, which could carry headers with credentials to another host.
fn client(timeout: Duration) -> Result<Client> {
    let make = move || Client::builder().timeout(timeout).redirect(redirect::Policy::none()).build();
    let thread = thread::Builder::new().name("otlp-client".to_owned()).spawn(make).map_err(not_started)?;
    let made = thread.join().map_err(|_| not_started("making the HTTP client panicked"))?;
    made.map_err(not_started)
}

fn not_started(error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Unexpected, "telemetry cannot be started").with_source(error)
}
