//! The lines above and below the drawing: a summary of the trace, and its findings.

use std::time::Duration;

use super::line::{Glyphs, Line, Style};
use crate::verify::check::Finding;
use crate::verify::latency::HumanDuration;
use crate::verify::layout::Section;
use crate::verify::text::{counted, wrap};

/// Maximum number of findings shown; of the others only the number is shown.
const MOST_FINDINGS: usize = 8;

/// Writes the trace's id, and whether it is whole if that was checked.
pub(super) fn title(section: &Section<'_>, glyphs: &Glyphs, mut line: Line) -> Line {
    line.push(Style::Plain, "trace ");
    line.push(Style::Strong, &section.trace.id().to_string());
    match section.findings {
        None => {}
        Some([]) => line.push(Style::Good, &format!("  {} whole", glyphs.good)),
        Some(_) => line.push(Style::Bad, &format!("  {} broken", glyphs.bad)),
    }
    line
}

/// Writes the numbers of services, spans and errors, the duration, and the part of it spent in
/// queues.
pub(super) fn summary(section: &Section<'_>, glyphs: &Glyphs, mut line: Line) -> Line {
    let trace = section.trace;
    let errors = trace.spans().iter().filter(|span| span.is_error()).count();
    let dot = format!(" {} ", glyphs.dot);
    line.push(Style::Plain, &counted(trace.services().len(), "service"));
    line.push(Style::Plain, &format!("{dot}{}", counted(trace.spans().len(), "span")));
    if errors > 0 {
        line.push(Style::Plain, &dot);
        line.push(Style::Bad, &counted(errors, "error"));
    }
    line.push(Style::Plain, &format!("{dot}{}", HumanDuration(trace.duration())));
    let queued = section.queued();
    if queued > 0 {
        let share = u128::from(queued) * 100 / trace.duration().as_nanos().max(1);
        let queued = HumanDuration(Duration::from_nanos(queued));
        line.push(Style::Plain, &dot);
        line.push(Style::Wait, &format!("{queued} in queues ({share} %)"));
    }
    line
}

/// Writes the findings in full, below everything else.
pub(super) fn findings(
    findings: &[Finding],
    width: usize,
    glyphs: &Glyphs,
    line: impl Fn() -> Line,
    lines: &mut Vec<Line>,
) {
    for finding in findings.iter().take(MOST_FINDINGS) {
        lines.push(line());
        let mut head = line();
        head.push(Style::Bad, &format!("{} {}", glyphs.bad, finding.kind));
        head.push(Style::Faint, &format!(" {} span {}", glyphs.dot, finding.span));
        lines.push(head);
        lines.extend(sentence(finding, width, glyphs, &line));
    }
    if findings.len() > MOST_FINDINGS {
        let mut more = line();
        more.push(Style::Bad, &format!("{} not shown", counted(findings.len() - MOST_FINDINGS, "more finding")));
        lines.extend([line(), more]);
    }
}

fn sentence(finding: &Finding, width: usize, glyphs: &Glyphs, line: impl Fn() -> Line) -> Vec<Line> {
    let parts = wrap(&glyphs.printable(&finding.message), width - 2, glyphs.ellipsis).into_iter();
    parts
        .map(|part| {
            let mut line = line();
            line.push(Style::Plain, &format!("  {part}"));
            line
        })
        .collect()
}
