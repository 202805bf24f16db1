//! Requirements for a sampling tier: the traces that it has to keep, and the check of the kept
//! ones.

use std::collections::BTreeSet;
use std::time::Duration;

use traced_broker::verify::{Kind, Span, SpanId, Status};

use crate::chance::plausible;
use crate::tier::ByTrace;

/// Same value as in `deploy/collector/sampling.yaml`.
const SLOW: Duration = Duration::from_secs(2);
const BASELINE: f64 = 0.05;
/// Generous maximum time from the end of a span until a back end has it; exporters wait a fraction
/// of a second.
const EXPORT: Duration = Duration::from_millis(1500);
/// Maximum duration after the wait until a decision is made on a busy machine: the first span was
/// in flight, and the processor checks its traces once a second.
const DECIDED: Duration = Duration::from_secs(6);

/// The traces that were sent, by their expected fate.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    /// Traces with an error in time or a long duration: all are kept.
    pub(crate) notable: ByTrace,
    /// The other traces whose spans all arrived before the decision: some are kept.
    pub(crate) ordinary: ByTrace,
    /// Traces whose notable part certainly arrived after the decision. The few in between are in no
    /// group.
    pub(crate) late: ByTrace,
}

impl Sorted {
    /// Sorts the traces by when their spans ended.
    pub(crate) fn new(sent: &ByTrace, decision_wait: Duration) -> Self {
        let mut sorted = Self::default();
        for (id, spans) in sent {
            let known = known_after(spans);
            let part = if known > decision_wait + DECIDED {
                &mut sorted.late
            } else if known + EXPORT >= decision_wait {
                continue;
            } else if is_notable(spans) {
                &mut sorted.notable
            } else {
                &mut sorted.ordinary
            };
            part.insert(*id, spans.clone());
        }
        sorted
    }
}

/// Returns the time from a trace's first exported span to its last. A span is exported when it
/// ends.
pub(crate) fn known_after(spans: &[Span]) -> Duration {
    let ends = || spans.iter().map(|span| span.end);
    Duration::from_nanos(ends().max().unwrap() - ends().min().unwrap())
}

fn is_notable(spans: &[Span]) -> bool {
    let start = spans.iter().map(|span| span.start).min().unwrap();
    let end = spans.iter().map(|span| span.end).max().unwrap();
    // Allows for rounding at exactly two seconds.
    Duration::from_nanos(end - start) > SLOW + Duration::from_millis(1)
        || spans.iter().any(|span| matches!(span.status, Status::Error(_)))
}

/// Checks that every trace is wholly on one back end, and that each back end has its share of them.
pub(crate) fn check_each_on_one_back_end(sent: &ByTrace, received: &[ByTrace]) -> Result<(), String> {
    for (id, spans) in sent {
        let holders: Vec<usize> = (0..received.len()).filter(|index| received[*index].contains_key(id)).collect();
        let [holder] = holders[..] else { return Err(format!("trace {id} is on the back ends {holders:?}")) };
        if ids(&received[holder][id]) != ids(spans) {
            return Err(format!("trace {id} is not whole on its back end"));
        }
    }
    for (index, traces) in received.iter().enumerate() {
        // The ring has a hundred points for each back end, so the halves are far from equal.
        let share = traces.len() as f64 / sent.len() as f64;
        if !(0.2..0.8).contains(&share) {
            return Err(format!("back end {index} has {share:.2} of the traces"));
        }
    }
    Ok(())
}

/// Checks that every kept trace is whole, including the spans of its consumers.
pub(crate) fn check_whole(sent: &ByTrace, kept: &ByTrace) -> Result<(), String> {
    for (id, spans) in kept {
        let Some(original) = sent.get(id) else { return Err(format!("trace {id} was never sent")) };
        if ids(spans) != ids(original) {
            let missing = original.iter().filter(|span| !spans.iter().any(|kept| kept.span_id == span.span_id));
            let names: Vec<&str> = missing.map(|span| &*span.name).collect();
            return Err(format!("trace {id} was kept without {names:?}"));
        }
        let sends = spans.iter().filter(|span| span.kind == Kind::Producer).count();
        let receives = spans.iter().filter(|span| span.kind == Kind::Consumer).count();
        if receives < sends {
            return Err(format!("trace {id} was kept with {sends} sends and {receives} deliveries"));
        }
    }
    Ok(())
}

/// Checks that all these traces are kept.
pub(crate) fn check_all_kept(wanted: &ByTrace, kept: &ByTrace) -> Result<(), String> {
    let lost: Vec<_> = wanted.keys().filter(|id| !kept.contains_key(id)).collect();
    match lost.first() {
        Some(first) => Err(format!("{} of {} are not kept, the first is {first}", lost.len(), wanted.len())),
        None => Ok(()),
    }
}

/// Checks that the number of kept traces matches the baseline, with at most one false alarm in a
/// million runs.
pub(crate) fn check_baseline(traces: &ByTrace, kept: &ByTrace) -> Result<usize, String> {
    let count = traces.keys().filter(|id| kept.contains_key(id)).count();
    let allowed = plausible(traces.len(), BASELINE);
    if allowed.contains(&count) {
        Ok(count)
    } else {
        Err(format!("{count} of {} are kept, not {allowed:?}", traces.len()))
    }
}

fn ids(spans: &[Span]) -> BTreeSet<SpanId> {
    spans.iter().map(|span| span.span_id).collect()
}
