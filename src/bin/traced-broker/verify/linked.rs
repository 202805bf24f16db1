//! The traces that the one in question links to: jobs, batches, and what crossed a trust boundary.

use std::collections::{BTreeSet, HashMap};

use traced_broker::verify::{Span, TraceId, Traces};

use super::backend::Backend;
use crate::trouble::Trouble;

/// The most traces that are followed; a batch links at most 128 messages unless its SDK is set otherwise.
const MOST: usize = 256;

/// Those that have been found so far.
#[derive(Debug, Default)]
pub(super) struct Linked(HashMap<TraceId, Vec<Span>>);

impl Linked {
    /// `traces` and what `id` among them links to, as far as the backend has it.
    pub(super) async fn follow(&mut self, backend: &Backend, traces: Traces, id: TraceId) -> Result<Traces, Trouble> {
        let Some(trace) = traces.get(id) else { return Ok(traces) };
        let targets = trace.spans().iter().flat_map(|span| &span.links).map(|link| link.target.trace_id);
        let wanted: BTreeSet<TraceId> = targets.filter(|target| *target != id && !target.is_zero()).collect();
        if wanted.is_empty() {
            return Ok(traces);
        }
        if wanted.len() > MOST {
            return Err(Trouble::new(format!(
                "the trace links to {} others, and no more than {MOST} are followed",
                wanted.len()
            )));
        }
        for target in wanted {
            if self.0.contains_key(&target) {
                continue;
            }
            if let Some(found) = backend.ask(target).await? {
                let spans = found.get(target).map(|trace| trace.spans().to_vec()).unwrap_or_default();
                self.0.insert(target, spans);
            }
        }
        Ok(trace.spans().iter().chain(self.0.values().flatten()).cloned().collect())
    }
}
