//! The command's own spans: it takes part in traces like any other program.

use opentelemetry::global;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

/// The instrumentation scope of the spans that the command makes beside those of the library.
pub(crate) const SCOPE: &str = "traced-broker command";

/// Makes spans until it is ended.
#[must_use = "telemetry has to be ended"]
pub(crate) struct Telemetry(SdkTracerProvider);

/// Lets brokers that are connected from now on make spans. What the command begins itself is sampled; what others began, as they decided.
pub(crate) fn start() -> Telemetry {
    let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
    global::set_tracer_provider(provider.clone());
    Telemetry(provider)
}

impl Telemetry {
    /// Brings what is left to wherever spans go. That it cannot is no failure of the command.
    pub(crate) fn end(self) {
        let _ = self.0.shutdown();
    }
}
