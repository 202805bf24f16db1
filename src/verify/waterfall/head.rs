//! What stands above and below the picture: the trace in a few words, and what is wrong with it.

use super::Waterfall;
use super::axis::Bar;
use super::line::{Glyphs, Line, Style};
use super::rows::{Body, Row};
use crate::verify::check::Finding;
use crate::verify::text::{counted, wrap};

/// Of more findings than this only the number is shown.
const MOST_FINDINGS: usize = 8;

/// The trace's id, and whether it is whole if that was checked.
pub(super) fn title(waterfall: &Waterfall<'_>, glyphs: &Glyphs, mut line: Line) -> Line {
    line.push(Style::Plain, "trace ");
    line.push(Style::Strong, &waterfall.trace.id().to_string());
    match waterfall.findings {
        None => {}
        Some([]) => line.push(Style::Good, &format!("  {} whole", glyphs.good)),
        Some(_) => line.push(Style::Bad, &format!("  {} broken", glyphs.bad)),
    }
    line
}

/// How many of what, how long, and how much of that was waiting in queues.
pub(super) fn summary(waterfall: &Waterfall<'_>, rows: &[Row<'_>], glyphs: &Glyphs, mut line: Line) -> Line {
    let trace = waterfall.trace;
    let errors = trace.spans().iter().filter(|span| span.is_error()).count();
    let dot = format!(" {} ", glyphs.dot);
    line.push(Style::Plain, &counted(trace.services().len(), "service"));
    line.push(Style::Plain, &format!("{dot}{}", counted(trace.spans().len(), "span")));
    if errors > 0 {
        line.push(Style::Plain, &dot);
        line.push(Style::Bad, &counted(errors, "error"));
    }
    line.push(Style::Plain, &format!("{dot}{}", glyphs.duration(trace.duration())));
    let queued = queued(waterfall, rows);
    if queued > 0 {
        let share = u128::from(queued) * 100 / trace.duration().as_nanos().max(1);
        let queued = glyphs.duration(std::time::Duration::from_nanos(queued));
        line.push(Style::Plain, &dot);
        line.push(Style::Wait, &format!("{queued} in queues ({share} %)"));
    }
    line
}

/// The findings in full, below everything else.
pub(super) fn findings(waterfall: &Waterfall<'_>, glyphs: &Glyphs, line: impl Fn() -> Line, lines: &mut Vec<Line>) {
    let findings = waterfall.findings.unwrap_or_default();
    for finding in findings.iter().take(MOST_FINDINGS) {
        lines.push(line());
        let mut head = line();
        head.push(Style::Bad, &format!("{} {}", glyphs.bad, finding.kind));
        head.push(Style::Faint, &format!(" {} span {}", glyphs.dot, finding.span));
        lines.push(head);
        lines.extend(sentence(finding, waterfall.width, glyphs, &line));
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

/// For how much of the trace's time at least one message was in a queue, in nanoseconds.
fn queued(waterfall: &Waterfall<'_>, rows: &[Row<'_>]) -> u64 {
    let (start, end) = (waterfall.trace.start(), waterfall.trace.end());
    let mut waits: Vec<(u64, u64)> = rows
        .iter()
        .filter_map(|row| match &row.body {
            Body::Wait(wait) if wait.kind == Bar::Queue => Some((wait.from.max(start), wait.to.min(end))),
            _ => None,
        })
        .collect();
    waits.sort_unstable();
    let (mut total, mut until) = (0, 0);
    for (from, to) in waits {
        total += to.saturating_sub(from.max(until));
        until = until.max(to);
    }
    total
}
