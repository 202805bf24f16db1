//! The kit as a test target: every case a test with a name of its own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use parking_lot::{Mutex, RwLock};

use super::breaks::{Break, Keeper, breaks};
use super::case::{Area, Case};
use super::cases;
use super::harness::Harness;
use super::run::{Outcome, run};

/// Variable of the environment: how many times the whole suite runs at once, from 1 to 100.
pub const ROUNDS: &str = "TRACED_BROKER_CONFORMANCE_ROUNDS";

/// Variable of the environment: a folder for the results. Each harness gets a file `NAME.tsv` in it, with a line per case:
/// its name, `passed`, `unsupported` or `failed`, and what the broker cannot do where that is why, with tabulators in between. A file
/// `breaks` lists the [`breaks`](super::breaks()): the number, the words, and who keeps it where that is not the kit.
pub const RESULTS: &str = "TRACED_BROKER_CONFORMANCE_RESULTS";

/// How many cases of one round run at a time unless `--test-threads` says otherwise: most of them wait most of the time.
const AT_A_TIME: usize = 8;

/// Runs the kit as the `main` of a test target with `harness = false`; takes the arguments that test targets take, such as a
/// part of a name, `--skip`, `--exact`, `--list` and `--test-threads`.
///
/// The tests are called `harness::area::case`. The variables [`ROUNDS`] and [`RESULTS`] are read.
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
    let mut arguments = Arguments::from_args();
    let rounds = std::env::var(ROUNDS).ok().and_then(|text| text.parse().ok()).unwrap_or(1_usize).clamp(1, 100);
    arguments.test_threads.get_or_insert(AT_A_TIME * rounds.min(8));
    let mut trials = Vec::new();
    for harness in harnesses {
        // A list is no run: it leaves results alone.
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

/// The case as a test.
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

/// Runs a case beside others; one that takes all of the machine runs alone, so that no other's time runs out meanwhile.
fn run_in_turn(case: &Case, harness: &Arc<dyn Harness>) -> Outcome {
    static TURN: RwLock<()> = RwLock::new(());
    if case.area() == Area::Stress {
        let _alone = TURN.write();
        return run(case, harness);
    }
    let _beside = TURN.read();
    run(case, harness)
}

/// Fails a test in place of all, since there is nowhere else to say why.
fn report(arguments: &Arguments, error: io::Error) -> ExitCode {
    let words = format!("the folder in {RESULTS} cannot be written: {error}");
    let trial = Trial::test("results", move || Err(Failed::from(words)));
    libtest_mimic::run(&Arguments { filter: None, exact: false, ..arguments.clone() }, vec![trial]).exit_code()
}

/// The file of results of one harness.
struct Results(Mutex<File>);

impl Results {
    /// Opens the file, or none when nobody wants results. What an earlier run left is kept: a run may be made of several.
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

/// A line per break, for tables of results.
fn list_of_breaks() -> String {
    let line = |one: &Break| {
        let elsewhere = if let Keeper::Elsewhere(who) = one.keeper() { who } else { "" };
        format!("{one}\t{}\t{elsewhere}\n", one.words())
    };
    breaks().iter().map(line).collect()
}
