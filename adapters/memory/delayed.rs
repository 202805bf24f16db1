//! Messages of a topic that wait for their time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::driver::Outbound;

/// Further away than any program lives, and still within every clock's range.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The moment after that delay; a delay beyond the clock's range is as good as for ever.
pub(super) fn after(delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(delay.min(FAR)).unwrap_or(now)
}

/// The messages that no group may have yet, by their time, and those of one time in the order they came in.
///
/// Each takes one of the topic's places, which bounds their number.
#[derive(Debug, Default)]
pub(super) struct Delayed {
    waiting: BinaryHeap<Reverse<Entry>>,
    taken: u64,
}

impl Delayed {
    /// Keeps a message until that time.
    pub(super) fn push(&mut self, message: Outbound, until: SystemTime) {
        let delay = until.duration_since(SystemTime::now()).unwrap_or_default();
        self.waiting.push(Reverse(Entry { order: (until, self.taken), due: after(delay), message }));
        self.taken += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many messages there ever were.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// When the next message is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(entry)| entry.due)
    }

    /// Takes the next message if its time has come, with that time.
    pub(super) fn pop(&mut self) -> Option<(Outbound, SystemTime)> {
        if self.next_due()? > Instant::now() {
            return None;
        }
        self.waiting.pop().map(|Reverse(Entry { order: (until, _), message, .. })| (message, until))
    }
}

#[derive(Debug)]
struct Entry {
    /// The wall clock's time decides the order, so that it does not hang on when the two clocks were read.
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
