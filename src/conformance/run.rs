//! Running one case: a runtime of its own, a time limit, and panics contained.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::case::{Area, Case, Need};
use super::exported;
use super::failure::{Checked, Failure};
use super::harness::Harness;
use super::world::World;

/// How long closing connections and ending tasks may take after a case.
const CLEAN_UP: Duration = Duration::from_secs(15);

/// How a case ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// The broker does what is required.
    Passed,
    /// The broker cannot do it, for want of this, and says so as required; this is checked, not assumed.
    Unsupported(Need),
    /// The broker does not do what is required, or does not say that it cannot.
    Failed(Failure),
}

impl Outcome {
    /// The name in results: `passed`, `unsupported` or `failed`.
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

/// Runs a case and waits for its end, at most a few minutes. Panics of the adapter are failures.
///
/// Needs no runtime and must not be called within one.
pub fn run(case: &Case, harness: &Arc<dyn Harness>) -> Outcome {
    let (case, harness) = (*case, Arc::clone(harness));
    let runtime = match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Outcome::Failed(Failure::new(format!("a runtime for the case: {error}"))),
    };
    let limit = limit(&case);
    let outcome = runtime.block_on(async {
        // In a task, so that a case that blocks its thread can be given up.
        let task = tokio::spawn(perform(case, harness));
        match timeout(limit + 2 * CLEAN_UP, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Failed(Failure::new(format!("the case ended by itself: {error}"))),
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
        Area::Restart => 300,
        Area::Stress => 180,
        _ => 120,
    })
}

async fn perform(case: Case, harness: Arc<dyn Harness>) -> Outcome {
    let world = match World::new(harness, case.name).await {
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
        Ok(Err(panic)) => Err(Failure::new(format!("no panic: {}", words(&*panic)))),
        Err(_) => Err(Failure::new(format!("the case ends within {limit:?}"))),
    };
    // What a case does is one thing, how it shows in telemetry another: the tables hold for the spans of all cases.
    let checked = checked.and_then(|()| world.check_conventions());
    match (checked, missing) {
        (Err(failure), Some(need)) => {
            Outcome::Failed(failure.during(&format!("without the capability {need:?} it must be refused")))
        }
        (Err(failure), None) => Outcome::Failed(failure),
        (Ok(()), Some(need)) => Outcome::Unsupported(need),
        (Ok(()), None) => Outcome::Passed,
    }
}

/// The case itself; where it is about traces, also what its spans look like to whoever they are exported to.
async fn perform_check(case: Case, world: &World) -> Checked {
    (case.check)(world).await?;
    if case.area == Area::Trace { exported::check(world).await } else { Ok(()) }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it said nothing")
}
