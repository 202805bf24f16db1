//! Trace context on the wire: the W3C codec, the dialects of other systems, and the policies of
//! propagation, over one carrier.

#[cfg_attr(feature = "tracing", path = "ambient_tracing.rs")]
pub(crate) mod ambient;
pub mod carrier;
pub(crate) mod current;
pub mod dialect;
pub mod propagation;
#[cfg(any(feature = "conformance", feature = "otlp"))]
pub(crate) mod propagators;
pub mod w3c;
