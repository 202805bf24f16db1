//! The results as a table.

use std::time::Duration;

use crate::case::{Case, Outcome};
use crate::checker::Figures;
use crate::known::{Judgement, KNOWN, judge};

const HEADINGS: [&str; 13] = [
    "scenario",
    "broker",
    "seed",
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

/// Number of recoveries of which only the longest is shown.
const MANY: usize = 7;

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
    if outcomes.len() > 1 {
        rows.push(sums(outcomes));
    }
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
    let Case { scenario, broker, seed, .. } = outcome.case;
    let names = [scenario.to_string(), broker.to_string(), seed.to_string()];
    cells(names, &outcome.figures, &outcome.recoveries, outcome.took, verdict(outcome))
}

/// Returns the last row: all runs together.
fn sums(outcomes: &[Outcome]) -> [String; HEADINGS.len()] {
    let mut figures = Figures::default();
    outcomes.iter().for_each(|outcome| figures.add(&outcome.figures));
    let recoveries: Vec<_> = outcomes.iter().flat_map(|outcome| outcome.recoveries.iter().copied()).collect();
    let good = outcomes.iter().filter(|outcome| is_as_expected(outcome)).count();
    let verdict = format!("{good} of {} as expected", outcomes.len());
    let names = ["all".to_owned(), String::new(), String::new()];
    cells(names, &figures, &recoveries, outcomes.iter().map(|outcome| outcome.took).sum(), verdict)
}

fn cells(
    [scenario, broker, seed]: [String; 3],
    figures: &Figures,
    recoveries: &[Option<Duration>],
    took: Duration,
    verdict: String,
) -> [String; HEADINGS.len()] {
    [
        scenario,
        broker,
        seed,
        figures.attempted.to_string(),
        figures.confirmed.to_string(),
        format!("{} ({})", figures.unknown, figures.unknown_seen),
        figures.lost.to_string(),
        format!("{} of {}", figures.not_sent_seen, figures.not_sent),
        figures.crossed.to_string(),
        format!("{} / {}", figures.duplicates, figures.most_deliveries),
        seconds(recoveries),
        format!("{:.0}", took.as_secs_f64()),
        verdict,
    ]
}

/// Writes times of recovery; of many, only their number and the longest. A dash is one that the
/// next fault came before.
fn seconds(recoveries: &[Option<Duration>]) -> String {
    let measured = recoveries.iter().flatten();
    match (measured.clone().max(), recoveries.len()) {
        (_, 0) => "–".to_owned(),
        (Some(longest), MANY..) => {
            format!("at most {:.1} ({} of {})", longest.as_secs_f64(), measured.count(), recoveries.len())
        }
        _ => {
            let each = recoveries.iter().map(|time| time.map(|time| format!("{:.1}", time.as_secs_f64())));
            each.map(|text| text.unwrap_or("–".to_owned())).collect::<Vec<_>>().join(", ")
        }
    }
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
