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
//! Spans and measurements are sent to a Collector as OTLP over HTTP, in batches and from dedicated
//! threads, so any runtime works, or none. TLS is not supported: the Collector on the same machine
//! or pod receives plain text, and does the rest.
//!
//! # The variables
//! An empty variable counts as not set. An invalid variable fails [`Setup::start`] with an error
//! that names the variable, and never its value if that may be a secret. The SDK itself would
//! ignore such a variable and continue.
//!
//! | variable | meaning |
//! |---|---|
//! | `OTEL_SDK_DISABLED` | `true` disables spans and measurements; contexts are still propagated |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | the sending service; take precedence over [`Setup::service_name`] |
//! | `OTEL_PROPAGATORS` | a list of `tracecontext`, `baggage`, `b3`, `b3multi`, `jaeger`, or `none`; by default the first two |
//! | `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` | `otlp`, which is the default, or `none` |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | `always_on`, `always_off`, `traceidratio`, or one of these prefixed with `parentbased_` |
//! | `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` | batching of spans, in milliseconds and spans |
//! | `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`, `…_EVENT_COUNT_LIMIT`, `…_LINK_COUNT_LIMIT` | limits of one span |
//! | `OTEL_METRIC_EXPORT_INTERVAL` | milliseconds between exports of measurements |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | the Collector, `http://localhost:4318` by default; `/v1/traces` and `/v1/metrics` are added |
//! | `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TIMEOUT` | headers as `name=value,…`; milliseconds |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL` | `http/protobuf`, the only supported value |
//! | `OTEL_EXPORTER_OTLP_COMPRESSION` | `gzip`, or `none`, which is the default |
//! | `OTEL_EXPORTER_OTLP_TRACES_…`, `OTEL_EXPORTER_OTLP_METRICS_…` | each of the five variables above for one signal; such an endpoint is used unchanged, and even empty headers replace those for both |
//! | `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` | `cumulative`, `delta` or `lowmemory` |
//! | `OTEL_CONFIG_FILE` | not supported: a program with it does not start, because the file would replace all of the above |
//!
//! The queue of spans is bounded (2,048 by default): further spans are dropped, and the SDK logs
//! it. Data that the Collector refuses is logged too, through `tracing`, under the target
//! `opentelemetry_sdk`.
//!
//! # Rules
//! Names and meanings follow OpenTelemetry's specification, *Environment Variable Specification*
//! and *OTLP Exporter Configuration*. One difference is deliberate: the specification ignores an
//! unknown value with a warning.

mod exporters;
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

/// The resource attribute that names the service.
const SERVICE_NAME: &str = "service.name";

/// Settings of the exported resource, and whether the whole process uses the telemetry; everything
/// else comes from the [variables](self).
#[derive(Debug, Clone, Default)]
pub struct Setup {
    service_name: Option<String>,
    attributes: Vec<KeyValue>,
    global: bool,
}

/// Starts with the settings of the environment alone, for the whole process:
/// `Setup::new().global().start()`.
///
/// # Errors
/// See [`Setup::start`].
pub fn init() -> Result<Telemetry> {
    Setup::new().global().start()
}

impl Setup {
    /// Creates a setup that takes everything from the environment, and applies only to brokers
    /// instrumented with the returned [`Telemetry`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the service, unless the environment does: the operator of a program takes precedence
    /// over its author.
    #[must_use]
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self
    }

    /// Adds an attribute of the resource, such as `service.version`. An attribute of the same name
    /// in the environment takes precedence.
    #[must_use]
    pub fn attribute(mut self, attribute: KeyValue) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// Also installs the tracer provider, meter provider and propagator as OpenTelemetry's global
    /// ones.
    #[must_use]
    pub fn global(mut self) -> Self {
        self.global = true;
        self
    }

    /// Reads the variables and starts.
    ///
    /// ```rust,standalone_crate
    /// use traced_broker::{ErrorKind, otlp};
    ///
    /// # // SAFETY: no other thread reads the environment.
    /// # unsafe { std::env::set_var("OTEL_PROPAGATORS", "tracecontext,b4") };
    /// // With OTEL_PROPAGATORS=tracecontext,b4 in the environment:
    /// let error = otlp::Setup::new().service_name("order-api").start().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    /// assert_eq!(error.context().collect::<Vec<_>>(), [("variable", "OTEL_PROPAGATORS")]);
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for an invalid variable, which
    /// the error's [context](crate::Error::context) names as `variable`.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a valid variable that asks for
    /// a missing feature, such as gRPC, TLS or a propagator.
    /// [`ErrorKind::Unexpected`](crate::ErrorKind::Unexpected) if no thread can be started.
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

    /// Returns the program's attributes, then those the SDK's detectors read from the environment,
    /// which replace them.
    fn resource(self, environment_names_service: bool) -> Resource {
        let read = Resource::builder().build();
        let read = read.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        // Without a name in the environment, the detectors invent one.
        let name = self.service_name.filter(|_| !environment_names_service);
        let name = name.map(|name| KeyValue::new(SERVICE_NAME, name));
        Resource::builder_empty().with_attributes(self.attributes.into_iter().chain(read).chain(name)).build()
    }
}
