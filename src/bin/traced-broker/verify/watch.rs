//! Waiting for a trace to be complete.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::time::{Instant, sleep, timeout};

use super::backend::Backend;
use super::expectation::Demands;
use super::judge::Case;
use super::linked::Linked;
use super::request::Asked;
use crate::screen::printable;
use crate::trouble::Trouble;

/// How long an answer may take even when the time is up: the last one counts.
const LEAST_PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Asks for the trace until all that is expected is there and no more comes, or the time is up.
pub(super) async fn watch(backend: &Backend, asked: Asked, demands: Demands) -> Result<Case, Trouble> {
    let progress = Progress::new();
    let (start, mut linked, mut pause) = (Instant::now(), Linked::default(), FIRST_PAUSE);
    let mut latest: Option<(Case, Instant)> = None;
    let trouble = loop {
        let mut trouble = None;
        let spans = latest.as_ref().map_or(0, |(case, _)| spans(case));
        let patience = demands.deadline.saturating_sub(start.elapsed()).max(LEAST_PATIENCE);
        let looked = timeout(patience, look(backend, asked, &demands, &mut linked)).await;
        match looked.unwrap_or_else(|_| Err(Trouble::passing(format!("{backend} does not answer: no answer in time"))))
        {
            Ok(None) => {}
            Ok(Some(case)) => {
                let unchanged = latest.filter(|_| self::spans(&case) == spans).map(|(_, since)| since);
                latest = Some((case, unchanged.unwrap_or_else(Instant::now)));
            }
            Err(passing) if passing.is_passing() => trouble = Some(passing),
            Err(lasting) => return Err(lasting),
        }
        let mut next = pause;
        if let Some((case, since)) = latest.take_if(|(case, _)| trouble.is_none() && !case.may_heal()) {
            let quiet = since.elapsed();
            if quiet >= demands.settle {
                return Ok(case);
            }
            next = demands.settle - quiet;
            latest = Some((case, since));
        }
        let left = demands.deadline.saturating_sub(start.elapsed());
        if left.is_zero() {
            break trouble;
        }
        progress.tell(latest.as_ref().map(|(case, _)| case), trouble.as_ref());
        sleep(next.min(left)).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    };
    progress.end();
    match (latest, trouble) {
        (Some((mut case, _)), _) => {
            case.look_for_strays(backend).await;
            Ok(case)
        }
        (None, Some(trouble)) => Err(trouble),
        (None, None) => Err(missing(backend, asked, demands.deadline).await),
    }
}

async fn look(
    backend: &Backend,
    asked: Asked,
    demands: &Demands,
    linked: &mut Linked,
) -> Result<Option<Case>, Trouble> {
    let Some(traces) = backend.ask(asked.trace).await? else { return Ok(None) };
    let traces = linked.follow(backend, traces, asked.trace).await?;
    Ok(Case::of(asked, traces, demands))
}

fn spans(case: &Case) -> usize {
    case.traces().iter().map(|trace| trace.spans().len()).sum()
}

/// Why there may be no trace at all.
async fn missing(backend: &Backend, asked: Asked, deadline: Duration) -> Trouble {
    let id = asked.trace;
    if !backend.is_recognized().await {
        return Trouble::new(format!(
            "{backend} has no trace {id}, and does not answer as one: is this the address that it is queried at?"
        ));
    }
    let why = match asked.sampled {
        Some(false) => "the service says that it did not sample it",
        _ => {
            "it was sampled away, the exporters dropped it, it has not arrived yet (a longer --deadline helps), or it is \
             kept in another backend"
        }
    };
    Trouble::new(format!("{backend} has no trace {id} after {}: {why}", traced_broker::verify::HumanDuration(deadline)))
}

/// A line that says what is waited for; on a terminal only.
#[derive(Debug)]
struct Progress(ProgressBar);

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if std::io::stderr().is_terminal() {
            bar.enable_steady_tick(Duration::from_millis(120));
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_message("asking for the trace");
        Self(bar)
    }

    fn tell(&self, case: Option<&Case>, trouble: Option<&Trouble>) {
        let open =
            |case: &Case| case.expectations().iter().find(|met| !met.is_met()).map(|met| met.expectation.to_string());
        let what = match (trouble, case) {
            (Some(trouble), _) => trouble.to_string(),
            (None, None) => "waiting for the trace".to_owned(),
            (None, Some(case)) => {
                let open = open(case).unwrap_or_else(|| "the rest".to_owned());
                format!("{} spans, waiting for {open}", spans(case))
            }
        };
        self.0.set_message(printable(&what));
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
