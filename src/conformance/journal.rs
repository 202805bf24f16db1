//! A record of the work of a case's handlers, in order.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::case_context::CaseContext;
use super::failure::Checked;

/// Returns the numbers below `count` as lines.
pub(super) fn up_to(count: usize) -> BTreeSet<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Lines of text that handlers write and cases read.
#[derive(Debug, Default)]
pub(super) struct Journal {
    lines: Mutex<Vec<String>>,
    written: Notify,
}

impl Journal {
    pub(super) fn write(&self, line: impl Into<String>) {
        self.lines.lock().push(line.into());
        self.written.notify_waiters();
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// Returns the lines without their order and repetitions.
    pub(super) fn set(&self) -> BTreeSet<String> {
        self.lines.lock().iter().cloned().collect()
    }

    /// Waits until `enough` accepts the lines, or the case's patience is over. In the latter case,
    /// the next check reports the missing lines.
    pub(super) async fn reaches(&self, case: &CaseContext, enough: impl Fn(&[String]) -> bool) {
        let reached = async {
            loop {
                let written = self.written.notified();
                if enough(&self.lines.lock()) {
                    return;
                }
                written.await;
            }
        };
        let _: Checked<()> = case.within("the handlers' work", reached).await;
    }

    /// Waits for a number of lines, like [`reaches`](Self::reaches).
    pub(super) async fn has(&self, case: &CaseContext, count: usize) {
        self.reaches(case, |lines| lines.len() >= count).await;
    }
}
