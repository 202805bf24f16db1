//! The spans and metrics of each service: into a file, and to a Collector if one is named.
//!
//! An application with one service per process only needs `traced_broker::otlp`. Here, several
//! services share a process. Each has its own provider, because `service.name` belongs to the
//! provider; no provider is global.

use std::fs::File;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, BufWriter, Seek as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry::trace::{FutureExt as _, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{MetricExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter,
};
use parking_lot::Mutex;
use reqwest::blocking::Client;
use traced_broker::Broker;
use traced_broker::verify::{self, Traces};

use crate::args::Args;
use crate::cut::{Cut, CutPropagator};

/// Maximum number of spans per service that wait for the Collector; more are dropped and counted.
const MAX_WAITING: usize = 16_384;
/// Delay before spans are sent, short because a client looks for its trace at once.
const SPAN_DELAY: Duration = Duration::from_millis(200);
/// Interval between two exports of metrics.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum duration of an export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The exporters of a process and the providers of its services.
#[derive(Debug)]
pub(crate) struct Telemetry {
    file: Arc<Mutex<BufWriter<File>>>,
    collector: Option<Collector>,
    cut: Option<Cut>,
    services: Vec<Service>,
}

/// The providers of one service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) provider: SdkTracerProvider,
    meters: Option<SdkMeterProvider>,
    cut: Option<Cut>,
}

/// The exported spans of a run.
#[derive(Debug)]
pub(crate) struct Exported {
    /// The spans, read back from the file.
    pub(crate) traces: Traces,
    /// A sentence about spans that did not reach the Collector.
    pub(crate) undelivered: Option<String>,
}

impl Telemetry {
    /// Opens the file and prepares the way to the Collector.
    pub(crate) fn new(args: &Args) -> Result<Self> {
        let file = match &args.spans {
            Some(path) => File::options().create(true).truncate(true).write(true).read(true).open(path),
            None => tempfile::tempfile(),
        };
        let file = Arc::new(Mutex::new(BufWriter::new(file.context("cannot write the file of spans")?)));
        let collector = args.otlp.as_ref().map(|endpoint| Collector::new(endpoint.as_str())).transpose()?;
        Ok(Self { file, collector, cut: args.cut, services: Vec::new() })
    }

    /// Creates the providers of a service.
    pub(crate) fn service(&mut self, name: &'static str) -> Result<Service> {
        // Two processes of one service must differ, or their counters look like one that jumps.
        let instance = format!("{:016x}", RandomState::new().hash_one(name));
        let resource = Resource::builder()
            .with_service_name(name)
            .with_attribute(KeyValue::new("service.instance.id", instance))
            .build();
        let mut provider = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            // Set explicitly, because the SDK would ask the environment.
            .with_sampler(match self.cut {
                Some(Cut::NotSampled) => Sampler::AlwaysOff,
                _ => Sampler::ParentBased(Box::new(Sampler::AlwaysOn)),
            })
            .with_simple_exporter(FileExporter { file: Arc::clone(&self.file), resource: (&resource).into() });
        let mut meters = None;
        if let Some(collector) = &self.collector {
            if self.cut != Some(Cut::NotExported) {
                provider = provider.with_span_processor(collector.processor()?);
            }
            meters = Some(collector.meters(resource)?);
        }
        let service = Service { provider: provider.build(), meters, cut: self.cut };
        self.services.push(service.clone());
        Ok(service)
    }

    /// Exports the remaining spans and metrics, then reads the file of spans.
    pub(crate) async fn shut_down(self) -> Result<Exported> {
        // The exporters block, so this runs off the runtime's threads.
        let shut_down = tokio::task::spawn_blocking(move || {
            for service in &self.services {
                // Undelivered spans are counted below, and metrics are no evidence.
                let _counted = service.provider.shutdown();
                let _ignored = service.meters.as_ref().map(SdkMeterProvider::shutdown);
            }
            let traces = read_back(&mut self.file.lock()).context("cannot read the file of spans")?;
            let undelivered = self.collector.and_then(|collector| collector.undelivered(&traces));
            Ok(Exported { traces, undelivered })
        });
        shut_down.await?
    }
}

impl Service {
    pub(crate) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("orders")
    }

    /// Returns the broker with the telemetry of this service.
    pub(crate) fn instrument(&self, broker: Broker) -> Broker {
        let broker = broker.with_tracer_provider(&self.provider);
        let broker = match &self.meters {
            Some(meters) => broker.with_meter_provider(meters),
            None => broker,
        };
        match self.cut {
            Some(cut) => broker.with_propagator(CutPropagator(cut)),
            None => broker,
        }
    }
}

/// Writes the spans of one service at once, so that none is lost to a full queue: one OTLP/JSON
/// export request per line, as the Collector's file exporter does.
#[derive(Debug)]
struct FileExporter {
    file: Arc<Mutex<BufWriter<File>>>,
    resource: ResourceAttributesWithSchema,
}

impl SpanExporter for FileExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let mut file = self.file.lock();
        let written = serde_json::to_writer(&mut *file, &ExportTraceServiceRequest { resource_spans });
        let written = written.map_err(io::Error::from).and_then(|()| file.write_all(b"\n"));
        written.map_err(|error| OTelSdkError::InternalFailure(error.to_string()))
    }
}

fn read_back(file: &mut BufWriter<File>) -> Result<Traces> {
    file.flush()?;
    let file = file.get_mut();
    file.rewind()?;
    Ok(verify::otlp::read(BufReader::new(file))?)
}

/// An OpenTelemetry Collector. Cheap to clone.
#[derive(Debug, Clone)]
struct Collector {
    endpoint: String,
    client: Client,
    delivered: Arc<AtomicUsize>,
    last_error: Arc<Mutex<Option<String>>>,
}

impl Collector {
    fn new(endpoint: &str) -> Result<Self> {
        // The SDK exports on its own threads, without a runtime.
        let make = || Client::builder().timeout(EXPORT_TIMEOUT).build();
        let client = tokio::task::block_in_place(make).context("cannot make an HTTP client")?;
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Ok(Self { endpoint, client, delivered: Arc::default(), last_error: Arc::default() })
    }

    fn traces(&self) -> String {
        format!("{}/v1/traces", self.endpoint)
    }

    fn processor(&self) -> Result<BatchSpanProcessor> {
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http();
        let exporter = exporter.with_http_client(self.client.clone()).with_endpoint(self.traces()).build()?;
        let config = BatchConfigBuilder::default().with_max_queue_size(MAX_WAITING).with_scheduled_delay(SPAN_DELAY);
        let exporter = CountingExporter { exporter, collector: self.clone() };
        Ok(BatchSpanProcessor::builder(exporter).with_batch_config(config.build()).build())
    }

    fn meters(&self, resource: Resource) -> Result<SdkMeterProvider> {
        let exporter = MetricExporter::builder().with_http().with_http_client(self.client.clone());
        let exporter = exporter.with_endpoint(format!("{}/v1/metrics", self.endpoint)).build()?;
        let reader = PeriodicReader::builder(exporter).with_interval(METRICS_INTERVAL).build();
        Ok(SdkMeterProvider::builder().with_resource(resource).with_reader(reader).build())
    }

    fn undelivered(&self, traces: &Traces) -> Option<String> {
        let spans: usize = traces.iter().map(|trace| trace.spans().len()).sum();
        let missing = spans.checked_sub(self.delivered.load(Ordering::Relaxed)).filter(|missing| *missing > 0)?;
        let why = self.last_error.lock().as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        Some(format!("{missing} spans did not get to {}{why}", self.traces()))
    }
}

/// Counts the spans that the Collector accepted.
#[derive(Debug)]
struct CountingExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    collector: Collector,
}

impl SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.exporter.export(batch).await;
        match &sent {
            Ok(()) => _ = self.collector.delivered.fetch_add(spans, Ordering::Relaxed),
            Err(error) => *self.collector.last_error.lock() = Some(error.to_string()),
        }
        sent
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The reason why the outside world could not do something.
#[derive(Debug)]
pub(crate) struct Obstacle {
    /// The value of `error.type`.
    pub(crate) error_type: &'static str,
    pub(crate) text: String,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Obstacle {}

/// Does work inside a child span of the current one, which fails if the work does.
pub(crate) async fn in_span(
    tracer: &SdkTracer,
    name: &'static str,
    work: impl Future<Output = Result<(), Obstacle>>,
) -> Result<(), Obstacle> {
    let context = Context::current_with_span(tracer.start(name));
    let result = work.with_context(context.clone()).await;
    let span = context.span();
    if let Err(obstacle) = &result {
        span.set_attribute(KeyValue::new("error.type", obstacle.error_type));
        span.set_status(Status::error(obstacle.text.clone()));
    }
    span.end();
    result
}
