//! Spans and metrics: their templates, their measurements, and the tracer and meter they go to.

mod intern;
pub(crate) mod metrics;
mod rejections;
mod scope;
pub(crate) mod span;
mod tracer;

pub(crate) use scope::scope;
pub(crate) use span::{SubscriptionTelemetry, WaitingGauge, WaitingReason};
pub(crate) use tracer::{Settings, Telemetry};
