//! The command's own spans: it takes part in traces like any other program.

use std::env;

use opentelemetry::global;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use traced_broker::otlp;

use crate::screen;
use crate::trouble::{Trouble, chain};

/// The instrumentation scope of the spans that the command makes beside those of the library.
pub(crate) const SCOPE: &str = "traced-broker command";

/// Each of them asks for spans to be exported. By default they are not: a command is run where there is no Collector, too.
const EXPORTING: [&str; 3] =
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"];

/// Makes spans until it is ended.
#[must_use = "telemetry has to be ended"]
pub(crate) enum Telemetry {
    /// To where the environment says.
    Exported(otlp::Telemetry),
    /// Nowhere: there are contexts, and that is all.
    Kept(SdkTracerProvider),
}

/// Lets brokers that are connected from now on make spans. What the command begins itself is sampled, unless the environment says
/// otherwise; what others began, as they decided.
pub(crate) fn start() -> Result<Telemetry, Trouble> {
    if EXPORTING.into_iter().any(|variable| env::var_os(variable).is_some_and(|value| !value.is_empty())) {
        let telemetry = otlp::Setup::new().service_name("traced-broker").global().start();
        let telemetry = telemetry.map_err(|error| Trouble::because("the environment is not understood", &error))?;
        // Where no SDK is wanted there are contexts all the same: they are what the command is for.
        if telemetry.tracer_provider().is_some() {
            return Ok(Telemetry::Exported(telemetry));
        }
    }
    let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
    global::set_tracer_provider(provider.clone());
    Ok(Telemetry::Kept(provider))
}

impl Telemetry {
    /// Brings what is left to wherever spans go. That it cannot is no failure of the command.
    pub(crate) async fn end(self) {
        match self {
            Self::Exported(telemetry) => {
                if let Err(error) = telemetry.shutdown().await {
                    screen::remark(&format!("the spans of this command are lost: {}", chain(&error)));
                }
            }
            Self::Kept(provider) => {
                let _ = provider.shutdown();
            }
        }
    }
}
