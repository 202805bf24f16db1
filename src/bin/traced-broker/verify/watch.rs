//! Waiting until a trace is complete.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use traced_broker::verify::HumanDuration;

use super::backend::Backend;
use super::expectation::Requirements;
use super::linked::LinkedTraces;
use super::outcome::Outcome;
use super::request::RequestedTrace;
use crate::bar::Bar;
use crate::error::CliError;
use crate::output::printable;

/// Minimum timeout of a query, which the last one may need beyond the deadline.
const MIN_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// Queries the trace until all expectations are met and no new spans arrive, or until the deadline.
pub(super) async fn watch(
    backend: &Backend,
    requested: RequestedTrace,
    requirements: Requirements,
) -> Result<Outcome, CliError> {
    let bar = Bar::message("querying the trace");
    let (start, mut linked, mut pause) = (Instant::now(), LinkedTraces::default(), FIRST_PAUSE);
    let mut latest: Option<(Outcome, Instant)> = None;
    let error = loop {
        let mut error = None;
        let spans = latest.as_ref().map_or(0, |(outcome, _)| spans(outcome));
        let limit = requirements.deadline.saturating_sub(start.elapsed()).max(MIN_TIMEOUT);
        let queried = timeout(limit, query(backend, requested, &requirements, &mut linked)).await;
        match queried.unwrap_or_else(|_| Err(CliError::temporary(format!("{backend} does not respond in time")))) {
            Ok(None) => {}
            Ok(Some(outcome)) => {
                let unchanged = latest.filter(|_| self::spans(&outcome) == spans).map(|(_, since)| since);
                latest = Some((outcome, unchanged.unwrap_or_else(Instant::now)));
            }
            Err(temporary) if temporary.is_temporary() => error = Some(temporary),
            Err(permanent) => return Err(permanent),
        }
        let mut next = pause;
        if let Some((outcome, since)) = latest.take_if(|(outcome, _)| error.is_none() && !outcome.may_improve()) {
            let unchanged = since.elapsed();
            if unchanged >= requirements.settle {
                return Ok(outcome);
            }
            next = requirements.settle - unchanged;
            latest = Some((outcome, since));
        }
        let left = requirements.deadline.saturating_sub(start.elapsed());
        if left.is_zero() {
            break error;
        }
        bar.set_message(printable(&status(latest.as_ref().map(|(outcome, _)| outcome), error.as_ref())));
        sleep(next.min(left)).await;
        pause = (pause * 3 / 2).min(MAX_PAUSE);
    };
    match (latest, error) {
        (Some((mut outcome, _)), _) => {
            outcome.find_strays(backend).await;
            Ok(outcome)
        }
        (None, Some(error)) => Err(error),
        (None, None) => Err(missing(backend, requested, requirements.deadline).await),
    }
}

async fn query(
    backend: &Backend,
    requested: RequestedTrace,
    requirements: &Requirements,
    linked: &mut LinkedTraces,
) -> Result<Option<Outcome>, CliError> {
    let Some(traces) = backend.get_trace(requested.trace).await? else { return Ok(None) };
    let traces = linked.follow(backend, traces, requested.trace).await?;
    Ok(Outcome::new(requested, traces, requirements))
}

fn spans(outcome: &Outcome) -> usize {
    outcome.traces().iter().map(|trace| trace.spans().len()).sum()
}

/// Returns the error for a trace that is missing at the deadline.
async fn missing(backend: &Backend, requested: RequestedTrace, deadline: Duration) -> CliError {
    let id = requested.trace;
    if !backend.is_recognized().await {
        return CliError::new(format!(
            "{backend} has no trace {id}, and does not respond like this backend: is this its query address?"
        ));
    }
    let reason = match requested.sampled {
        Some(false) => "the service reports that it did not sample it",
        _ => {
            "it was sampled away, the exporters dropped it, it has not arrived yet (a longer --deadline helps), or it \
             is in another backend"
        }
    };
    CliError::new(format!("{backend} has no trace {id} after {}: {reason}", HumanDuration(deadline)))
}

/// Describes what the command waits for.
fn status(outcome: Option<&Outcome>, error: Option<&CliError>) -> String {
    match (error, outcome) {
        (Some(error), _) => error.to_string(),
        (None, None) => "waiting for the trace".to_owned(),
        (None, Some(outcome)) => {
            let unmet = outcome.expectations().iter().find(|result| !result.is_met());
            let awaited = unmet.map_or("further spans".to_owned(), |result| result.expectation.to_string());
            format!("{} spans, waiting for {awaited}", spans(outcome))
        }
    }
}
