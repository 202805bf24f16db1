//! The trace context that a message carries, and what is wrong with it.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use traced_broker::w3c::{self, BAGGAGE, Issues, TRACEPARENT, TRACESTATE};
use traced_broker::{Dialect, Headers};

/// Contexts of systems whose headers are known here and not read: a name that gives them away, and whose it is. Among them are those of
/// the dialects, for values that break their format.
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

/// What a message carries, in one word or two. The order is that of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// One `traceparent` as it should be.
    Valid,
    /// No context that is known here.
    Missing,
    /// A `traceparent` that breaks its format, and how.
    Malformed(&'static str),
    /// More than one `traceparent`, equal ones or not.
    Duplicated { conflicting: bool },
    /// None of the W3C's, but a dialect that this library reads.
    Dialect(Dialected),
    /// None of the W3C's, but one of another system that is not read here.
    Foreign(&'static str),
}

/// A dialect, in the order in which the library lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dialected(pub(crate) Dialect);

impl PartialOrd for Dialected {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Dialected {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

impl State {
    /// What kind it is, without the particulars.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::Duplicated { .. } => "duplicated",
            Self::Dialect(_) | Self::Foreign(_) => "foreign",
        }
    }

    /// The particulars, where there are any.
    pub(crate) const fn detail(self) -> Option<&'static str> {
        match self {
            Self::Valid | Self::Missing => None,
            Self::Malformed(reason) => Some(reason),
            Self::Duplicated { conflicting: true } => Some("conflicting"),
            Self::Duplicated { conflicting: false } => Some("equal"),
            Self::Dialect(Dialected(dialect)) => Some(dialect.as_str()),
            Self::Foreign(system) => Some(system),
        }
    }

    /// Kind and particulars.
    pub(crate) fn in_words(self) -> String {
        match self.detail() {
            Some(detail) => format!("{}: {}", self.kind(), detail.replace('_', " ")),
            None => self.kind().to_owned(),
        }
    }
}

/// The context of a message.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) state: State,
    pub(crate) context: Context,
    /// What is not as it should be beside that, in a few fixed words.
    pub(crate) remarks: Vec<&'static str>,
}

impl Carried {
    pub(crate) fn read(headers: &Headers, payload: &[u8]) -> Self {
        let all = [TRACEPARENT, TRACESTATE, BAGGAGE].map(|name| headers.get_all(name));
        let [parent, state, baggage] = all;
        let w3c::Extracted { context, issues, .. } = w3c::decode_all(parent, state, baggage, &Context::new());
        let remarks = remarks(headers, &issues);
        let parents = headers.get_all(TRACEPARENT).count();
        let state = match (parents, issues.traceparent) {
            (0, _) => return Self::elsewhere(headers, payload, context, remarks),
            (1, None) => State::Valid,
            (1, Some(reason)) => State::Malformed(reason.as_str()),
            (_, problem) => State::Duplicated { conflicting: problem == Some(w3c::Malformed::Conflicting) },
        };
        Self { state, context, remarks }
    }

    /// Of a message without `traceparent`.
    fn elsewhere(headers: &Headers, payload: &[u8], empty: Context, remarks: Vec<&'static str>) -> Self {
        let read = Dialect::ALL.into_iter().find_map(|dialect| Some((dialect, dialect.read(headers, Some(payload))?)));
        if let Some((dialect, context)) = read {
            return Self { state: State::Dialect(Dialected(dialect)), context, remarks };
        }
        let unread = UNREAD.iter().find(|(name, _)| headers.contains(name));
        let state = unread.map_or(State::Missing, |(_, system)| State::Foreign(system));
        Self { state, context: empty, remarks }
    }

    /// The span that made the message, if it can be told.
    pub(crate) fn span(&self) -> Option<SpanContext> {
        Some(self.context.span().span_context().clone()).filter(SpanContext::is_valid)
    }
}

fn remarks(headers: &Headers, issues: &Issues) -> Vec<&'static str> {
    let is_written_otherwise = |(name, _): (&str, &[u8])| name != TRACEPARENT && name.eq_ignore_ascii_case(TRACEPARENT);
    let checks = [
        (issues.traceparent.is_none() && issues.tracestate.is_some(), "tracestate malformed"),
        (issues.tracestate_dropped > 0, "tracestate with repeated keys"),
        (issues.baggage_dropped > 0, "baggage with malformed members"),
        (headers.iter().any(is_written_otherwise), "traceparent not in lower case"),
    ];
    checks.into_iter().filter(|(holds, _)| *holds).map(|(_, remark)| remark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const OTHER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01";

    fn read(headers: &[(&str, &str)]) -> Carried {
        Carried::read(&headers.iter().copied().collect(), b"{}")
    }

    fn words(headers: &[(&str, &str)]) -> String {
        read(headers).state.in_words()
    }

    #[test]
    fn each_kind_is_told_apart() {
        assert_eq!(words(&[("traceparent", PARENT)]), "valid");
        assert_eq!(words(&[]), "missing");
        assert_eq!(words(&[("tenant", "acme")]), "missing");
        assert_eq!(words(&[("traceparent", "00-7-7-01")]), "malformed: length");
        assert_eq!(words(&[("traceparent", &PARENT.to_uppercase())]), "malformed: character");
        assert_eq!(words(&[("traceparent", PARENT), ("traceparent", PARENT)]), "duplicated: equal");
        assert_eq!(words(&[("traceparent", PARENT), ("Traceparent", OTHER)]), "duplicated: conflicting");
        let b3 = ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
        assert_eq!(words(&[b3]), "foreign: b3");
        assert_eq!(words(&[("b3", "1-2-3")]), "foreign: b3, malformed");
        assert_eq!(words(&[("X-Datadog-Trace-Id", "7")]), "foreign: datadog");
        assert_eq!(words(&[b3, ("traceparent", PARENT)]), "valid", "the usual header comes first");
        assert_eq!(words(&[b3, ("traceparent", "")]), "malformed: length");
    }

    #[test]
    fn smaller_troubles_are_remarks() {
        assert_eq!(read(&[("traceparent", PARENT), ("tracestate", "a=1")]).remarks, Vec::<&str>::new());
        let carried = read(&[("Traceparent", PARENT), ("tracestate", "a=1,\u{7f}"), ("baggage", "a=1,=")]);
        assert_eq!(carried.state, State::Valid);
        let expected = ["tracestate malformed", "baggage with malformed members", "traceparent not in lower case"];
        assert_eq!(carried.remarks, expected);
        assert!(carried.span().is_some());
    }
}
