//! The trace context that a message carries, and its defects.

use console::Style;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use traced_broker::names::header;
use traced_broker::w3c::{self, Issues};
use traced_broker::{Dialect, Headers};

/// Headers that identify the context of another system which the library does not read, with its
/// name.
///
/// The headers of the dialects are among them, for values that break the format of the dialect.
const UNREAD: [(&str, &str); 19] = [
    ("x-datadog-trace-id", "datadog"),
    ("x-amzn-trace-id", "x-ray"),
    ("awstraceheader", "x-ray"),
    ("sw8", "skywalking"),
    ("grpc-trace-bin", "opencensus"),
    ("sentry-trace", "sentry"),
    ("newrelic", "new relic"),
    ("elastic-apm-traceparent", "elastic"),
    ("elasticapmtraceparent", "elastic"),
    ("x-instana-t", "instana"),
    ("x_instana_t", "instana"),
    ("x-dynatrace", "dynatrace"),
    ("x-cloud-trace-context", "google cloud"),
    ("ot-tracer-traceid", "opentracing"),
    ("pinpoint-traceid", "pinpoint"),
    ("b3", "b3, malformed"),
    ("x-b3-traceid", "b3, malformed"),
    ("uber-trace-id", "jaeger, malformed"),
    ("diagnostic-id", "azure, malformed"),
];

/// The state of a message's trace context, in the order of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// One valid `traceparent`.
    Valid,
    /// No known context.
    Missing,
    /// A malformed `traceparent`, with the reason.
    Malformed(&'static str),
    /// More than one `traceparent`.
    Duplicated { conflicting: bool },
    /// No `traceparent`, but a context in a dialect that the library reads.
    Dialect(OrderedDialect),
    /// No `traceparent`, but a context of another system, which the library does not read.
    Foreign(&'static str),
}

/// A dialect, ordered by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrderedDialect(pub(crate) Dialect);

impl PartialOrd for OrderedDialect {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedDialect {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

impl State {
    /// Returns the kind without details.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::Duplicated { .. } => "duplicated",
            Self::Dialect(_) | Self::Foreign(_) => "foreign",
        }
    }

    /// Returns the details, if there are any.
    pub(crate) const fn detail(self) -> Option<&'static str> {
        match self {
            Self::Valid | Self::Missing => None,
            Self::Malformed(reason) => Some(reason),
            Self::Duplicated { conflicting: true } => Some("conflicting"),
            Self::Duplicated { conflicting: false } => Some("equal"),
            Self::Dialect(OrderedDialect(dialect)) => Some(dialect.as_str()),
            Self::Foreign(system) => Some(system),
        }
    }

    /// Describes the state with its details.
    pub(crate) fn description(self) -> String {
        match self.detail() {
            Some(detail) => format!("{}: {}", self.kind(), detail.replace('_', " ")),
            None => self.kind().to_owned(),
        }
    }

    /// Returns the colour of the state.
    pub(crate) const fn style(self) -> Style {
        match self {
            Self::Valid => Style::new().green(),
            Self::Dialect(_) => Style::new().yellow(),
            _ => Style::new().red(),
        }
    }
}

/// The context of a message.
#[derive(Debug)]
pub(crate) struct CarriedContext {
    pub(crate) state: State,
    pub(crate) context: Context,
    /// Further defects.
    pub(crate) remarks: Vec<&'static str>,
}

impl CarriedContext {
    pub(crate) fn read(headers: &Headers, payload: &[u8]) -> Self {
        let all = [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE].map(|name| headers.get_all(name));
        let [parent, state, baggage] = all;
        let w3c::Extracted { context, issues, .. } = w3c::decode_all(parent, state, baggage, &Context::new());
        let remarks = remarks(headers, &issues);
        let parents = headers.get_all(header::TRACEPARENT).count();
        let state = match (parents, issues.traceparent) {
            (0, _) => return Self::without_traceparent(headers, payload, context, remarks),
            (1, None) => State::Valid,
            (1, Some(reason)) => State::Malformed(reason.as_str()),
            (_, problem) => State::Duplicated { conflicting: problem == Some(w3c::Malformed::Conflicting) },
        };
        Self { state, context, remarks }
    }

    /// Reads the context of a message without `traceparent`.
    fn without_traceparent(headers: &Headers, payload: &[u8], empty: Context, remarks: Vec<&'static str>) -> Self {
        let read = Dialect::ALL.into_iter().find_map(|dialect| Some((dialect, dialect.read(headers, Some(payload))?)));
        if let Some((dialect, context)) = read {
            return Self { state: State::Dialect(OrderedDialect(dialect)), context, remarks };
        }
        let unread = UNREAD.iter().find(|(name, _)| headers.contains(name));
        let state = unread.map_or(State::Missing, |(_, system)| State::Foreign(system));
        Self { state, context: empty, remarks }
    }

    /// Returns the span that sent the message, if the context is readable.
    pub(crate) fn span(&self) -> Option<SpanContext> {
        Some(self.context.span().span_context().clone()).filter(SpanContext::is_valid)
    }
}

fn remarks(headers: &Headers, issues: &Issues) -> Vec<&'static str> {
    let has_other_case =
        |(name, _): (&str, &[u8])| name != header::TRACEPARENT && name.eq_ignore_ascii_case(header::TRACEPARENT);
    let checks = [
        (issues.traceparent.is_none() && issues.tracestate.is_some(), "tracestate malformed"),
        (issues.tracestate_dropped > 0, "tracestate with repeated keys"),
        (issues.baggage_dropped > 0, "baggage with malformed members"),
        (headers.iter().any(has_other_case), "traceparent not in lower case"),
    ];
    checks.into_iter().filter(|(holds, _)| *holds).map(|(_, remark)| remark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const OTHER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01";

    fn read(headers: &[(&str, &str)]) -> CarriedContext {
        CarriedContext::read(&headers.iter().copied().collect(), b"{}")
    }

    fn description(headers: &[(&str, &str)]) -> String {
        read(headers).state.description()
    }

    #[test]
    fn each_state_is_recognized() {
        assert_eq!(description(&[("traceparent", PARENT)]), "valid");
        assert_eq!(description(&[]), "missing");
        assert_eq!(description(&[("tenant", "acme")]), "missing");
        assert_eq!(description(&[("traceparent", "00-7-7-01")]), "malformed: length");
        assert_eq!(description(&[("traceparent", &PARENT.to_uppercase())]), "malformed: character");
        assert_eq!(description(&[("traceparent", PARENT), ("traceparent", PARENT)]), "duplicated: equal");
        assert_eq!(description(&[("traceparent", PARENT), ("Traceparent", OTHER)]), "duplicated: conflicting");
        let b3 = ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
        assert_eq!(description(&[b3]), "foreign: b3");
        assert_eq!(description(&[("b3", "1-2-3")]), "foreign: b3, malformed");
        assert_eq!(description(&[("X-Datadog-Trace-Id", "7")]), "foreign: datadog");
        assert_eq!(description(&[b3, ("traceparent", PARENT)]), "valid", "the W3C header takes precedence");
        assert_eq!(description(&[b3, ("traceparent", "")]), "malformed: length");
    }

    #[test]
    fn smaller_defects_are_remarks() {
        assert_eq!(read(&[("traceparent", PARENT), ("tracestate", "a=1")]).remarks, Vec::<&str>::new());
        let carried = read(&[("Traceparent", PARENT), ("tracestate", "a=1,\u{7f}"), ("baggage", "a=1,=")]);
        assert_eq!(carried.state, State::Valid);
        let expected = ["tracestate malformed", "baggage with malformed members", "traceparent not in lower case"];
        assert_eq!(carried.remarks, expected);
        assert!(carried.span().is_some());
    }
}
