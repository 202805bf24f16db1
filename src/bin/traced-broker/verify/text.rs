//! The result as text.

use std::fmt::Write as _;

use traced_broker::verify::{HumanDuration, Waterfall};

use super::broken::Break;
use super::outcome::{Outcome, Slow};
use crate::output::{Terminal, printable};

/// Returns the picture and the remarks.
pub(super) fn outcome(outcome: &Outcome) -> String {
    let Some(trace) = outcome.trace() else { return String::new() };
    let terminal = Terminal::stdout();
    let mut picture = Waterfall::new(trace).within(outcome.traces()).width(terminal.width).colour(terminal.colour);
    if let Some(report) = outcome.report() {
        picture = picture.report(report);
    }
    let mut lines = vec![picture.to_string(), String::new()];
    lines.extend(remarks(outcome));
    lines.join("\n")
}

/// Returns the verdict and a paragraph for each defect.
pub(super) fn remarks(outcome: &Outcome) -> Vec<String> {
    let mut remarks = Vec::new();
    if outcome.is_whole() {
        remarks.push(whole(outcome));
    }
    remarks.extend(outcome.breaks().iter().map(broken));
    remarks.extend(outcome.slow().iter().map(|slow| {
        let (waited, max) = (HumanDuration(slow.waited), HumanDuration(slow.max));
        let Slow { process, topic, .. } = slow;
        printable(&format!("✗ too slow: the message of {process} waited {waited} in `{topic}`, more than {max}"))
    }));
    if outcome.is_broken() && outcome.breaks().is_empty() && outcome.slow().is_empty() {
        remarks.push("✗ broken: see the findings above".to_owned());
    }
    remarks
}

fn whole(outcome: &Outcome) -> String {
    let expected = match outcome.expectations().len() {
        0 => "no expectations were given".to_owned(),
        1 => "the expectation is met".to_owned(),
        many => format!("all {many} expectations are met"),
    };
    let longest = outcome.hops().iter().map(|hop| hop.queue).max();
    let waited = longest.map(|longest| format!("; no message waited longer than {}", HumanDuration(longest)));
    format!("✓ whole: every parent and link resolves; {expected}{}", waited.unwrap_or_default())
}

fn broken(at: &Break) -> String {
    let mut text = match &at.last_good {
        Some(last) => printable(&format!("✗ broken after {last}")),
        None => "✗ broken".to_owned(),
    };
    for missing in &at.missing {
        let _ = write!(text, "\n  missing: {}", printable(missing));
    }
    if let Some(stray) = &at.stray {
        let found = format!("{} began trace {}, probably for this message", stray.span, stray.trace);
        let _ = write!(text, "\n  instead: {}", printable(&found));
    }
    for (index, cause) in at.causes.iter().enumerate() {
        let _ = write!(text, "\n  {} {cause}", if index == 0 { "likely: " } else { "     or:" });
    }
    text
}
