//! The bound of what is unsettled, and the thread that waits for room in it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// How many deliveries of one subscription are unsettled, and the thread that waits while they are too many.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    occupied: AtomicUsize,
    waiting: AtomicBool,
    waiter: OnceLock<Thread>,
}

impl Window {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, occupied: AtomicUsize::new(0), waiting: AtomicBool::new(false), waiter: OnceLock::new() }
    }

    /// How many more may be taken.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.occupied.load(Ordering::SeqCst))
    }

    /// Whether nothing is unsettled.
    pub(super) fn is_free(&self) -> bool {
        self.occupied.load(Ordering::SeqCst) == 0
    }

    /// Waits until half of the window is free, or for `limit`. Only ever called by one thread.
    pub(super) fn wait(&self, limit: Duration) {
        self.waiter.get_or_init(thread::current);
        self.waiting.store(true, Ordering::SeqCst);
        if self.occupied.load(Ordering::SeqCst) > self.limit / 2 {
            thread::park_timeout(limit);
        }
        self.waiting.store(false, Ordering::SeqCst);
    }

    /// Waits until woken, or for `limit`. Only ever called by the thread that waits for room.
    pub(super) fn sleep(&self, limit: Duration) {
        self.waiter.get_or_init(thread::current);
        thread::park_timeout(limit);
    }

    /// Ends a wait, now or when it begins.
    pub(super) fn wake(&self) {
        if let Some(waiter) = self.waiter.get() {
            waiter.unpark();
        }
    }

    /// One more.
    pub(super) fn occupy(&self) {
        self.occupied.fetch_add(1, Ordering::SeqCst);
    }

    /// One less.
    pub(super) fn release(&self) {
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

    /// A full window, and a thread that waits for room in it; joining tells how long it waited.
    fn waited_for(window: &Arc<Window>) -> thread::JoinHandle<Duration> {
        let waiting = Arc::clone(window);
        let waiter = thread::spawn(move || {
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
    fn a_wake_before_the_sleep_counts() {
        let window = Window::new(2);
        window.sleep(Duration::from_millis(1));
        window.wake();
        let begun = Instant::now();
        window.sleep(Duration::from_secs(20));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
