//! The spans that both sides exported, and the checks of them.

use traced_broker::verify::{FindingKind, Span, Traces, Waterfall, check};

use crate::program::Header;

/// The spans of one test.
pub(crate) struct Evidence {
    traces: Traces,
    /// The suffix of the topics' names.
    number: String,
}

impl Evidence {
    pub(crate) fn new(traces: Traces, number: &str) -> Self {
        Self { traces, number: format!("-{number}") }
    }

    /// Returns the service's only span with this name; topics are given by their plain name.
    #[track_caller]
    pub(crate) fn span(&self, service: &str, name: &str) -> &Span {
        let found: Vec<&Span> =
            self.spans().filter(|span| *span.service == *service && self.plain(&span.name) == name).collect();
        assert_eq!(found.len(), 1, "spans `{name}` of {service}\n{}", self.picture());
        found[0]
    }

    /// Returns the parent of the span.
    pub(crate) fn parent(&self, span: &Span) -> Option<&Span> {
        self.traces.span(span.parent_reference()?)
    }

    /// Returns the spans from the root down to this one, as `service: name (kind)`.
    pub(crate) fn chain(&self, span: &Span) -> Vec<String> {
        let mut chain = self.parent(span).map(|parent| self.chain(parent)).unwrap_or_default();
        chain.push(format!("{}: {} ({})", span.service, self.plain(&span.name), span.kind.as_str()));
        chain
    }

    /// Returns the spans from the root down to this one that have a link to `target`.
    pub(crate) fn linking(&self, span: &Span, target: &Span) -> Vec<String> {
        let mut linking = self.parent(span).map(|parent| self.linking(parent, target)).unwrap_or_default();
        if span.links.iter().any(|link| link.target == target.reference()) {
            linking.push(self.plain(&span.name));
        }
        linking
    }

    /// Asserts that there are this many traces, and that `verify` reports exactly these findings.
    #[track_caller]
    pub(crate) fn check(&self, traces: usize, findings: &[FindingKind]) {
        let report = check(&self.traces);
        let names = |kinds: &mut dyn Iterator<Item = FindingKind>| {
            let mut names: Vec<&str> = kinds.map(FindingKind::as_str).collect();
            names.sort_unstable();
            names
        };
        let found = names(&mut report.findings().iter().map(|finding| finding.kind));
        assert_eq!(found, names(&mut findings.iter().copied()), "{report}\n{}", self.picture());
        assert_eq!(self.traces.len(), traces, "traces\n{}", self.picture());
    }

    /// Asserts that the trace headers, which are sorted, have the expected names and types, and the
    /// context of `sent` with the flags of its trace.
    #[track_caller]
    pub(crate) fn check_headers(&self, headers: &[Header], expected: &[(&str, &str)], sent: &Span, flags: &str) {
        let forms: Vec<(&str, &str)> = headers.iter().map(|each| (each.name.as_str(), each.form.as_str())).collect();
        assert_eq!(forms, expected, "{headers:?}");
        for header in headers {
            let value = match header.name.to_ascii_lowercase().as_str() {
                "traceparent" => format!("00-{}-{}-{flags}", sent.trace_id, sent.span_id),
                "baggage" => "tenant=blue".to_owned(),
                other => panic!("nobody sets {other}"),
            };
            assert_eq!(header.value, value, "{}\n{}", header.name, self.picture());
        }
    }

    fn spans(&self) -> impl Iterator<Item = &Span> {
        self.traces.iter().flat_map(|trace| trace.spans())
    }

    fn plain(&self, name: &str) -> String {
        name.replace(&self.number, "")
    }

    pub(crate) fn picture(&self) -> String {
        let report = check(&self.traces);
        self.traces.iter().map(|trace| Waterfall::new(trace).report(&report).to_string() + "\n").collect()
    }
}
