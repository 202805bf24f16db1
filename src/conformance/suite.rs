//! The kit as a test target: every case is a separate, named test.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use parking_lot::{Condvar, Mutex, RwLock};

use super::breaks::{Break, Responsible, breaks};
use super::case::{Area, Case};
use super::cases;
use super::harness::Harness;
use super::process;
use super::requirement::Need;
use super::run::{Outcome, run};

/// Environment variable with the number of times that the whole suite runs concurrently, from 1 to
/// 100.
pub const ROUNDS: &str = "TRACED_BROKER_CONFORMANCE_ROUNDS";

/// Environment variable with the directory for the results. Each harness has a file `NAME.tsv`
/// there, with one line per case: its name, then `passed`, `unsupported` or `failed`, then the
/// missing capability in words if it is unsupported, separated by tabs. A file `breaks` lists the
/// [`breaks`](super::breaks()): the number, the description, and the responsible if that is not the
/// kit.
pub const RESULTS: &str = "TRACED_BROKER_CONFORMANCE_RESULTS";

/// Number of cases of one round that run at a time, unless `--test-threads` sets another. Most
/// cases spend most of their time waiting.
const AT_A_TIME: usize = 16;

/// Number of cases with a broker of their own that run at a time on each harness. Many servers at
/// once would start so slowly that cases time out.
const OWN_BROKERS: usize = 4;

/// Runs the kit as the `main` of a test target with `harness = false`. Accepts the arguments of
/// test targets, such as a part of a name, `--skip`, `--exact`, `--list` and `--test-threads`.
///
/// A program that a harness starts as [another process](super::Killable::other_process) must call
/// this too, with a harness of the same name: it then works on the broker instead, until it is
/// killed.
///
/// Tests are named `harness::area::case`. The environment variables [`ROUNDS`] and [`RESULTS`] are
/// read.
///
/// ```no_run
/// use std::process::ExitCode;
/// use std::sync::Arc;
/// use traced_broker::conformance::{self, Harness};
/// use traced_broker::{Result, adapters::memory::Memory, driver::Driver};
///
/// struct Embedded;
///
/// #[async_trait::async_trait]
/// impl Harness for Embedded {
///     fn name(&self) -> &str {
///         "memory"
///     }
///
///     async fn connect(&self) -> Result<Arc<dyn Driver>> {
///         Ok(Arc::new(Memory::connect(&"memory://conformance".parse()?)?))
///     }
/// }
///
/// fn main() -> ExitCode {
///     conformance::main(vec![Arc::new(Embedded)])
/// }
/// ```
pub fn main(harnesses: Vec<Arc<dyn Harness>>) -> ExitCode {
    if let Some(ended) = process::work_if_asked(&harnesses) {
        return ended;
    }
    let mut arguments = Arguments::from_args();
    let rounds = std::env::var(ROUNDS).ok().and_then(|text| text.parse().ok()).unwrap_or(1_usize).clamp(1, 100);
    arguments.test_threads.get_or_insert(AT_A_TIME * rounds.min(8));
    // Listing runs no tests, so it leaves the results alone.
    let tested = harnesses.into_iter().map(|harness| Tested::open(harness, !arguments.list));
    let tested = match tested.collect::<io::Result<Vec<_>>>() {
        Ok(tested) => tested,
        Err(error) => return report(&arguments, error),
    };
    let alone = Arc::new(RwLock::new(()));
    let mut trials = Vec::new();
    // Harness by harness within a case, so that a slow broker is busy from the start to the end.
    for case in cases() {
        for (round, tested) in (1..=rounds).flat_map(|round| tested.iter().map(move |tested| (round, tested))) {
            trials.push((Turn::of(case), trial(case, round, tested, &alone)));
        }
    }
    trials.sort_by_key(|(turn, _)| *turn);
    libtest_mimic::run(&arguments, trials.into_iter().map(|(_, trial)| trial).collect()).exit_code()
}

/// Creates the test of a case.
fn trial(case: &'static Case, round: usize, tested: &Arc<Tested>, alone: &Arc<RwLock<()>>) -> Trial {
    let (tested, alone) = (Arc::clone(tested), Arc::clone(alone));
    let again = if round > 1 { format!("::round_{round}") } else { String::new() };
    Trial::test(format!("{}::{case}{again}", tested.harness.name()), move || {
        let outcome = tested.run_in_turn(case, &alone);
        if let Some(results) = &tested.results {
            results.write(case, &outcome)?;
        }
        match outcome {
            Outcome::Passed | Outcome::Unsupported(_) => Ok(()),
            Outcome::Failed(failure) => {
                Err(Failed::from(format!("{case}\n  requires: {}\n  but: {failure}", case.requires())))
            }
        }
    })
}

/// A harness, its results, and its cases that run at this time.
struct Tested {
    harness: Arc<dyn Harness>,
    results: Option<Results>,
    own_broker: Places,
}

impl Tested {
    fn open(harness: Arc<dyn Harness>, with_results: bool) -> io::Result<Arc<Self>> {
        let results = if with_results { Results::open(harness.name())? } else { None };
        Ok(Arc::new(Self { harness, results, own_broker: Places::default() }))
    }

    /// Runs a case when it is its turn.
    fn run_in_turn(&self, case: &Case, alone: &RwLock<()>) -> Outcome {
        let turn = Turn::of(case);
        if turn == Turn::Alone {
            let _alone = alone.write();
            return run(case, &self.harness);
        }
        // The place first, so that a case that waits for one does not hold up a case that runs
        // alone.
        let _place = (turn == Turn::OwnBroker).then(|| self.own_broker.take());
        let _others = alone.read();
        run(case, &self.harness)
    }
}

/// The part of a run to which a case belongs. The parts begin in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Beside,
    /// A stress case takes the whole machine and would make others time out: it runs alone, once
    /// the short ones are over.
    Alone,
    /// The case kills a broker of its own, and mostly waits. It comes last, because the start of a
    /// server takes the time of cases beside it.
    OwnBroker,
}

impl Turn {
    fn of(case: &Case) -> Self {
        match case.area() {
            Area::Stress => Self::Alone,
            _ if case.needs().contains(&Need::Durable) => Self::OwnBroker,
            _ => Self::Beside,
        }
    }
}

/// Places for cases with a broker of their own.
#[derive(Default)]
struct Places {
    taken: Mutex<usize>,
    free: Condvar,
}

impl Places {
    fn take(&self) -> Place<'_> {
        let mut taken = self.taken.lock();
        self.free.wait_while(&mut taken, |taken| *taken >= OWN_BROKERS);
        *taken += 1;
        Place(self)
    }
}

struct Place<'a>(&'a Places);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock() -= 1;
        self.0.free.notify_one();
    }
}

/// Reports the error as one failed test in place of all, because there is no other place for it.
fn report(arguments: &Arguments, error: io::Error) -> ExitCode {
    let words = format!("the folder in {RESULTS} cannot be written: {error}");
    let trial = Trial::test("results", move || Err(Failed::from(words)));
    libtest_mimic::run(&Arguments { filter: None, exact: false, ..arguments.clone() }, vec![trial]).exit_code()
}

/// The results file of one harness.
struct Results(Mutex<File>);

impl Results {
    /// Opens the file, or returns `None` if no results are requested. Lines of an earlier run are
    /// kept, because a run may be split into several.
    fn open(harness: &str) -> io::Result<Option<Self>> {
        let Some(folder) = std::env::var_os(RESULTS).filter(|folder| !folder.is_empty()).map(PathBuf::from) else {
            return Ok(None);
        };
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("breaks"), list_of_breaks())?;
        let file = File::options().create(true).append(true).open(folder.join(format!("{harness}.tsv")))?;
        Ok(Some(Self(Mutex::new(file))))
    }

    fn write(&self, case: &Case, outcome: &Outcome) -> io::Result<()> {
        let reason = if let Outcome::Unsupported(need) = outcome { need.as_str() } else { "" };
        self.0.lock().write_all(format!("{case}\t{}\t{reason}\n", outcome.as_str()).as_bytes())
    }
}

/// Returns one line per break, for tables of results.
fn list_of_breaks() -> String {
    let line = |one: &Break| {
        let elsewhere = if let Responsible::Elsewhere(who) = one.responsible() { who } else { "" };
        format!("{one}\t{}\t{elsewhere}\n", one.words())
    };
    breaks().iter().map(line).collect()
}
