//! Delayed messages of a topic.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime};

use crate::driver::Outbound;
use crate::sync::time::Instant;

/// A duration longer than any program runs, and still within every clock's range.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Returns the moment after this delay, of which at most [`FAR`] counts.
pub(super) fn after(delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(delay.min(FAR)).unwrap_or(now)
}

/// The messages that are not due, ordered by due time; messages with the same time keep the order
/// in which they were added.
///
/// Each takes a place in the topic, which bounds their number.
#[derive(Debug, Default)]
pub(super) struct Delayed {
    waiting: BinaryHeap<Reverse<Entry>>,
    taken: u64,
}

impl Delayed {
    /// Keeps a message until this time.
    pub(super) fn push(&mut self, message: Outbound, until: SystemTime) {
        let delay = until.duration_since(SystemTime::now()).unwrap_or_default();
        self.waiting.push(Reverse(Entry { order: (until, self.taken), due: after(delay), message }));
        self.taken += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the number of messages ever added.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Returns the time at which the next message is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(entry)| entry.due)
    }

    /// Takes the next message, with its due time, if it is due.
    pub(super) fn pop(&mut self) -> Option<(Outbound, SystemTime)> {
        if self.next_due()? > Instant::now() {
            return None;
        }
        self.waiting.pop().map(|Reverse(Entry { order: (until, _), message, .. })| (message, until))
    }
}

#[derive(Debug)]
struct Entry {
    /// Begins with the time of the wall clock, so that the order does not depend on when the two
    /// clocks were read.
    order: (SystemTime, u64),
    due: Instant,
    message: Outbound,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.cmp(&other.order)
    }
}
