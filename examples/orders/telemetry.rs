//! Where the spans and measurements of each service go.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry::trace::{FutureExt as _, Span as _, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider};
use traced_broker::Broker;
use traced_broker::verify::Traces;

use crate::collector::Collector;
use crate::cut::Cut;
use crate::meters;
use crate::outside_world::Obstacle;
use crate::span_file::SpanFile;

/// Spans that may wait to be sent to a Collector, per service; more are dropped, and told at the end.
const MAX_WAITING: usize = 16_384;

/// How long a span may wait for others to be sent with. Whoever has just posted an order looks for its trace.
const DELAY: Duration = Duration::from_millis(200);

/// The exporters of a run, and the provider of every service.
///
/// Each service has a provider of its own, since `service.name` belongs to the provider. Nothing is installed globally.
#[derive(Debug)]
pub(crate) struct Telemetry {
    file: SpanFile,
    collector: Option<Collector>,
    cut: Option<Cut>,
    providers: Vec<SdkTracerProvider>,
    meters: Vec<SdkMeterProvider>,
}

/// The spans of a whole run, as they were exported.
#[derive(Debug)]
pub(crate) struct Exported {
    /// Read back from the file.
    pub(crate) traces: Traces,
    pub(crate) file: SpanFile,
    pub(crate) collector: Option<Collector>,
}

impl Exported {
    /// Spans that a Collector should have got and did not.
    pub(crate) fn undelivered(&self) -> Option<String> {
        let collector = self.collector.as_ref()?;
        let missing = self.file.written().spans.checked_sub(collector.delivered()).filter(|missing| *missing > 0)?;
        let why = collector.last_error().map(|error| format!(": {error}")).unwrap_or_default();
        Some(format!("{missing} spans did not get to {}{why}", collector.endpoint()))
    }
}

impl Telemetry {
    /// Spans go to this file, or to one without a name, and to a Collector if one is named.
    pub(crate) fn new(file: Option<&Path>, collector: Option<&str>, cut: Option<Cut>) -> Result<Self> {
        let file = SpanFile::create(file)?;
        let collector = collector.map(Collector::at).transpose()?;
        Ok(Self { file, collector, cut, providers: Vec::new(), meters: Vec::new() })
    }

    /// The provider of a service.
    pub(crate) fn service(&mut self, name: &'static str) -> Result<SdkTracerProvider> {
        let mut builder = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name(name).build())
            // Said here, for the SDK would otherwise ask the environment.
            .with_sampler(match self.cut {
                Some(Cut::NotSampled) => Sampler::AlwaysOff,
                _ => Sampler::ParentBased(Box::new(Sampler::AlwaysOn)),
            })
            .with_simple_exporter(self.file.exporter());
        if let Some(collector) = self.collector.as_ref().filter(|_| self.cut != Some(Cut::NotExported)) {
            let config =
                BatchConfigBuilder::default().with_max_queue_size(MAX_WAITING).with_scheduled_delay(DELAY).build();
            let processor = BatchSpanProcessor::builder(collector.exporter()?).with_batch_config(config).build();
            builder = builder.with_span_processor(processor);
        }
        let provider = builder.build();
        self.providers.push(provider.clone());
        Ok(provider)
    }

    /// The broker of a service, with its measurements sent to the Collector if one is named.
    pub(crate) fn measure(&mut self, name: &'static str, broker: Broker) -> Result<Broker> {
        let Some(endpoint) = self.collector.as_ref().and_then(Collector::measurements) else { return Ok(broker) };
        let provider = meters::provider(name, &endpoint)?;
        let broker = broker.with_meter_provider(&provider);
        self.meters.push(provider);
        Ok(broker)
    }

    /// Exports what is left, then reads everything back.
    pub(crate) async fn shut_down(self) -> Result<Exported> {
        let Self { file, collector, providers, meters, .. } = self;
        let flushed = file.clone();
        // Off the runtime's own threads, which the last exports need.
        let read = tokio::task::spawn_blocking(move || {
            for provider in &providers {
                // Spans that did not get to the Collector are counted, and the file keeps its own error.
                let _reported_elsewhere = provider.shutdown();
            }
            for meters in &meters {
                // What is measured is no evidence: a Collector that is not there has been told of already.
                let _told_already = meters.shutdown();
            }
            flushed.read_back()
        });
        let traces = read.await.context("reading the spans back was cut short")??;
        Ok(Exported { traces, file, collector })
    }
}

/// The tracer for a service's own spans.
pub(crate) fn tracer(provider: &SdkTracerProvider) -> SdkTracer {
    provider.tracer("orders")
}

/// Does a piece of work inside a span of its own, child of the current one, which fails if the work does.
pub(crate) async fn in_span(
    tracer: &SdkTracer,
    name: &'static str,
    attributes: impl IntoIterator<Item = KeyValue>,
    work: impl Future<Output = Result<(), Obstacle>>,
) -> Result<(), Obstacle> {
    let mut span = tracer.start(name);
    span.set_attributes(attributes);
    let context = Context::current_with_span(span);
    let result = work.with_context(context.clone()).await;
    let span = context.span();
    if let Err(obstacle) = &result {
        span.set_attribute(KeyValue::new("error.type", obstacle.error_type()));
        span.set_status(Status::error(obstacle.to_string()));
    }
    span.end();
    result
}
