//! The command's own spans; it takes part in traces like any other program.

use std::env;

use opentelemetry::global;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use traced_broker::otlp;

use crate::error::{CliError, chain};
use crate::output;

/// The instrumentation scope of the command's spans; the library has its own.
pub(crate) const SCOPE: &str = "traced-broker command";

/// The variables that enable export. It is off by default, because a command may run where there is
/// no Collector.
const EXPORTING: [&str; 3] =
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"];

enum Telemetry {
    /// Exports as the environment says.
    Exported(otlp::Telemetry),
    /// Does not export; messages carry contexts all the same.
    Local(SdkTracerProvider),
}

/// Does `work` with spans enabled, and exports them afterwards.
///
/// Traces that the command begins are sampled unless the environment says otherwise; other traces
/// keep their sampling decision.
pub(crate) async fn traced<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let telemetry = start()?;
    let done = work.await;
    telemetry.end().await;
    done
}

fn start() -> Result<Telemetry, CliError> {
    if EXPORTING.into_iter().any(|variable| env::var_os(variable).is_some_and(|value| !value.is_empty())) {
        let telemetry = otlp::Setup::new().service_name("traced-broker").global().start();
        let telemetry =
            telemetry.map_err(|error| CliError::with_source("invalid OpenTelemetry environment variable", &error))?;
        // Even with the SDK disabled, messages get a context: that is the purpose of the command.
        if telemetry.tracer_provider().is_some() {
            return Ok(Telemetry::Exported(telemetry));
        }
    }
    let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
    global::set_tracer_provider(provider.clone());
    Ok(Telemetry::Local(provider))
}

impl Telemetry {
    /// Exports the remaining spans. A failure is printed but does not fail the command.
    async fn end(self) {
        match self {
            Self::Exported(telemetry) => {
                if let Err(error) = telemetry.shutdown().await {
                    output::warn(&format!("the spans of this command are lost: {}", chain(&error)));
                }
            }
            Self::Local(provider) => {
                let _ = provider.shutdown();
            }
        }
    }
}
