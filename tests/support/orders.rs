//! Runs the order system as a separate program and checks its results.
//!
//! This module does not use the library: the evidence is the exit status, the output and the file
//! of spans.
#![expect(clippy::expect_used, reason = "a check that cannot be made fails")]

mod evidence;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) use evidence::{Evidence, Kind, Span};

/// Maximum duration of a run. It takes seconds; brokers that wait for vanished readers take longer.
const PATIENCE: Duration = Duration::from_secs(240);

/// Runs the orders of the repository over the broker at this URL. Checks that the program exits
/// with 0, and that the exported spans show the expected events of every order.
///
/// Blocks until the run is over. The program is built with the features of the calling test.
pub(crate) fn check_orders_on(url: &str) {
    let finished = Running::start(&["--broker", url]).wait();
    assert_eq!(finished.status.code(), Some(0), "on {url}:\n{}", finished.all());
    finished.check_output();
    Evidence::read(&finished.spans()).check();
}

/// Kills a run half-way, then checks that the next run is not confused by the remains.
pub(crate) fn check_orders_after_an_aborted_run_on(url: &str) {
    let mut running = Running::start(&["--broker", url]);
    running.wait_for_output("API at");
    thread::sleep(Duration::from_millis(400));
    running.child.kill().expect("it is our own child");
    running.wait();
    check_orders_on(url);
}

/// The running program.
pub(crate) struct Running {
    pub(crate) child: Child,
    folder: Arc<TempDir>,
}

/// The finished program.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    folder: Arc<TempDir>,
}

impl Running {
    /// Starts it with these arguments and a file for its spans.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let file = |name: &str| File::create(folder.path().join(name)).expect("a file in it");
        let child = Command::new(program())
            .args(arguments)
            .arg("--spans")
            .arg(folder.path().join("spans.jsonl"))
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("the program was just built");
        Self { child, folder }
    }

    /// Waits for the first line of standard output with this text, and returns it.
    pub(crate) fn wait_for_output(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = fs::read_to_string(self.folder.path().join("stdout")).expect("its output");
            // Only complete lines: the last one may still be written.
            if let Some(line) = output.split_inclusive('\n').find(|line| line.contains(text) && line.ends_with('\n')) {
                return line.trim_end().to_owned();
            }
            let ended = self.child.try_wait().expect("it is our own child");
            assert!(ended.is_none() && Instant::now() < deadline, "no `{text}` in its output:\n{output}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our own child") {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().expect("it is our own child");
                self.child.wait().expect("it was killed");
                panic!("still running after {PATIENCE:?}:\n{}", self.read("stdout") + &self.read("stderr"));
            }
            thread::sleep(Duration::from_millis(20));
        };
        let (stdout, stderr) = (self.read("stdout"), self.read("stderr"));
        Finished { status, stdout, stderr, folder: Arc::clone(&self.folder) }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).expect("its output")
    }
}

impl Finished {
    /// Returns the path of the file of spans.
    pub(crate) fn spans(&self) -> PathBuf {
        self.folder.path().join("spans.jsonl")
    }

    /// Returns all its output.
    pub(crate) fn all(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    /// Checks the output about the orders of the repository, without a terminal.
    fn check_output(&self) {
        assert!(!self.all().contains('\u{1b}'), "escape codes without a terminal:\n{}", self.all());
        for (name, number) in [
            ("accepted", evidence::ACCEPTED),
            ("refused", evidence::REFUSED),
            ("fulfilled", evidence::ACCEPTED - 1),
            ("retried", 2),
            ("dead-lettered", 1),
            ("unaccounted for", 0),
            // Each request is a trace, and so is the job.
            ("traces whole", evidence::ACCEPTED + evidence::REFUSED + 1),
            ("traces broken", 0),
        ] {
            assert_eq!(self.number(name), number, "{name}:\n{}", self.all());
        }
        for part in ["┊ in queue orders", "┊ retry of orders", "process orders attempt 3", "p99"] {
            assert!(self.stdout.contains(part), "no `{part}` in\n{}", self.stdout);
        }
        let widest = self.stdout.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80) || self.stdout.contains("spans are in"), "{widest:?} columns:\n{}", self.stdout);
    }

    /// Returns the number after this name in the summary.
    fn number(&self, name: &str) -> usize {
        let after = self.stdout.lines().find_map(|line| line.split_once(&format!("  {name} "))).map(|(_, rest)| rest);
        let word = after.and_then(|rest| rest.split_whitespace().next());
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no number for {name} in\n{}", self.stdout))
    }
}

impl Drop for Running {
    /// Stops the program if a test fails half-way.
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// Returns the path of the program, which is built if it is missing or older than its source.
///
/// Cargo builds no examples for a single test target, so a program in the build folder may be
/// stale.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| super::program::example("orders"))
}
