//! The messages that were sent back to the server and have not come again.
//!
//! Their return is known to the server's consumer alone. If an operator deletes it, the group is
//! made again at the first of them, so that none is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Maximum number of messages that are remembered. Beyond it the newest are forgotten, because the
/// oldest decides where a group begins.
const REMEMBERED: usize = 65_536;

/// Longest time for which a message is remembered.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The messages of one consumer, by their sequence in the stream.
#[derive(Debug, Default)]
pub(crate) struct SentBack(BTreeMap<u64, Instant>);

impl SentBack {
    /// Notes a message that comes again within this time, here or to another member.
    pub(crate) fn add(&mut self, sequence: u64, within: Duration) {
        self.0.insert(sequence, Instant::now() + within.min(LONGEST));
        if self.0.len() > REMEMBERED {
            self.0.pop_last();
        }
    }

    /// Forgets a message that has come again.
    pub(crate) fn came(&mut self, sequence: u64) {
        self.0.remove(&sequence);
    }

    /// Returns the first sequence that is still to come again. One whose time is up went to another
    /// member.
    pub(crate) fn first(&mut self) -> Option<u64> {
        let now = Instant::now();
        while let Some(first) = self.0.first_entry() {
            if *first.get() >= now {
                return Some(*first.key());
            }
            first.remove();
        }
        None
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_first_is_the_oldest_that_may_still_come() {
        let mut sent_back = SentBack::default();
        assert_eq!(sent_back.first(), None);
        for (sequence, within) in [(5, SECOND), (7, 3 * SECOND), (9, Duration::MAX)] {
            sent_back.add(sequence, within);
        }
        assert_eq!(sent_back.first(), Some(5));
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(sent_back.first(), Some(7), "another member has the first");
        sent_back.came(7);
        assert_eq!(sent_back.first(), Some(9));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut sent_back = SentBack::default();
        for sequence in (0..REMEMBERED as u64 + 10).rev() {
            sent_back.add(sequence, SECOND);
        }
        assert_eq!((sent_back.0.len(), sent_back.first()), (REMEMBERED, Some(0)));
    }
}
