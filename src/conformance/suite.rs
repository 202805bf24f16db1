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
const AT_A_TIME: usize = 8;

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
    let mut trials = Vec::new();
    for harness in harnesses {
        // Listing runs no tests, so it leaves the results alone.
        let results = if arguments.list { Ok(None) } else { Results::open(harness.name()) };
        let results = match results {
            Ok(results) => Arc::new(results),
            Err(error) => return report(&arguments, error),
        };
        for round in 1..=rounds {
            trials.extend(cases().iter().map(|case| trial(case, round, &harness, &results)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Creates the test of a case.
fn trial(case: &'static Case, round: usize, harness: &Arc<dyn Harness>, results: &Arc<Option<Results>>) -> Trial {
    let (harness, results) = (Arc::clone(harness), Arc::clone(results));
    let again = if round > 1 { format!("::round_{round}") } else { String::new() };
    Trial::test(format!("{}::{case}{again}", harness.name()), move || {
        let outcome = run_in_turn(case, &harness);
        if let Some(results) = &*results {
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

/// Number of cases with a broker of their own that run at a time. Many servers at once would start
/// so slowly that cases time out.
const OWN_BROKERS: usize = 2;

/// Places for cases with a broker of their own.
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

/// Runs a case concurrently with others. A stress case runs alone, because it takes the whole
/// machine and would make others time out.
fn run_in_turn(case: &Case, harness: &Arc<dyn Harness>) -> Outcome {
    static TURN: RwLock<()> = RwLock::new(());
    static BROKERS: Places = Places { taken: Mutex::new(0), free: Condvar::new() };
    // The place first, so that a case that waits for one does not hold up a case that runs alone.
    let _place = case.needs().contains(&Need::Durable).then(|| BROKERS.take());
    if case.area() == Area::Stress {
        let _alone = TURN.write();
        return run(case, harness);
    }
    let _beside = TURN.read();
    run(case, harness)
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
