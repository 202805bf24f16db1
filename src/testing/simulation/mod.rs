//! Your services under thousands of seeds: each a different order of events, with lost connections,
//! unknown outcomes, killed processes and cancelled futures, in virtual time.
//!
//! A [`Simulation`] runs a scenario once for each seed, in a [`World`] of its own: an embedded
//! broker, a faulty network between it and the services, and a clock that jumps to the next event.
//! The consumer runtime, retries, dead letters and telemetry are those of production. A scenario
//! that fails names its seed, and a seed is a history that can be had again:
//!
//! ```
//! use std::time::Duration;
//! use traced_broker::testing::simulation::{Faults, Simulation, World};
//! use traced_broker::{BoxError, HandlerError, Message, Received, Subscription};
//! use traced_broker::{TracedBroker, TracedBrokerExt};
//!
//! async fn orders_are_shipped(world: World) -> Result<(), BoxError> {
//!     let (api, worker) = (world.broker("api"), world.broker("worker"));
//!     let ship = async |_order: Received| Ok::<_, HandlerError>(());
//!     let orders = Subscription::new("orders").group("workers");
//!     world.spawn("worker", async move {
//!         // A service that cannot subscribe at its start is started again.
//!         while worker.consume(orders.clone(), ship).run().await.is_err() {
//!             tokio::time::sleep(Duration::from_millis(100)).await;
//!         }
//!     });
//!     let order = api.publish("orders", Message::new("one pair of shoes"));
//!     let confirmed = world.capture().in_root_span("api", "POST /orders", order).await.is_ok();
//!     world.settled().await?; // no message is left unsettled, and no span open
//!     assert!(!confirmed || world.capture().trace("POST /orders").is_whole());
//!     Ok(())
//! }
//!
//! Simulation::new().seeds(0..100).faults(Faults::default()).run(orders_are_shipped);
//! ```
//!
//! A failure prints the seed, the faults that happened, the waterfall of the traces in the virtual
//! time of the seed, and the command that runs this seed alone.

mod faults;
mod feed;
mod handle;
mod link;
mod network;
mod session;
mod world;

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::captured::CapturedTrace;
use crate::error::BoxError;

pub use faults::Faults;
pub use world::World;

/// Environment variable with the one seed to run.
pub const SEED: &str = "TRACED_BROKER_SEED";

/// Maximum virtual time of a scenario.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Maximum number of traces that a failure shows.
const MOST_TRACES: usize = 3;

/// A scenario's runs under many seeds; see the [module](self).
#[derive(Debug, Clone)]
#[must_use = "a simulation does nothing until it is run"]
pub struct Simulation {
    seeds: Range<u64>,
    faults: Faults,
}

impl Simulation {
    /// Creates a simulation of the seeds 0 to 99, with the default faults.
    pub fn new() -> Self {
        Self { seeds: 0..100, faults: Faults::default() }
    }

    /// Sets the seeds.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// Sets the faults of the network.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Runs the scenario under every seed, on all cores, or under the one in the environment
    /// variable [`SEED`].
    ///
    /// # Panics
    /// If the scenario fails under a seed, with its [`Failure`].
    #[track_caller]
    pub fn run<F, R>(self, scenario: F)
    where
        F: Fn(World) -> R + Sync,
        R: Future<Output = Result<(), BoxError>>,
    {
        if let Some(failure) = self.first_failure(scenario) {
            panic!("{failure}");
        }
    }

    /// Runs the scenario as [`run`](Self::run) does, and returns the failure under the lowest seed
    /// that fails, if any does.
    pub fn first_failure<F, R>(self, scenario: F) -> Option<Failure>
    where
        F: Fn(World) -> R + Sync,
        R: Future<Output = Result<(), BoxError>>,
    {
        let given = std::env::var(SEED).ok().and_then(|seed| seed.parse::<u64>().ok());
        let seeds = given.map_or(self.seeds.clone(), |seed| seed..seed + 1);
        let (next, end) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
        let first: Mutex<Option<Failure>> = Mutex::default();
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(failure) = run_seed(seed, &self.faults, &scenario) {
                    // Higher seeds need not be run any more; lower ones are under way.
                    end.fetch_min(seed, Ordering::Relaxed);
                    let mut first = first.lock();
                    if first.as_ref().is_none_or(|first| first.seed > seed) {
                        *first = Some(failure);
                    }
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        first.into_inner()
    }
}

impl Default for Simulation {
    fn default() -> Self {
        Self::new()
    }
}

/// A scenario that failed under a seed.
#[derive(Debug)]
pub struct Failure {
    seed: u64,
    reason: String,
    happened: Vec<String>,
    traces: Vec<String>,
}

impl Failure {
    /// Returns the seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns the error of the scenario, or the message of its panic.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.reason)?;
        writeln!(f, "\nits faults:")?;
        self.happened.iter().try_for_each(|fault| writeln!(f, "  {fault}"))?;
        self.traces.iter().try_for_each(|trace| writeln!(f, "\n{trace}"))?;
        write!(f, "\nto run it again, set {SEED}={} for the command that ran this test", self.seed)
    }
}

impl std::error::Error for Failure {}

fn run_seed<F, R>(seed: u64, faults: &Faults, scenario: &F) -> Option<Failure>
where
    F: Fn(World) -> R,
    R: Future<Output = Result<(), BoxError>>,
{
    let failed = |reason: String, happened, traces| Some(Failure { seed, reason, happened, traces });
    let runtime = match Builder::new_current_thread().enable_time().start_paused(true).build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(format!("no runtime can be built: {error}"), Vec::new(), Vec::new()),
    };
    let entered = runtime.enter();
    let world = World::new(seed, faults.clone());
    drop(entered);
    let running = || runtime.block_on(async { timeout(LIMIT, scenario(world.clone())).await });
    let reason = match catch_unwind(AssertUnwindSafe(running)) {
        Ok(Ok(Ok(()))) => return None,
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => format!("the scenario does not end within {LIMIT:?} of its own time"),
        Err(panic) => words(&*panic).to_owned(),
    };
    failed(reason, world.happened(), pictures(&world))
}

/// Draws the broken traces, or the first traces if none is broken.
fn pictures(world: &World) -> Vec<String> {
    let all: Vec<CapturedTrace> = CapturedTrace::all(world.capture().traces()).collect();
    let broken = all.iter().filter(|trace| !trace.is_whole()).count();
    let shown = all.iter().filter(|trace| broken == 0 || !trace.is_whole());
    shown.take(MOST_TRACES).map(CapturedTrace::waterfall).collect()
}

/// Returns the message of a panic.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}
