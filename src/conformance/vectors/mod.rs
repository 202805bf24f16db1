//! Contents of the W3C headers as foreign producers write them, and the expected results.
//!
//! The data does not depend on this library, so that the tests of the codec use the same forms as
//! the kit does for every broker. It contains every form in the test suites of [Trace Context][tc]
//! and [Baggage][bg], and hostile forms that are not in them.
//!
//! [tc]: https://www.w3.org/TR/trace-context-2/
//! [bg]: https://www.w3.org/TR/baggage/

mod baggage;
mod hostile;
mod traceparent;
mod tracestate;

use std::fmt::Write;

use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::TraceContextExt;

pub(super) use baggage::baggage;
pub(super) use hostile::hostile;
pub(super) use traceparent::traceparents;
pub(super) use tracestate::tracestates;

/// The producer's trace id; [`SPAN`] is its span id.
pub(super) const TRACE: &str = "7d1f0c2a9e5b48638c4d2e6f1a3b5c70";
pub(super) const SPAN: &str = "3c9e1f5a7b2d4860";

/// Headers as they are written in a table.
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// The headers of one message from a foreign producer, and the context to be read from them.
#[derive(Debug, Clone)]
pub(super) struct Vector {
    /// A description of the form.
    pub(super) what: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) read: Read,
    /// `true` if the list is split over headers with different names. A broker whose headers are a
    /// table may reorder these.
    pub(super) in_any_order: bool,
}

/// The context read from the headers of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// The parent as a `traceparent` of version `00`; `None` if the trace starts anew.
    pub(super) parent: Option<String>,
    /// The `tracestate` in normal form, empty if there is none.
    pub(super) state: String,
    /// Keys, values and properties, ordered by key.
    pub(super) baggage: Vec<[String; 3]>,
}

impl Read {
    /// Reads a context. Its `tracestate` is passed as it would be written, because OpenTelemetry's
    /// type cannot hold every list.
    pub(super) fn of(context: &Context, state: &str) -> Self {
        let span = context.span().span_context().clone();
        let parent = || format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8());
        let entries = context.baggage().iter();
        let mut baggage: Vec<[String; 3]> = entries
            .map(|(key, (value, properties))| [key.to_string(), value.to_string(), properties.as_str().to_owned()])
            .collect();
        baggage.sort_unstable();
        Self { parent: span.is_valid().then(parent), state: state.to_owned(), baggage }
    }
}

impl Vector {
    /// Creates a message without headers, from which no context is read.
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), headers: Vec::new(), read: Read::default(), in_any_order: false }
    }

    /// Creates a message with a valid `traceparent`, to which other headers can be added.
    fn continued(what: impl Into<String>) -> Self {
        Self::new(what).header("traceparent", filled("00-{T}-{S}-00")).continues("00")
    }

    fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the expectation that the trace is continued with these flags.
    fn continues(mut self, flags: &str) -> Self {
        self.read.parent = Some(format!("00-{TRACE}-{SPAN}-{flags}"));
        self
    }

    /// Returns `true` if there is a parent that cannot be used, which must be reported.
    pub(super) fn has_bad_parent(&self) -> bool {
        self.read.parent.is_none() && self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("traceparent"))
    }

    /// Returns the list, with its members sorted if a broker may reorder them.
    pub(super) fn settled(&self, state: &str) -> String {
        if !self.in_any_order {
            return state.to_owned();
        }
        let mut members: Vec<&str> = state.split(',').collect();
        members.sort_unstable();
        members.join(",")
    }

    fn state(mut self, state: impl Into<String>) -> Self {
        self.read.state = state.into();
        self
    }

    fn in_any_order(mut self) -> Self {
        self.in_any_order = true;
        self
    }

    fn entries(mut self, entries: &[[&str; 3]]) -> Self {
        self.read.baggage = entries.iter().map(|entry| entry.map(str::to_owned)).collect();
        self.read.baggage.sort_unstable();
        self
    }
}

/// Replaces placeholders with ids: `{T}` and `{S}` with those of the trace and the span, `{t}` and
/// `{s}` with the same without their last digit, `{0}` and `{z}` with all zeros.
fn filled(text: &str) -> String {
    let (no_trace, no_span) = ("0".repeat(TRACE.len()), "0".repeat(SPAN.len()));
    [
        ("{T}", TRACE),
        ("{S}", SPAN),
        ("{t}", &TRACE[..TRACE.len() - 1]),
        ("{s}", &SPAN[..SPAN.len() - 1]),
        ("{0}", &no_trace),
        ("{z}", &no_span),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (mark, id)| text.replace(mark, id))
}

/// Returns the members `from` to `to` of a long list.
fn members(from: usize, to: usize) -> String {
    let mut list = String::new();
    for number in from..=to {
        let comma = if number > from { "," } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(list, "{comma}m{number:02}={number}");
    }
    list
}
