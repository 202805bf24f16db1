//! Running one case: with its own runtime, a time limit, and contained panics.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::case::{Area, Case};
use super::case_context::CaseContext;
use super::exported;
use super::failure::{Checked, Failure};
use super::harness::Harness;
use super::requirement::Need;

/// Time allowed for closing connections and ending tasks after a case.
const CLEAN_UP: Duration = Duration::from_secs(15);

/// The outcome of a case.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// The broker meets the requirement.
    Passed,
    /// The broker lacks this capability and says so as required, which is checked, not assumed; or
    /// the harness lacks this optional part.
    Unsupported(Need),
    /// The broker does not meet the requirement, or does not say that it cannot.
    Failed(Failure),
}

impl Outcome {
    /// Returns the name in results: `passed`, `unsupported` or `failed`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Unsupported(_) => "unsupported",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => write!(f, "failed: {failure}"),
            Self::Unsupported(need) => write!(f, "unsupported: {}", need.as_str()),
            other => f.write_str(other.as_str()),
        }
    }
}

/// Runs a case to its end, which takes at most a few minutes. A panic of the adapter is a failure.
///
/// Needs no async runtime, and must not be called from within one.
pub fn run(case: &Case, harness: &Arc<dyn Harness>) -> Outcome {
    let (case, harness) = (*case, Arc::clone(harness));
    let runtime = match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Outcome::Failed(Failure::new(format!("a runtime is built for the case: {error}"))),
    };
    let limit = limit(&case);
    let outcome = runtime.block_on(async {
        // Spawned, so that a case that blocks its thread can be abandoned.
        let task = tokio::spawn(perform(case, harness));
        match timeout(limit + 2 * CLEAN_UP, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Failed(Failure::new(format!("the case does not end by itself: {error}"))),
            Err(_) => {
                Outcome::Failed(Failure::new(format!("the case ends within {limit:?}: a call blocks its thread")))
            }
        }
    });
    runtime.shutdown_timeout(CLEAN_UP);
    outcome
}

fn limit(case: &Case) -> Duration {
    Duration::from_secs(match case.area {
        Area::Restart | Area::Driver => 300,
        Area::Stress => 180,
        _ => 120,
    })
}

async fn perform(case: Case, harness: Arc<dyn Harness>) -> Outcome {
    let world = match CaseContext::new(harness, case.name).await {
        Ok(world) => world,
        Err(failure) => return Outcome::Failed(failure),
    };
    let missing = case.needs.iter().find(|need| !need.is_met(&world.capabilities)).copied();
    let limit = limit(&case);
    let checked = async {
        match missing {
            Some(need) => need.check_unsupported(&world).await,
            None => perform_check(case, &world).await,
        }
    };
    let checked = timeout(limit, AssertUnwindSafe(checked).catch_unwind()).await;
    world.clean_up().await;
    let checked: Checked = match checked {
        Ok(Ok(checked)) => checked,
        Ok(Err(panic)) => Err(Failure::new(format!("the case does not panic: {}", words(&*panic)))),
        Err(_) => Err(Failure::new(format!("the case ends within {limit:?}"))),
    };
    // The tables of the conventions apply to the telemetry of every case, whatever the case is
    // about.
    let checked = checked.and_then(|()| world.check_conventions());
    match (checked, missing) {
        (Err(failure), Some(need)) => {
            Outcome::Failed(failure.during(&format!("without the capability {need:?} it must be refused")))
        }
        (Err(failure), None) => Outcome::Failed(failure),
        (Ok(()), Some(need)) => Outcome::Unsupported(need),
        (Ok(()), None) => world.lacked().map_or(Outcome::Passed, Outcome::Unsupported),
    }
}

/// Runs the check of the case. A case about traces also checks its spans at the end of the
/// harness's export pipeline.
async fn perform_check(case: Case, world: &CaseContext) -> Checked {
    (case.check)(world).await?;
    if case.area == Area::Trace { exported::check(world).await } else { Ok(()) }
}

/// Returns the message of a panic.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
