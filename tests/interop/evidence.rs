//! The spans that both sides exported, and what has to be true of them.

use traced_broker::verify::{FindingKind, Span, Traces, Waterfall, check};

use crate::program::Header;

/// The spans of one test.
pub(crate) struct Evidence {
    traces: Traces,
    /// What the names of topics end with.
    number: String,
}

impl Evidence {
    pub(crate) fn new(traces: Traces, number: &str) -> Self {
        Self { traces, number: format!("-{number}") }
    }

    /// The only span of a service whose name is this, where a topic has its plain name.
    #[track_caller]
    pub(crate) fn span(&self, service: &str, name: &str) -> &Span {
        let found: Vec<&Span> =
            self.spans().filter(|span| *span.service == *service && self.plain(&span.name) == name).collect();
        assert_eq!(found.len(), 1, "spans `{name}` of {service}\n{}", self.picture());
        found[0]
    }

    /// The span that it is a child of.
    pub(crate) fn parent(&self, span: &Span) -> Option<&Span> {
        self.traces.span(span.parent_reference()?)
    }

    /// From the root down to the span: `service: name (kind)`.
    pub(crate) fn chain(&self, span: &Span) -> Vec<String> {
        let mut chain = self.parent(span).map(|parent| self.chain(parent)).unwrap_or_default();
        chain.push(format!("{}: {} ({})", span.service, self.plain(&span.name), span.kind.as_str()));
        chain
    }

    /// The spans from the root down to this one which have a link to `target`.
    pub(crate) fn linking(&self, span: &Span, target: &Span) -> Vec<String> {
        let mut linking = self.parent(span).map(|parent| self.linking(parent, target)).unwrap_or_default();
        if span.links.iter().any(|link| link.target == target.reference()) {
            linking.push(self.plain(&span.name));
        }
        linking
    }

    /// There are so many traces, and `verify` finds this and nothing else.
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

    /// The headers of a trace, sorted, have the names and types that are expected, and the context of `sent` with the flags of its trace.
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
