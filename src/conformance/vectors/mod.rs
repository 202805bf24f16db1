//! What foreign producers write into the headers of the W3C, and what must come of it.
//!
//! Data that depends on nothing of this library, so that the tests of the codec hold it to the same forms as the kit does every broker.
//! Every form is there that the test suites of [Trace Context][tc] and [Baggage][bg] try, and the hostile ones that they do not.
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

/// The trace that the producer is in, and its span.
pub(super) const TRACE: &str = "7d1f0c2a9e5b48638c4d2e6f1a3b5c70";
pub(super) const SPAN: &str = "3c9e1f5a7b2d4860";

/// Headers as a table has them.
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// The headers of one message, as a foreign producer writes them, and what is read from them.
#[derive(Debug, Clone)]
pub(super) struct Vector {
    /// What is particular about it.
    pub(super) what: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) read: Read,
    /// The names of the headers that form the list differ, so that a broker whose headers are a table may turn them round.
    pub(super) in_any_order: bool,
}

/// What was read from the headers of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// The parent as a `traceparent` of version `00`; none where the trace is begun anew.
    pub(super) parent: Option<String>,
    /// The `tracestate` in normal form, empty where there is none.
    pub(super) state: String,
    /// Keys, values and properties, in the order of the keys.
    pub(super) baggage: Vec<[String; 3]>,
}

impl Read {
    /// What a context holds; its `tracestate` is what is written for it, since OpenTelemetry's type cannot hold every list.
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
    /// A message without headers, from which nothing is read.
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), headers: Vec::new(), read: Read::default(), in_any_order: false }
    }

    /// A message with a `traceparent` that is good, beside which other headers may stand.
    fn continued(what: impl Into<String>) -> Self {
        Self::new(what).header("traceparent", filled("00-{T}-{S}-00")).continues("00")
    }

    fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The trace is continued, with these flags.
    fn continues(mut self, flags: &str) -> Self {
        self.read.parent = Some(format!("00-{TRACE}-{SPAN}-{flags}"));
        self
    }

    /// Whether there is a parent that cannot be used, so that this has to be told.
    pub(super) fn has_bad_parent(&self) -> bool {
        self.read.parent.is_none() && self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("traceparent"))
    }

    /// The list, its members in an order that does not depend on the broker's.
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

/// A text with the ids put in: `{T}` and `{S}` the trace's and the span's, `{t}` and `{s}` the same but for their last digit, `{0}`
/// and `{z}` ids of zeroes.
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

/// The members `from` to `to` of a long list.
fn members(from: usize, to: usize) -> String {
    let mut list = String::new();
    for number in from..=to {
        let comma = if number > from { "," } else { "" };
        // Writing to a string does not fail.
        let _ = write!(list, "{comma}m{number:02}={number}");
    }
    list
}
