//! Proof that traces are whole: read exported spans, check them, draw them.
//!
//! Everything here works on spans as they were *exported*, by this library or by any other, in any
//! language: what a backend shows is what counts. Nothing depends on an SDK, a broker or a network.
//!
//! - [`otlp`] reads the file a Collector's file exporter writes, [`answer`] what Tempo and Jaeger
//!   answer; [`Traces`] puts the spans together.
//! - [`check()`] says which traces are whole, and of the others where and why they broke.
//! - [`Trace::hops`] pairs each processing with the send that caused it and tells the time in the
//!   queue between.
//! - [`Waterfall`] draws a trace for the terminal, the wait in the queue included; [`Picture`] draws traces and the links between
//!   them for documents, [`Page`] makes one that can be searched, folded and zoomed in a browser.
//!
//! ```
//! use traced_broker::verify::{self, Waterfall};
//!
//! let file = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"api"}}]},"scopeSpans":[{"spans":[{"traceId":"4bf92f3577b34da6a3ce929d0e0e4736","spanId":"00f067aa0ba902b7","name":"POST /orders","kind":2,"startTimeUnixNano":"1795368288498000000","endTimeUnixNano":"1795368288510000000"}]}]}]}"#;
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
pub use check::{Finding, FindingKind, Report, check};
pub use hop::Hop;
pub use id::{InvalidId, SpanId, SpanRef, TraceId};
pub use latency::{HumanDuration, Latencies};
pub use messaging::Operation;
pub use page::Page;
pub use picture::Picture;
pub use span::{Event, Kind, Link, Span, Status};
pub use trace::{Trace, Traces};
pub use waterfall::Waterfall;
