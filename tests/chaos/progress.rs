//! Progress on the terminal; lines where there is none.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use crate::case::{Case, Outcome};
use crate::recorder::Recorder;
use crate::table::verdict;

/// The progress of all cases.
#[derive(Debug)]
pub(crate) struct Progress {
    bars: MultiProgress,
    cases: usize,
    begun: AtomicUsize,
}

/// The progress of one case.
#[derive(Debug)]
pub(crate) struct Shown {
    bars: MultiProgress,
    bar: ProgressBar,
    counting: JoinHandle<()>,
}

impl Progress {
    pub(crate) fn new(cases: usize) -> Self {
        Self { bars: MultiProgress::new(), cases, begun: AtomicUsize::new(0) }
    }

    /// Shows a case that begins.
    pub(crate) fn begin(&self, case: &Case, recorder: &Recorder) -> Shown {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let bar = self.bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{prefix} {elapsed:>4} {spinner} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(format!("[{number}/{}] {} {}", self.cases, case.scenario, case.broker));
        bar.enable_steady_tick(Duration::from_millis(200));
        let (own, recorder) = (bar.clone(), recorder.clone());
        let counting = tokio::spawn(async move {
            loop {
                own.set_message(format!("{} events", recorder.len()));
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        Shown { bars: self.bars.clone(), bar, counting }
    }
}

impl Shown {
    /// Replaces the bar by a line with the verdict.
    pub(crate) fn end(self, outcome: &Outcome) {
        self.counting.abort();
        self.bar.finish_and_clear();
        let line = format!("{} {:.0} s: {}", self.bar.prefix(), outcome.took.as_secs_f64(), verdict(outcome));
        if std::io::stderr().is_terminal() {
            let _ = self.bars.println(line);
        } else {
            eprintln!("{line}");
        }
    }
}
