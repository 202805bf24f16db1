//! The document around the traces.

use std::fmt::Write as _;

use super::data::Details;
use super::section::Section;
use crate::verify::check::Finding;
use crate::verify::latency::HumanDuration;
use crate::verify::layout::Layout;
use crate::verify::markup::escaped;
use crate::verify::page::{Page, Remark};
use crate::verify::text::counted;
use crate::verify::trace::Trace;

/// The content security policy: the browser loads nothing, and runs only the script with this hash.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; \
                      script-src 'sha256-SCRIPT'";
const SCRIPT: &str = include_str!("page.js");
const SCRIPT_HASH: &str = include_str!("page.js.sha256");
const STYLE: &str = include_str!("page.css");
const HELP: &str = include_str!("help.html");
/// Maximum number of findings shown; of the others only the number is shown.
const MOST_FINDINGS: usize = 100;

#[derive(Debug)]
pub(super) struct Sheet<'p, 'a> {
    page: &'p Page<'a>,
    /// The trace itself, then the traces it is linked with.
    layout: Layout<'a>,
}

impl<'p, 'a> Sheet<'p, 'a> {
    pub(super) fn of(page: &'p Page<'a>) -> Self {
        let mut traces = vec![page.trace];
        let others = page.view.among.into_iter().flatten().filter(|other| other.id() != page.trace.id());
        traces.extend(others.filter(|other| link(page.trace, other) || link(other, page.trace)));
        Self { page, layout: Layout::of(&traces, &page.view) }
    }

    pub(super) fn write(&self) -> String {
        let (mut sections, mut details) = (String::new(), Details::default());
        for (position, laid) in self.layout.sections.iter().enumerate() {
            let section = Section { layout: &self.layout, laid, axis: laid.axis() };
            section.write(&mut sections, &mut details, position == 0);
        }
        let policy = POLICY.replace("SCRIPT", SCRIPT_HASH.trim());
        let title = escaped(self.title());
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
             content=\"width=device-width\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        );
        self.head(&mut html, &title);
        let _ = write!(
            html,
            "<main>\n{sections}</main>\n<aside id=\"details\" aria-label=\"Details\" tabindex=\"-1\"></aside>\n{HELP}\
             <script type=\"application/json\" id=\"data\">{}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
            details
        );
        html
    }

    fn title(&self) -> &'a str {
        self.page.title.or_else(|| self.page.trace.spans().first().map(|span| &*span.name)).unwrap_or("An empty trace")
    }

    fn head(&self, html: &mut String, title: &str) {
        let trace = self.page.trace;
        let _ = write!(html, "<header>\n<h1>{title}</h1>\n<p class=\"facts\">");
        let findings = self.page.view.report.map(|report| report.of(trace.id()));
        match findings {
            // The remarks state it.
            _ if !self.page.remarks.is_empty() => {}
            None => {}
            Some([]) => html.push_str("<b class=\"good\">✓ whole</b> "),
            Some(_) => html.push_str("<b class=\"bad\">✗ broken</b> "),
        }
        let _ = writeln!(
            html,
            "{} · {} · {} · trace <code>{}</code></p>",
            counted(trace.services().len(), "service"),
            counted(trace.spans().len(), "span"),
            HumanDuration(trace.duration()),
            trace.id()
        );
        self.page.remarks.iter().for_each(|remark| write_remark(html, remark));
        write_findings(html, findings.unwrap_or_default());
        html.push_str("<ul class=\"legend\" aria-label=\"Services\">");
        for (position, service) in self.layout.services.iter().enumerate() {
            let _ = write!(html, "<li><i class=\"c{}\"></i>{}</li>", position % 6, escaped(service));
        }
        html.push_str("<li><i class=\"wait\"></i>in the queue</li></ul>\n<div id=\"tools\"></div>\n</header>\n");
    }
}

fn write_remark(html: &mut String, remark: &Remark<'_>) {
    let lines: Vec<String> = remark.text.lines().map(escaped).collect();
    let class = if remark.good { "good" } else { "bad" };
    let _ = writeln!(html, "<p class=\"remark {class}\">{}</p>", lines.join("<br/>"));
}

fn write_findings(html: &mut String, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    html.push_str("<ul class=\"findings\">\n");
    for finding in findings.iter().take(MOST_FINDINGS) {
        let (kind, message) = (finding.kind.as_str(), escaped(&finding.message));
        let _ = writeln!(html, "<li><a href=\"#s-{}-{}\">{kind}</a> {message}</li>", finding.trace, finding.span);
    }
    if let Some(more) = findings.len().checked_sub(MOST_FINDINGS).filter(|more| *more > 0) {
        let _ = writeln!(html, "<li>and {} not shown</li>", counted(more, "more finding"));
    }
    html.push_str("</ul>\n");
}

/// Returns `true` if one trace links to the other.
fn link(from: &Trace, to: &Trace) -> bool {
    from.spans().iter().flat_map(|span| &span.links).any(|link| link.target.trace_id == to.id())
}
