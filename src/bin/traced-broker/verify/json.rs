//! The result as JSON; durations are in seconds.

use serde_json::{Value, json};

use super::broken::SpanSummary;
use super::outcome::Outcome;
use crate::error::CliError;

pub(super) fn outcome(outcome: &Outcome) -> Value {
    let verdict = match (outcome.is_whole(), outcome.is_broken()) {
        (true, _) => "whole",
        (false, true) => "broken",
        (false, false) => "unchecked",
    };
    let trace = outcome.trace();
    let findings = outcome.findings().iter().map(|finding| {
        json!({ "kind": finding.kind.as_str(), "span_id": finding.span.to_string(), "message": finding.message })
    });
    json!({
        "verdict": verdict,
        "trace_id": outcome.requested().trace.to_string(),
        "spans": trace.map_or(0, |trace| trace.spans().len()),
        "services": trace.map(|trace| trace.services()).unwrap_or_default(),
        "duration": trace.map(|trace| trace.duration().as_secs_f64()),
        "findings": findings.collect::<Vec<_>>(),
        "expectations": expectations(outcome),
        "breaks": breaks(outcome),
        "hops": hops(outcome),
        "too_slow": outcome.slow().len(),
        "error": outcome.error().map(|error| error.to_string()),
    })
}

pub(super) fn unchecked(error: &CliError) -> Value {
    json!({ "verdict": "unchecked", "error": error.to_string() })
}

fn expectations(outcome: &Outcome) -> Value {
    let all = outcome.expectations().iter().map(
        |result| json!({ "expected": result.expectation.to_string(), "found": result.found, "met": result.is_met() }),
    );
    all.collect()
}

fn breaks(outcome: &Outcome) -> Value {
    let all = outcome.breaks().iter().map(|at| {
        let last_good = at.last_good.as_ref().map(span);
        let causes: Vec<&str> = at.causes.iter().map(|cause| cause.as_str()).collect();
        let stray = at.stray.as_ref().map(|stray| {
            let mut object = span(&stray.span);
            object["trace_id"] = stray.trace.to_string().into();
            object
        });
        json!({ "last_good": last_good, "missing": at.missing, "causes": causes, "stray": stray })
    });
    all.collect()
}

fn span(span: &SpanSummary) -> Value {
    json!({ "span_id": span.span.to_string(), "name": span.name, "service": span.service })
}

fn hops(outcome: &Outcome) -> Value {
    let all = outcome.hops().into_iter().map(|hop| {
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
