//! The result for programs. Durations are seconds.

use serde_json::{Value, json};

use super::judge::Case;
use crate::trouble::Trouble;

pub(super) fn case(case: &Case) -> Value {
    let verdict = match (case.is_whole(), case.is_broken()) {
        (true, _) => "whole",
        (false, true) => "broken",
        (false, false) => "unchecked",
    };
    let trace = case.trace();
    let findings = case.findings().iter().map(|finding| {
        json!({ "kind": finding.kind.as_str(), "span_id": finding.span.to_string(), "message": finding.message })
    });
    json!({
        "verdict": verdict,
        "trace_id": case.asked().trace.to_string(),
        "spans": trace.map_or(0, |trace| trace.spans().len()),
        "services": trace.map(|trace| trace.services()).unwrap_or_default(),
        "duration": trace.map(|trace| trace.duration().as_secs_f64()),
        "findings": findings.collect::<Vec<_>>(),
        "expectations": expectations(case),
        "breaks": breaks(case),
        "hops": hops(case),
        "too_slow": case.slow().len(),
        "error": case.trouble().map(|trouble| trouble.to_string()),
    })
}

pub(super) fn unchecked(trouble: &Trouble) -> Value {
    json!({ "verdict": "unchecked", "error": trouble.to_string() })
}

fn expectations(case: &Case) -> Value {
    let all = case
        .expectations()
        .iter()
        .map(|met| json!({ "expected": met.expectation.to_string(), "found": met.found, "met": met.is_met() }));
    all.collect()
}

fn breaks(case: &Case) -> Value {
    let all = case.breaks().iter().map(|at| {
        let last_good = at
            .last_good
            .as_ref()
            .map(|place| json!({ "span_id": place.span.to_string(), "name": place.name, "service": place.service }));
        let causes: Vec<&str> = at.causes.iter().map(|cause| cause.as_str()).collect();
        let stray = at.stray.as_ref().map(|stray| {
            let place = &stray.place;
            let trace = stray.trace.to_string();
            json!({ "trace_id": trace, "span_id": place.span.to_string(), "name": place.name, "service": place.service })
        });
        json!({ "last_good": last_good, "missing": at.missing, "causes": causes, "stray": stray })
    });
    all.collect()
}

fn hops(case: &Case) -> Value {
    let all = case.hops().into_iter().map(|hop| {
        json!({
            "topic": hop.topic(),
            "from": hop.send.map(|send| &*send.service),
            "to": &*hop.process.service,
            "attempt": hop.attempt,
            "queue_duration": hop.queue.as_secs_f64(),
            "measured": hop.measured,
        })
    });
    all.collect()
}
