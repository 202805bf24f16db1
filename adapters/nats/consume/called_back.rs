//! The order of messages that were on their way when a line was lost.
//!
//! They are sent back to the server, which hands them out again before newer ones, but in the
//! order in which they were sent back. If some are lost a second time, that is not their order in
//! the stream: the later ones were still at the server, and come first. So a message that comes
//! before an earlier one waits here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// Messages that were sent back, and those that wait for them, by their sequence in the stream.
#[derive(Debug)]
pub(crate) struct CalledBack<T> {
    /// The sequences that may still come. Those of other consumers of the stream are among them.
    missing: BTreeSet<u64>,
    /// Messages that came before one that is missing.
    kept: BTreeMap<u64, T>,
    /// The highest sequence that was ever handed out when messages were last sent back.
    last: u64,
    since: Instant,
}

impl<T> Default for CalledBack<T> {
    fn default() -> Self {
        Self { missing: BTreeSet::new(), kept: BTreeMap::new(), last: 0, since: Instant::now() }
    }
}

impl<T> CalledBack<T> {
    /// Notes that these messages were sent back, of all that were handed out up to `last`.
    pub(crate) fn add(&mut self, sequences: impl IntoIterator<Item = u64>, last: u64) {
        self.missing.extend(sequences);
        (self.last, self.since) = (last, Instant::now());
    }

    /// Returns the sequences that were sent back and have not come.
    pub(crate) fn missing(&self) -> impl Iterator<Item = u64> {
        self.missing.iter().copied()
    }

    /// Returns the first sequence that has not come.
    pub(crate) fn first(&self) -> Option<u64> {
        self.missing.first().copied()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Takes in a message, and returns those that have their turn now.
    pub(crate) fn came(&mut self, sequence: u64, message: T) -> Vec<T> {
        self.missing.remove(&sequence);
        // The server hands out what was sent back before anything new.
        if sequence > self.last {
            self.missing.clear();
        }
        // One that is handed out again has lost its first delivery, which is not to stay here.
        let earlier = self.kept.insert(sequence, message);
        earlier.into_iter().chain(self.take_ready()).collect()
    }

    /// Stops waiting, because the server has no more to hand out again, or the rest went to other
    /// members. Returns what waited.
    pub(crate) fn end(&mut self) -> Vec<T> {
        self.missing.clear();
        self.take_ready()
    }

    /// Stops waiting after this time: a message may have been deleted, or be with another member.
    pub(crate) fn end_after(&mut self, longest: Duration) -> Vec<T> {
        if self.is_waiting() && self.since.elapsed() > longest { self.end() } else { Vec::new() }
    }

    /// Returns the messages that wait, to change them in place.
    pub(crate) fn kept_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.kept.values_mut()
    }

    fn take_ready(&mut self) -> Vec<T> {
        let later = match self.missing.first() {
            Some(first) => self.kept.split_off(first),
            None => BTreeMap::new(),
        };
        std::mem::replace(&mut self.kept, later).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ones_wait_for_those_before_them() {
        let mut called_back = CalledBack::default();
        called_back.add([4, 5, 6, 7], 7);
        assert_eq!(called_back.came(6, 6), [0; 0]);
        assert_eq!(called_back.came(4, 4), [4]);
        assert_eq!(called_back.came(2, 2), [2], "one that is not among them, such as a retry");
        assert_eq!((called_back.first(), called_back.missing().count()), (Some(5), 2));
        assert_eq!(called_back.came(5, 5), [5, 6]);
        assert_eq!(called_back.came(7, 7), [7]);
        assert!(!called_back.is_waiting());
    }

    #[test]
    fn a_newer_one_shows_that_no_more_come() {
        let mut called_back = CalledBack::default();
        called_back.add([4, 5, 6], 6);
        assert_eq!(called_back.came(6, 6), [0; 0]);
        assert_eq!(called_back.came(9, 9), [6, 9]);
        called_back.add([10, 11], 11);
        assert_eq!(called_back.came(11, 11), [0; 0]);
        assert_eq!(called_back.end(), [11]);
        assert_eq!(called_back.first(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_message_waits_forever() {
        const LONG: Duration = Duration::from_secs(1);
        let mut called_back = CalledBack::default();
        called_back.add([4, 5], 5);
        assert_eq!(called_back.came(5, 5), [0; 0]);
        assert_eq!(called_back.end_after(LONG), [0; 0]);
        tokio::time::advance(LONG * 2).await;
        assert_eq!(called_back.end_after(LONG), [5]);
    }
}
