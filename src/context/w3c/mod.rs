//! A strict codec for the W3C headers that carry a trace: `traceparent`, `tracestate`, `baggage`.
//!
//! It follows [Trace Context Level 2][tc] and [Baggage][bg], reads from and writes to plain bytes,
//! and is independent of brokers and messages. Input is untrusted: it never causes a panic, invalid
//! values are never passed on, and everything left out is reported in [`Issues`].
//!
//! | to do | use |
//! |---|---|
//! | read the three headers of a message into a [`Context`] | [`decode()`], or [`decode_all`] if a header may occur more than once |
//! | write the headers for a [`Context`] | [`encode_context`] |
//! | plug the codec into OpenTelemetry | [`W3cPropagator`] |
//! | read or write one header | [`TraceParent`], [`tracestate`], [`baggage`] |
//!
//! # Data outside OpenTelemetry's types
//!
//! OpenTelemetry's own types cannot hold everything that Level 2 requires to be passed on: its
//! `TraceState` rejects some legal keys, and the SDK's tracer clears the *random* flag of spans it
//! does not sample. Both are kept in a private value of the [`Context`], bound to the trace id, and
//! are written again for every span of that trace started under that context.
//!
//! ```
//! use opentelemetry::Context;
//! use traced_broker::w3c;
//!
//! let received = w3c::decode(
//!     Some(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"),
//!     Some(b"0vendor=a, ,rojo=b"),
//!     None,
//!     &Context::new(),
//! );
//! assert!(received.issues.is_empty());
//!
//! let mut sent = Vec::new();
//! w3c::encode_context(&received.context, |name, value| sent.push((name, value.to_vec())));
//! assert_eq!(sent[0].1, b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03");
//! assert_eq!(sent[1].1, b"0vendor=a,rojo=b");
//! ```
//!
//! [tc]: https://www.w3.org/TR/trace-context-2/
//! [bg]: https://www.w3.org/TR/baggage/
//! [`Context`]: opentelemetry::Context

pub mod baggage;
mod beside;
mod decode;
mod encode;
mod malformed;
mod octets;
mod propagator;
mod traceparent;
pub mod tracestate;

pub use decode::{Extracted, decode, decode_all};
pub use encode::{encode_context, encode_span};
pub use malformed::{Issues, Malformed};
pub use propagator::W3cPropagator;
pub use traceparent::TraceParent;
