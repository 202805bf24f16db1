//! The way to an OpenTelemetry Collector, beside the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// A Collector's OTLP/HTTP endpoint. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Collector {
    endpoint: Arc<str>,
    outcome: Arc<Outcome>,
}

/// What became of the spans of all services.
#[derive(Debug, Default)]
struct Outcome {
    delivered: AtomicUsize,
    last_error: Mutex<Option<String>>,
}

impl Collector {
    /// A Collector at this address. The standard path is added when the address has none.
    pub(crate) fn at(address: &str) -> Result<Self> {
        let url = reqwest::Url::parse(address).with_context(|| format!("--otlp {address} is not an address"))?;
        anyhow::ensure!(url.scheme() == "http", "--otlp {address}: this example speaks http only");
        let path = if url.path() == "/" { "v1/traces" } else { "" };
        Ok(Self { endpoint: format!("{url}{path}").into(), outcome: Arc::default() })
    }

    /// An exporter for one service; to be made on the runtime that is to do the sending.
    pub(crate) fn exporter(&self) -> Result<CollectorExporter> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?)
            .with_endpoint(&*self.endpoint)
            .build()
            .with_context(|| format!("cannot send spans to {}", self.endpoint))?;
        Ok(CollectorExporter {
            exporter: Arc::new(exporter),
            runtime: Handle::current(),
            outcome: Arc::clone(&self.outcome),
        })
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where measurements go, unless spans go to a path of somebody's own.
    pub(crate) fn measurements(&self) -> Option<String> {
        self.endpoint.strip_suffix("v1/traces").map(|base| format!("{base}v1/metrics"))
    }

    /// How many spans it took.
    pub(crate) fn delivered(&self) -> usize {
        self.outcome.delivered.load(Ordering::Relaxed)
    }

    /// Why it did not take the others, as far as is known.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.outcome.last_error.lock().clone()
    }
}

/// Lets the SDK's batch processor, whose thread is its own, use an HTTP client that needs the runtime.
#[derive(Debug)]
pub(crate) struct CollectorExporter {
    exporter: Arc<opentelemetry_otlp::SpanExporter>,
    runtime: Handle,
    outcome: Arc<Outcome>,
}

impl SpanExporter for CollectorExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let exporter = Arc::clone(&self.exporter);
        let sending = self.runtime.spawn(async move { exporter.export(batch).await });
        let sent = sending.await.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())));
        match &sent {
            Ok(()) => {
                self.outcome.delivered.fetch_add(count, Ordering::Relaxed);
            }
            Err(error) => *self.outcome.last_error.lock() = Some(error.to_string()),
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}
