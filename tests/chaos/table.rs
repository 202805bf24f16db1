//! The results as a table.

use std::time::Duration;

use crate::case::Outcome;
use crate::known::{Judgement, KNOWN, judge};

const HEADINGS: [&str; 12] = [
    "scenario",
    "broker",
    "messages",
    "confirmed",
    "unknown (seen)",
    "lost",
    "NotSent seen",
    "crossed",
    "duplicates / most",
    "recovery s",
    "time s",
    "verdict",
];

/// Returns the verdict on a run.
pub(crate) fn judgement(outcome: &Outcome) -> Judgement<'static> {
    judge(KNOWN, outcome.case.scenario, outcome.case.broker, outcome.findings.clone())
}

/// Returns `true` if the run was made and went as it goes today.
pub(crate) fn is_as_expected(outcome: &Outcome) -> bool {
    outcome.failure.is_none() && judgement(outcome).is_as_expected()
}

/// Writes all runs as a table in Markdown.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(outcomes.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} ", width = *width));
        text.push_str(&format!("|{}|\n", cells.collect::<Vec<_>>().join("|")));
        if number == 0 {
            let lines = widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>();
            text.push_str(&format!("|{}|\n", lines.join("|")));
        }
    }
    text
}

fn row(outcome: &Outcome) -> [String; HEADINGS.len()] {
    let figures = &outcome.figures;
    let seconds = |time: &Option<Duration>| time.map_or("–".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
    let recoveries: Vec<String> = outcome.recoveries.iter().map(seconds).collect();
    [
        outcome.case.scenario.to_string(),
        outcome.case.broker.to_string(),
        figures.attempted.to_string(),
        figures.confirmed.to_string(),
        format!("{} ({})", figures.unknown, figures.unknown_seen),
        figures.lost.to_string(),
        format!("{} of {}", figures.not_sent_seen, figures.not_sent),
        figures.crossed.to_string(),
        format!("{} / {}", figures.duplicates, figures.most_deliveries),
        if recoveries.is_empty() { "–".to_owned() } else { recoveries.join(", ") },
        format!("{:.0}", outcome.took.as_secs_f64()),
        verdict(outcome),
    ]
}

/// Returns the verdict in a few words.
pub(crate) fn verdict(outcome: &Outcome) -> String {
    if let Some(failure) = &outcome.failure {
        let line = failure.lines().next().unwrap_or_default();
        return format!("FAILED: {line}");
    }
    let judgement = judgement(outcome);
    let mut words: Vec<String> = Vec::new();
    let mut broken: Vec<_> = judgement.unexpected.iter().map(|finding| finding.invariant).collect();
    broken.sort();
    for chunk in broken.chunk_by(|one, other| one == other) {
        words.push(format!("BROKEN {} ({})", chunk[0], chunk.len()));
    }
    words.extend(judgement.missing.iter().map(|known| format!("MENDED? {} {}", known.finding, known.invariant)));
    words.extend(
        judgement.known.iter().map(|(known, count)| format!("{} {} ({count})", known.finding, known.invariant)),
    );
    if words.is_empty() { "ok".to_owned() } else { words.join(", ") }
}
