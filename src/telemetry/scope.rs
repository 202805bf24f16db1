//! The instrumentation scope of this library.

use opentelemetry::InstrumentationScope;

use crate::names::SCHEMA_URL;

/// Returns the instrumentation scope of every span and measurement of this library.
pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA_URL)
        .build()
}
