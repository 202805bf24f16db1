//! Runs the kit on a faulty driver and compares which cases fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use traced_broker::adapters::memory::Memory;
use traced_broker::conformance::{Case, Harness, Outcome, breaks, cases, run};
use traced_broker::driver::Driver;
use traced_broker::{Error, ErrorKind, Result};

use crate::driver::{Faulty, Shared};
use crate::fault::Fault;

/// Number of cases that run at a time: most of them wait most of the time.
const AT_A_TIME: usize = 16;

/// Runs all cases on a faulty driver; those named must fail, all others must pass.
pub(crate) fn check(fault: Fault, expected: &[&str]) {
    check_all(Arc::new(FaultyHarness::new(fault)), expected, &format!("{fault:?}"));
}

/// Runs all cases; those named must fail, all others must pass.
pub(crate) fn check_all(harness: Arc<dyn Harness>, expected: &[&str], fault: &str) {
    compare(&failures(harness, cases().iter().collect()), expected, fault);
}

/// Runs the cases about broken traces; those named must fail, all others must pass.
///
/// Only the cases' own checks count. The semantic conventions, which are checked on the spans of
/// every case, also detect some of the faults.
pub(crate) fn check_traces(harness: Arc<dyn Harness>, expected: &[&str], fault: &str) {
    let about_traces = |case: &&Case| breaks().iter().any(|one| one.is_checked_by(case.name()));
    let mut failed = failures(harness, cases().iter().filter(about_traces).collect());
    failed.retain(|_, failure| !failure.starts_with("the conventions of telemetry"));
    compare(&failed, expected, fault);
}

fn compare(failed: &BTreeMap<String, String>, expected: &[&str], fault: &str) {
    for (case, failure) in failed {
        eprintln!("{case}: {failure}");
    }
    assert_eq!(failed.keys().collect::<Vec<_>>(), expected, "the cases that fail with the fault {fault}");
}

/// Returns the cases that fail, and their reasons.
fn failures(harness: Arc<dyn Harness>, cases: Vec<&Case>) -> BTreeMap<String, String> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Outcome::Failed(failure) = run(case, &harness) {
                        failed.lock().insert(case.to_string(), failure.to_string());
                    }
                }
            });
        }
    });
    failed.into_inner()
}

struct FaultyHarness {
    fault: Fault,
    url: String,
    shared: Arc<Shared>,
    /// Keeps the broker alive.
    _anchor: Memory,
}

impl FaultyHarness {
    fn new(fault: Fault) -> Self {
        let url = format!("memory://{fault:?}");
        let _anchor = Memory::connect(&url.parse().unwrap()).unwrap();
        Self { fault, url, shared: Arc::default(), _anchor }
    }

    fn faulty(&self, secret: &str) -> Result<Arc<dyn Driver>> {
        let memory = || Memory::connect(&self.url.parse()?).map(Arc::new);
        Ok(Arc::new(Faulty::new(self.fault, memory()?, memory()?, Arc::clone(&self.shared), secret)))
    }
}

#[async_trait]
impl Harness for FaultyHarness {
    fn name(&self) -> &str {
        "faulty"
    }

    async fn connect(&self) -> Result<Arc<dyn Driver>> {
        self.faulty("none")
    }

    async fn connect_with_secret(&self, secret: &str) -> Result<Arc<dyn Driver>> {
        if self.fault == Fault::ShowsTheSecretInErrors {
            let message = format!("cannot log in with the password {secret}");
            return Err(Error::new(ErrorKind::Unauthenticated, message));
        }
        self.faulty(secret)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn many(&self) -> usize {
        2_000
    }
}
