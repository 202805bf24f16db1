//! Traces, metrics and propagators from the standard `OTEL_*` variables, in one call.
//!
//! ```no_run
//! # async fn run() -> traced_broker::Result<()> {
//! use traced_broker::{Message, TracedBroker, connect, otlp};
//!
//! let telemetry = otlp::Setup::new().service_name("order-api").start()?;
//! let broker = telemetry.instrument(connect("kafka://localhost:9092").await?);
//!
//! broker.publish("orders", Message::new("one pair of shoes")).await?;
//!
//! broker.close().await?;
//! telemetry.shutdown().await // exports what is left, without blocking a thread of the runtime
//! # }
//! ```
//!
//! Spans and measurements go to a Collector as OTLP over HTTP, in batches and from threads of their own: any runtime will do, and none has
//! to be there. There is no TLS in it: the Collector of the machine or the pod is spoken to in plain text, and does the rest.
//!
//! # The variables
//! An empty variable counts as one that is not set. What is set and makes no sense fails [`Setup::start`] with an error that names the
//! variable and never its value where that may be a secret; the SDK itself would go on without it, and the traces with it.
//!
//! | variable | is |
//! |---|---|
//! | `OTEL_SDK_DISABLED` | `true` makes no spans and no measurements; contexts travel all the same |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | who sends; before [`Setup::service_name`] |
//! | `OTEL_PROPAGATORS` | a list of `tracecontext`, `baggage`, `b3`, `b3multi`, `jaeger`, or `none`; by default the first two |
//! | `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` | `otlp`, which is the default, or `none` |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | `always_on`, `always_off`, `traceidratio`, and each with `parentbased_` in front |
//! | `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` | how spans are batched, in milliseconds and spans |
//! | `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`, `…_EVENT_COUNT_LIMIT`, `…_LINK_COUNT_LIMIT` | what one span may hold |
//! | `OTEL_METRIC_EXPORT_INTERVAL` | milliseconds between exports of measurements |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | the Collector, `http://localhost:4318` by default; `/v1/traces` and `/v1/metrics` are added |
//! | `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TIMEOUT` | headers as `name=value,…`; milliseconds |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL`, `OTEL_EXPORTER_OTLP_COMPRESSION` | `http/protobuf` and `none`: there are no others here |
//! | `OTEL_EXPORTER_OTLP_TRACES_…`, `OTEL_EXPORTER_OTLP_METRICS_…` | each of the four lines above for one signal; such an endpoint is taken as it is, and even empty headers are taken instead of those for both |
//! | `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` | `cumulative`, `delta` or `lowmemory` |
//!
//! The queue of spans is bounded (2,048 by default): spans beyond are dropped, and the SDK logs that they were. What the Collector
//! refuses is logged too, through `tracing`, under the target `opentelemetry_sdk`.
//!
//! # Rules
//! The names and meanings are those of OpenTelemetry's specification, *Environment Variable Specification* and *OTLP Exporter
//! Configuration*. One thing differs on purpose: there a value that is not known is to be ignored with a warning.

mod exporters;
mod foreign;
mod propagators;
mod telemetry;
mod values;
mod variables;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::error::Result;

pub use telemetry::Telemetry;

use variables::Variables;

/// The attribute of a resource that says which service it is.
const SERVICE_NAME: &str = "service.name";

/// What is sent, by whom, and whether the whole process uses it; the rest is in the [variables](self).
#[derive(Debug, Clone, Default)]
pub struct Setup {
    service_name: Option<String>,
    attributes: Vec<KeyValue>,
    global: bool,
}

/// Starts with nothing but what the environment says, for the whole process: `Setup::new().global().start()`.
///
/// # Errors
/// As for [`Setup::start`].
pub fn init() -> Result<Telemetry> {
    Setup::new().global().start()
}

impl Setup {
    /// What the environment says, for those to whom the [`Telemetry`] is given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the service, unless the environment does: who deploys a program knows better than who wrote it.
    #[must_use]
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self
    }

    /// Adds an attribute of the resource, such as `service.version`. One of the same name in the environment counts more.
    #[must_use]
    pub fn attribute(mut self, attribute: KeyValue) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// Also makes tracer provider, meter provider and propagator OpenTelemetry's global ones.
    #[must_use]
    pub fn global(mut self) -> Self {
        self.global = true;
        self
    }

    /// Reads the variables and starts.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a variable that makes no sense, which the error's
    /// [context](crate::Error::context) names as `variable`; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for one that does, but asks
    /// for what is not there, such as gRPC, TLS or a propagator; [`ErrorKind::Unexpected`](crate::ErrorKind::Unexpected) when no thread can be had.
    pub fn start(self) -> Result<Telemetry> {
        let variables = Variables::read(std::env::var_os)?;
        let global = self.global;
        let telemetry =
            if variables.disabled { Telemetry::disabled(variables.propagators) } else { self.start_sdk(variables)? };
        if global {
            telemetry.install();
        }
        Ok(telemetry)
    }

    fn start_sdk(self, variables: Variables) -> Result<Telemetry> {
        let resource = self.resource(variables.names_service);
        let mut traces = SdkTracerProvider::builder().with_resource(resource.clone());
        if let Some(timeout) = variables.traces {
            traces = traces.with_batch_exporter(exporters::spans(timeout)?);
        }
        let mut metrics = SdkMeterProvider::builder().with_resource(resource);
        if let Some(timeout) = variables.metrics {
            metrics = metrics.with_periodic_exporter(exporters::measurements(timeout)?);
        }
        Ok(Telemetry::running(traces.build(), metrics.build(), variables.propagators))
    }

    /// What the program says, then what the SDK's detectors read from the environment, which replaces it.
    fn resource(self, environment_names_service: bool) -> Resource {
        let read = Resource::builder().build();
        let read = read.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        // Without a name in the environment the detectors make one up.
        let name = self.service_name.filter(|_| !environment_names_service);
        let name = name.map(|name| KeyValue::new(SERVICE_NAME, name));
        Resource::builder_empty().with_attributes(self.attributes.into_iter().chain(read).chain(name)).build()
    }
}
