//! What the handlers of a case did, in order.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::failure::Checked;
use super::world::World;

/// The numbers from 0 as lines.
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

    /// The lines without their order and repetitions.
    pub(super) fn set(&self) -> BTreeSet<String> {
        self.lines.lock().iter().cloned().collect()
    }

    /// Ends when `enough` of the lines are there, or the case's patience is over: what is missing shows in what is checked next.
    pub(super) async fn reaches(&self, world: &World, enough: impl Fn(&[String]) -> bool) {
        let reached = async {
            loop {
                let written = self.written.notified();
                if enough(&self.lines.lock()) {
                    return;
                }
                written.await;
            }
        };
        let _: Checked<()> = world.within("the handlers' work", reached).await;
    }

    /// As [`reaches`](Self::reaches), for a number of lines.
    pub(super) async fn has(&self, world: &World, count: usize) {
        self.reaches(world, |lines| lines.len() >= count).await;
    }
}
