//! The number of unsettled deliveries of a subscription, and the time to read more.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Maximum number of entries in one read: meanwhile the server does no other work, and
/// acknowledgements wait.
const MAX_READ: usize = 256;

/// Number of bytes that one read is to bring, about: more than a few messages, and little enough to
/// be kept several times in memory.
const READ_BYTES: usize = 8 * 1024 * 1024;

/// Number of entries in the first read, before their size is known.
const FIRST_READ: usize = 32;

/// A counter of entries that were read and are not settled, up to the subscription's prefetch.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    /// Entries that were read, and neither settled nor given back.
    unsettled: AtomicUsize,
    /// Those of them that are not delivered yet.
    waiting: AtomicUsize,
    /// Entries that are unsettled and were set aside; they are not among the others.
    aside: AtomicUsize,
    most_aside: usize,
    /// Maximum number of entries in the next read, by the size of those of the last one.
    most_read: AtomicUsize,
    changed: Notify,
}

impl Window {
    pub(super) fn new(limit: usize, most_aside: usize) -> Self {
        let (unsettled, waiting, aside) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let most_read = AtomicUsize::new(FIRST_READ);
        Self { limit, unsettled, waiting, aside, most_aside, most_read, changed: Notify::new() }
    }

    /// Returns the maximum number of unsettled entries.
    pub(super) fn most_unsettled(&self) -> usize {
        self.limit + self.most_aside
    }

    /// Returns the number of entries that may still be read.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.unsettled.load(Ordering::Acquire))
    }

    /// Returns the number of entries to read now. It is 0 while entries wait to be delivered and
    /// less than half of the window is free, because a few large reads cost far less than many
    /// small ones.
    pub(super) fn worth_reading(&self) -> usize {
        let room = self.room();
        let enough = room * 2 >= self.limit || self.waiting.load(Ordering::Acquire) == 0;
        if enough { room.min(self.most_read()) } else { 0 }
    }

    /// Returns the maximum number of entries to ask for at a time.
    pub(super) fn most_read(&self) -> usize {
        self.most_read.load(Ordering::Relaxed)
    }

    /// Records the size of entries that were read: the next ones are probably as large. The number
    /// of entries grows slowly, in case they are not.
    pub(super) fn measure(&self, entries: usize, bytes: usize) {
        let fit = READ_BYTES / (bytes / entries.max(1)).max(1);
        self.most_read.store(fit.clamp(1, (self.most_read() * 4).min(MAX_READ)), Ordering::Relaxed);
    }

    /// Records that a read brought more than there is room for.
    pub(super) fn read_too_much(&self) {
        self.most_read.store(1, Ordering::Relaxed);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.unsettled.load(Ordering::Acquire) == 0 && self.aside.load(Ordering::Acquire) == 0
    }

    /// Counts entries that were read.
    pub(super) fn take(&self, entries: usize) {
        self.unsettled.fetch_add(entries, Ordering::AcqRel);
        self.waiting.fetch_add(entries, Ordering::AcqRel);
    }

    /// Counts entries that were delivered.
    pub(super) fn hand_out(&self, entries: usize) {
        self.waiting.fetch_sub(entries, Ordering::AcqRel);
        self.announce();
    }

    /// Counts entries that were settled or given back.
    pub(super) fn release(&self, entries: usize) {
        self.unsettled.fetch_sub(entries, Ordering::AcqRel);
        self.announce();
    }

    /// Frees the place of an unsettled entry.
    pub(super) fn set_aside(&self) {
        self.aside.fetch_add(1, Ordering::AcqRel);
        self.release(1);
    }

    /// Counts an entry that was set aside, and is settled or given back.
    pub(super) fn release_aside(&self) {
        self.aside.fetch_sub(1, Ordering::AcqRel);
        self.announce();
    }

    /// Completes once it may be worth reading; one change is remembered while no task waits.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn announce(&self) {
        if self.worth_reading() > 0 {
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_when_half_is_free_or_nothing_waits() {
        let window = Window::new(10, 3);
        assert_eq!(window.worth_reading(), 10);
        window.take(10);
        assert_eq!((window.room(), window.worth_reading()), (0, 0));
        window.hand_out(4);
        window.release(4);
        assert_eq!((window.room(), window.worth_reading()), (4, 0), "six wait to be handed out");
        window.hand_out(1);
        window.release(1);
        assert_eq!(window.worth_reading(), 5, "half is free");
        window.take(5);
        window.hand_out(10);
        window.release(1);
        assert_eq!(window.worth_reading(), 1, "nothing waits");
        window.release(9);
        assert!(window.is_idle());
        window.take(10);
        window.hand_out(10);
        window.set_aside();
        assert_eq!((window.room(), window.most_unsettled()), (1, 13));
        window.release(9);
        assert!(!window.is_idle());
        window.release_aside();
        assert!(window.is_idle() && window.room() == 10);
    }

    #[test]
    fn reads_as_many_as_fit() {
        let window = Window::new(1000, 0);
        assert_eq!(window.worth_reading(), FIRST_READ);
        window.measure(32, 3200);
        assert_eq!(window.worth_reading(), 128);
        window.measure(100, 100);
        assert_eq!(window.worth_reading(), MAX_READ);
        window.measure(256, 256 * 1024 * 1024);
        assert_eq!(window.worth_reading(), 8);
        window.measure(1, usize::MAX);
        assert_eq!(window.worth_reading(), 1);
        window.measure(0, 0);
        window.read_too_much();
        assert_eq!(window.worth_reading(), 1);
    }

    #[tokio::test]
    async fn remembers_one_change() {
        let window = Window::new(1, 0);
        window.take(1);
        window.hand_out(1);
        window.release(1);
        window.changed().await;
    }
}
