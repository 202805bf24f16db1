//! The result for people.

use std::fmt::Write as _;

use traced_broker::verify::{HumanDuration, Waterfall};

use super::diagnosis::Break;
use super::judge::Case;
use crate::screen::{Screen, printable};

/// The picture, and below it the judgement.
pub(super) fn case(case: &Case) -> String {
    let Some(trace) = case.trace() else { return String::new() };
    let screen = Screen::new();
    let mut picture = Waterfall::new(trace).within(case.traces()).width(screen.width).colour(screen.colour);
    if let Some(report) = case.report() {
        picture = picture.report(report);
    }
    let mut lines = vec![picture.to_string(), String::new()];
    lines.extend(remarks(case));
    lines.join("\n")
}

/// The judgement, a paragraph for each thing there is to say.
pub(super) fn remarks(case: &Case) -> Vec<String> {
    let mut remarks = Vec::new();
    if case.is_whole() {
        remarks.push(whole(case));
    }
    remarks.extend(case.breaks().iter().map(broken));
    remarks.extend(case.slow().iter().map(|slow| {
        let (waited, most) = (HumanDuration(slow.waited), HumanDuration(slow.most));
        let text =
            format!("✗ too slow: what {} handled waited {waited} in `{}`, more than {most}", slow.process, slow.topic);
        printable(&text)
    }));
    if case.is_broken() && case.breaks().is_empty() && case.slow().is_empty() {
        remarks.push("✗ broken, as told above".to_owned());
    }
    remarks
}

fn whole(case: &Case) -> String {
    let expected = match case.expectations().len() {
        0 => "nothing in particular was expected".to_owned(),
        1 => "the expectation is met".to_owned(),
        many => format!("all {many} expectations are met"),
    };
    let longest = case.hops().iter().map(|hop| hop.queue).max();
    let waited = longest.map(|longest| format!("; no message waited longer than {}", HumanDuration(longest)));
    format!("✓ whole: every parent and link resolves; {expected}{}", waited.unwrap_or_default())
}

fn broken(at: &Break) -> String {
    let mut text = match &at.last_good {
        Some(place) => printable(&format!("✗ broken after {place}")),
        None => "✗ broken".to_owned(),
    };
    for missing in &at.missing {
        let _ = write!(text, "\n  missing: {}", printable(missing));
    }
    if let Some(stray) = &at.stray {
        let found = format!("{} began trace {}, which may be of this message", stray.place, stray.trace);
        let _ = write!(text, "\n  instead: {}", printable(&found));
    }
    for (index, cause) in at.causes.iter().enumerate() {
        let _ = write!(text, "\n  {} {cause}", if index == 0 { "likely: " } else { "     or:" });
    }
    text
}
