//! Messages that are held back until a commit has told of the assignments that they are from.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

use super::delivery::Item;
use super::notes::Notes;
use crate::driver::Confirmation;

/// Maximum time for which messages are held back. They are handed out then all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// The first messages of new assignments, and what was taken behind them.
#[derive(Default)]
pub(crate) struct Opening {
    batch: Vec<Item>,
    /// The commit that tells of all of them, and the time at which the first one was held back.
    commit: Option<(Confirmation<()>, Instant)>,
}

impl Opening {
    /// Passes a batch on, unless it is held back: a process that ends with the first message of an
    /// assignment, before a commit has told that it is open, would leave no trace.
    pub(crate) fn pass(&mut self, mut batch: Vec<Item>, notes: &Notes) -> Vec<Item> {
        let is_untold = batch.iter().flatten().any(|taken| taken.partition.is_untold());
        if is_untold {
            batch.iter().flatten().for_each(|taken| taken.partition.tell());
            let since = self.commit.take().map_or_else(Instant::now, |(_, since)| since);
            self.commit = Some((notes.await_commit(), since));
        }
        if let Some((commit, since)) = &mut self.commit {
            self.batch.append(&mut batch);
            let is_over = match commit.now_or_never() {
                Some(Ok(())) => true,
                // Repeated, unless the time is over.
                Some(Err(_)) => {
                    *commit = notes.await_commit();
                    false
                }
                None => false,
            };
            if !is_over && since.elapsed() < PATIENCE {
                return Vec::new();
            }
            self.commit = None;
            return std::mem::take(&mut self.batch);
        }
        batch
    }

    /// Returns `true` if messages are held back.
    pub(crate) fn is_waiting(&self) -> bool {
        self.commit.is_some()
    }
}
