//! What a sampling tier has to keep of the traces that were sent, and whether it did.

use std::collections::BTreeSet;
use std::time::Duration;

use traced_broker::verify::{Kind, Span, SpanId, Status};

use crate::chance::plausible;
use crate::tier::ByTrace;

/// As `deploy/collector/sampling.yaml` says.
const SLOW: Duration = Duration::from_secs(2);
const BASELINE: f64 = 0.05;
/// The longest from the end of a span until a back end has it, and that is long: exporters wait a fraction of a second.
const EXPORT: Duration = Duration::from_millis(1500);
/// How long after the wait a decision may be made on a busy machine: its first span was on the way, and the processor looks at its
/// traces each second.
const DECIDED: Duration = Duration::from_secs(6);

/// The traces that were sent, by what is to become of them.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    /// With an error in time or a long duration: all to be kept.
    pub(crate) notable: ByTrace,
    /// The others whose spans all came before the decision: some are kept.
    pub(crate) ordinary: ByTrace,
    /// Those whose notable part surely came after the decision. In between lie a few of which nobody can tell.
    pub(crate) late: ByTrace,
}

impl Sorted {
    /// Sorts by when their spans ended.
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

/// How long after its first exported span a trace was complete. A span is exported when it ends.
pub(crate) fn known_after(spans: &[Span]) -> Duration {
    let ends = || spans.iter().map(|span| span.end);
    Duration::from_nanos(ends().max().unwrap() - ends().min().unwrap())
}

fn is_notable(spans: &[Span]) -> bool {
    let start = spans.iter().map(|span| span.start).min().unwrap();
    let end = spans.iter().map(|span| span.end).max().unwrap();
    // Exactly two seconds are a matter of rounding.
    Duration::from_nanos(end - start) > SLOW + Duration::from_millis(1)
        || spans.iter().any(|span| matches!(span.status, Status::Error(_)))
}

/// Every trace is wholly on one back end, and each has its share of them.
pub(crate) fn check_each_on_one_back_end(sent: &ByTrace, received: &[ByTrace]) -> Result<(), String> {
    for (id, spans) in sent {
        let holders: Vec<usize> = (0..received.len()).filter(|index| received[*index].contains_key(id)).collect();
        let [holder] = holders[..] else { return Err(format!("trace {id} is on the back ends {holders:?}")) };
        if ids(&received[holder][id]) != ids(spans) {
            return Err(format!("trace {id} is not whole on its back end"));
        }
    }
    for (index, traces) in received.iter().enumerate() {
        // The ring is divided by a hundred points for each back end: by far not in halves.
        let share = traces.len() as f64 / sent.len() as f64;
        if !(0.2..0.8).contains(&share) {
            return Err(format!("back end {index} has {share:.2} of the traces"));
        }
    }
    Ok(())
}

/// Whatever is kept is whole, with the spans of its consumers.
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

/// All of these are kept.
pub(crate) fn check_all_kept(wanted: &ByTrace, kept: &ByTrace) -> Result<(), String> {
    let lost: Vec<_> = wanted.keys().filter(|id| !kept.contains_key(id)).collect();
    match lost.first() {
        Some(first) => Err(format!("{} of {} are not kept, the first is {first}", lost.len(), wanted.len())),
        None => Ok(()),
    }
}

/// As many of these are kept as the baseline allows, up to one false alarm in a million runs.
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
