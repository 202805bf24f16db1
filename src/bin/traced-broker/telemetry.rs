//! The command's own spans: it takes part in traces like any other program.

use std::env;

use opentelemetry::global;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use traced_broker::otlp;

use crate::screen;
use crate::trouble::{Trouble, chain};

/// The instrumentation scope of the spans that the command makes beside those of the library.
pub(crate) const SCOPE: &str = "traced-broker command";

/// Without it nothing is exported: who only tries something out has no Collector.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Makes spans until it is ended.
#[must_use = "telemetry has to be ended"]
pub(crate) struct Telemetry(Option<otlp::Telemetry>);

/// Lets brokers that are connected from now on make spans, and exports them where the environment says.
///
/// Where it says nothing, what the command begins itself is sampled all the same, and what others began, as they decided: contexts travel.
pub(crate) fn start() -> Result<Telemetry, Trouble> {
    if env::var_os(ENDPOINT).is_some_and(|endpoint| !endpoint.is_empty()) {
        let started = otlp::Setup::new().service_name("traced-broker").global().start();
        let telemetry = started.map_err(|error| Trouble::because("cannot export spans", &error))?;
        if telemetry.tracer_provider().is_some() {
            return Ok(Telemetry(Some(telemetry)));
        }
    }
    let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    global::set_tracer_provider(SdkTracerProvider::builder().with_sampler(sampler).build());
    Ok(Telemetry(None))
}

impl Telemetry {
    /// Exports what is left. That it cannot is no failure of the command, but said.
    pub(crate) async fn end(self) {
        let Some(telemetry) = self.0 else { return };
        if let Err(error) = telemetry.shutdown().await {
            screen::remark(&format!("traced-broker: {}", chain(&error)));
        }
    }
}
