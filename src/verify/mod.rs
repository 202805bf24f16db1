//! Verification of traces: reads exported spans, checks them, and draws them.
//!
//! All functions work on spans as they were *exported*, by this library or any other, in any
//! language, because only these reach a backend. They need no SDK, broker or network.
//!
//! - [`otlp`] reads the file a Collector's file exporter writes, [`answer`] the answers of Tempo
//!   and Jaeger; [`Traces`] groups the spans by trace.
//! - [`check()`] reports which traces are whole, and where and why the others broke.
//! - [`Trace::hops`] pairs each processing with the send that caused it, and gives the time in the
//!   queue between them.
//! - [`Waterfall`] draws a trace for the terminal, including the wait in the queue. [`Picture`]
//!   draws traces and the links between them for documents. [`Page`] is a page for the browser,
//!   with search, folding and zoom.
//!
//! ```
//! use traced_broker::verify::{self, Waterfall};
//!
//! let file = concat!(
//!     r#"{"resourceSpans":[{"resource":{"attributes":["#,
//!     r#"{"key":"service.name","value":{"stringValue":"api"}}]},"scopeSpans":[{"spans":[{"#,
//!     r#""traceId":"4bf92f3577b34da6a3ce929d0e0e4736","spanId":"00f067aa0ba902b7","#,
//!     r#""name":"POST /orders","kind":2,"startTimeUnixNano":"1795368288498000000","#,
//!     r#""endTimeUnixNano":"1795368288510000000"}]}]}]}"#,
//! );
//! let traces = verify::otlp::read(file.as_bytes())?;
//! let report = verify::check(&traces);
//! assert!(report.is_whole(), "{report}");
//! for trace in &traces {
//!     let picture = Waterfall::new(trace).report(&report).width(80).to_string();
//!     assert!(picture.contains("POST /orders"));
//! }
//! # Ok::<(), verify::otlp::ReadError>(())
//! ```

pub mod answer;
mod attributes;
mod check;
mod hop;
mod id;
mod latency;
mod layout;
mod markup;
mod messaging;
pub mod otlp;
mod page;
mod picture;
mod resolve;
mod span;
mod text;
mod trace;
mod waterfall;

pub use attributes::{Attributes, Value};
pub use check::{Finding, FindingKind, TraceReport, check};
pub use hop::QueueHop;
pub use id::{InvalidId, SpanId, SpanRef, TraceId};
pub use latency::{HumanDuration, Latencies};
pub use messaging::Operation;
pub use page::Page;
pub use picture::Picture;
pub use span::{Event, Kind, Link, Span, Status};
pub use trace::{Trace, Traces};
pub use waterfall::Waterfall;
