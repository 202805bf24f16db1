//! The traces that the checked trace links to: of jobs, batches, and messages that crossed a trust
//! boundary.

use std::collections::{BTreeSet, HashMap};

use traced_broker::verify::{Span, TraceId, Traces};

use super::backend::Backend;
use crate::error::CliError;

/// Maximum number of linked traces; by default a span has at most 128 links.
const MAX_TRACES: usize = 256;

/// The spans of the linked traces found so far.
#[derive(Debug, Default)]
pub(super) struct LinkedTraces(HashMap<TraceId, Vec<Span>>);

impl LinkedTraces {
    /// Adds to `traces` the traces that `id` links to, if the backend has them.
    pub(super) async fn follow(&mut self, backend: &Backend, traces: Traces, id: TraceId) -> Result<Traces, CliError> {
        let Some(trace) = traces.get(id) else { return Ok(traces) };
        let targets = trace.spans().iter().flat_map(|span| &span.links).map(|link| link.target.trace_id);
        let wanted: BTreeSet<TraceId> = targets.filter(|target| *target != id && !target.is_zero()).collect();
        if wanted.is_empty() {
            return Ok(traces);
        }
        if wanted.len() > MAX_TRACES {
            return Err(CliError::new(format!(
                "the trace links to {} other traces, but at most {MAX_TRACES} are supported",
                wanted.len()
            )));
        }
        for target in wanted {
            if self.0.contains_key(&target) {
                continue;
            }
            if let Some(found) = backend.get_trace(target).await? {
                let spans = found.get(target).map(|trace| trace.spans().to_vec()).unwrap_or_default();
                self.0.insert(target, spans);
            }
        }
        Ok(trace.spans().iter().chain(self.0.values().flatten()).cloned().collect())
    }
}
