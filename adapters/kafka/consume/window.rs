//! The bound of unsettled deliveries, and the thread that waits for room.

use std::sync::OnceLock;
use std::time::Duration;

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::thread::{self, Thread};

/// The number of unsettled deliveries of one subscription, and the thread that waits while there
/// are too many.
#[derive(Debug)]
pub(crate) struct Window {
    limit: usize,
    occupied: AtomicUsize,
    waiting: AtomicBool,
    waiter: OnceLock<Thread>,
}

impl Window {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, occupied: AtomicUsize::new(0), waiting: AtomicBool::new(false), waiter: OnceLock::new() }
    }

    /// Makes the current thread the one that waits and is woken. Called before it first looks for
    /// work, so that it misses no wake-up after a look.
    pub(crate) fn attend(&self) {
        self.waiter.get_or_init(thread::current);
    }

    /// Returns how many more messages may be taken.
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.occupied.load(Ordering::SeqCst))
    }

    /// Returns how many more messages may be taken from a partition that holds this many places, of
    /// so many partitions.
    ///
    /// Each may hold its equal share. While others are busy, a quarter of the window is left to
    /// those that hold less than that, so that one whose messages are not settled holds up no
    /// other. Not more: messages that wait for their next attempt may keep half of the window.
    pub(crate) fn quota(&self, held: usize, partitions: usize, are_others_busy: impl FnOnce() -> bool) -> usize {
        let (room, share) = (self.room(), (self.limit / partitions.max(1)).max(1));
        match share.checked_sub(held) {
            Some(left) if left > 0 => left.min(room),
            _ if are_others_busy() => room.saturating_sub(self.limit / 4),
            _ => room,
        }
    }

    /// Returns the maximum number of unsettled deliveries.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Waits until half of the window is free, or for `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        self.waiting.store(true, Ordering::SeqCst);
        if self.occupied.load(Ordering::SeqCst) > self.limit / 2 {
            thread::park_timeout(limit);
        }
        self.waiting.store(false, Ordering::SeqCst);
    }

    /// Waits until woken, or for `limit`.
    pub(crate) fn sleep(&self, limit: Duration) {
        thread::park_timeout(limit);
    }

    /// Ends the current wait, or the next one.
    pub(crate) fn wake(&self) {
        if let Some(waiter) = self.waiter.get() {
            waiter.unpark();
        }
    }

    /// Counts one more delivery.
    pub(crate) fn occupy(&self) {
        self.occupied.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts one delivery less.
    pub(crate) fn release(&self) {
        let left = self.occupied.fetch_sub(1, Ordering::SeqCst) - 1;
        if left <= self.limit / 2 && self.waiting.load(Ordering::SeqCst) {
            self.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    /// Starts a thread that waits for room in a full window; joining it returns how long it waited.
    fn waited_for(window: &Arc<Window>) -> thread::JoinHandle<Duration> {
        let waiting = Arc::clone(window);
        let waiter = thread::spawn(move || {
            waiting.attend();
            let begun = Instant::now();
            waiting.wait(Duration::from_secs(20));
            begun.elapsed()
        });
        while !window.waiting.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        waiter
    }

    #[test]
    fn settling_wakes_who_waits_for_room() {
        let window = Arc::new(Window::new(2));
        window.occupy();
        window.occupy();
        let waiter = waited_for(&window);
        window.release();
        assert!(waiter.join().unwrap() < Duration::from_secs(10));
    }

    #[test]
    fn a_quarter_of_the_window_is_left_to_partitions_below_their_share() {
        let window = Window::new(16);
        assert_eq!(
            [window.quota(0, 1, || false), window.quota(0, 4, || true), window.quota(3, 4, || true)],
            [16, 4, 1]
        );
        assert_eq!([window.quota(4, 4, || true), window.quota(4, 4, || false)], [12, 16]);
        (0..8).for_each(|_| window.occupy());
        assert_eq!([window.quota(4, 4, || true), window.quota(4, 4, || false), window.quota(1, 4, || true)], [4, 8, 3]);
        (0..7).for_each(|_| window.occupy());
        assert_eq!([window.quota(0, 4, || true), window.quota(0, 40, || true)], [1, 1]);
        window.occupy();
        assert_eq!([window.quota(0, 4, || true), window.quota(4, 4, || false)], [0, 0]);
        let window = Window::new(1);
        assert_eq!([window.quota(0, 6, || true), window.quota(0, 6, || false)], [1, 1]);
    }

    #[test]
    fn a_wake_before_the_sleep_counts() {
        let window = Window::new(2);
        window.attend();
        window.wake();
        let begun = Instant::now();
        window.sleep(Duration::from_secs(20));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
