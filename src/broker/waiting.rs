//! The deliveries that wait in this process, for another attempt or behind one of their key, and
//! their share of the subscription's prefetch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::driver::DeliveryHandle;
use crate::message::{Received, Subscription};

/// The account of the deliveries of one subscription that wait, or have waited, and are unsettled.
///
/// They keep their places in the driver's window until they occupy half of it. Those that come then
/// are set aside, up to a limit, so that other messages always have the other half.
#[derive(Debug)]
pub(crate) struct Waiting {
    topic: String,
    prefetch: usize,
    limit: usize,
    /// Those that keep their places.
    in_place: AtomicUsize,
    aside: AtomicUsize,
    /// The size of those that are set aside.
    bytes: AtomicUsize,
    has_warned: AtomicBool,
}

/// The part that a delivery has in the account, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    waiting: Arc<Waiting>,
    /// The size of the message, if it is set aside.
    aside: Option<usize>,
}

impl Waiting {
    pub(crate) fn new(subscription: &Subscription) -> Arc<Self> {
        Arc::new(Self {
            topic: subscription.topic().to_owned(),
            prefetch: subscription.prefetch_limit(),
            limit: subscription.waiting_limit(),
            in_place: AtomicUsize::new(0),
            aside: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            has_warned: AtomicBool::new(false),
        })
    }

    /// Takes a delivery into the account.
    pub(crate) fn seat(self: &Arc<Self>, message: &Received, handle: &dyn DeliveryHandle) -> Seat {
        let before = self.in_place.fetch_add(1, Ordering::Relaxed);
        let aside = if before < self.prefetch / 2 { None } else { self.set_aside(message, handle) };
        if before >= self.prefetch / 2 {
            self.warn_if_nearly_full();
        }
        Seat { waiting: Arc::clone(self), aside }
    }

    /// Returns `true` if a delivery could not be set aside, so that less than half of the window is
    /// left to others.
    pub(crate) fn is_full(&self) -> bool {
        self.in_place.load(Ordering::Relaxed) > self.prefetch / 2
    }

    /// Sets a delivery aside if the limits and the driver allow it; returns the size of the
    /// message.
    fn set_aside(&self, message: &Received, handle: &dyn DeliveryHandle) -> Option<usize> {
        let size = message.payload().len() + message.key().map_or(0, |key| key.len()) + message.headers().byte_len();
        let fits = self.aside.fetch_add(1, Ordering::Relaxed) < self.limit;
        let before = self.bytes.fetch_add(size, Ordering::Relaxed);
        if fits && before + size <= Subscription::MAX_WAITING_BYTES && handle.set_aside() {
            self.in_place.fetch_sub(1, Ordering::Relaxed);
            return Some(size);
        }
        self.take_back(size);
        None
    }

    fn take_back(&self, size: usize) {
        self.aside.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(size, Ordering::Relaxed);
    }

    /// Warns once at three quarters of a limit, and again after less than half of it was used.
    fn warn_if_nearly_full(&self) {
        let (waiting, part) = (self.total(), self.used());
        if part >= 0.75 && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                topic = self.topic,
                waiting,
                limit = self.limit,
                prefetch = self.prefetch,
                "many messages wait for another attempt, or behind one of their key; \
                 at the limit, the consumer takes no others until one of them is done"
            );
        }
    }

    fn total(&self) -> usize {
        self.in_place.load(Ordering::Relaxed) + self.aside.load(Ordering::Relaxed)
    }

    /// Returns the part, 0 to 1, of the limit that is nearest.
    fn used(&self) -> f64 {
        let part = |used: &AtomicUsize, limit: usize| used.load(Ordering::Relaxed) as f64 / limit.max(1) as f64;
        let aside = part(&self.aside, self.limit).max(part(&self.bytes, Subscription::MAX_WAITING_BYTES));
        // Half of the window fills before any is set aside.
        let in_place = part(&self.in_place, self.prefetch);
        if in_place >= 0.75 { in_place } else { aside }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        match self.aside {
            Some(size) => self.waiting.take_back(size),
            None => drop(self.waiting.in_place.fetch_sub(1, Ordering::Relaxed)),
        }
        if self.waiting.has_warned.load(Ordering::Relaxed) && self.waiting.used() < 0.5 {
            self.waiting.has_warned.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::driver::{AttributeValue, Confirmation, Disposition};
    use crate::message::Parts;

    /// The handle of a driver that sets aside whatever it is asked to.
    #[derive(Debug)]
    struct Willing;

    impl DeliveryHandle for Willing {
        fn settle(self: Box<Self>, _: Disposition) -> Confirmation<()> {
            Confirmation::ready(Ok(()))
        }

        fn set_aside(&self) -> bool {
            true
        }

        fn attributes(&self, _: &mut dyn FnMut(&'static str, AttributeValue)) {}
    }

    fn received(size: usize) -> Received {
        let parts = Parts { payload: Some(vec![0; size].into()), ..Parts::example() };
        Received { parts: Arc::new(parts), attempt: 1, queued: None, handed_out: Instant::now() }
    }

    #[test]
    fn what_is_set_aside_is_bounded_by_its_size() {
        const SIZE: usize = 16 * 1024 * 1024;
        let waiting = Waiting::new(&Subscription::new("orders").prefetch(4));
        let message = received(SIZE + 1);
        let mut seats: Vec<Seat> = (0..2 + 3).map(|_| waiting.seat(&message, &Willing)).collect();
        assert!(!waiting.is_full(), "48 MiB and three bytes are set aside");
        assert_eq!(seats.iter().filter_map(|seat| seat.aside).sum::<usize>(), 3 * (SIZE + 1));
        seats.push(waiting.seat(&message, &Willing));
        assert!(waiting.is_full(), "64 MiB and four bytes are too much");
        seats.pop();
        assert!(!waiting.is_full());
        seats.clear();
        assert_eq!((waiting.total(), waiting.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn it_warns_once_at_three_quarters_and_again_after_less_than_half() {
        let waiting = Waiting::new(&Subscription::new("orders").prefetch(2).waiting(8));
        let message = received(1);
        let has_warned = || waiting.has_warned.load(Ordering::Relaxed);
        let mut seats: Vec<Seat> = (0..1 + 5).map(|_| waiting.seat(&message, &Willing)).collect();
        assert!(!has_warned(), "five of eight are set aside");
        seats.push(waiting.seat(&message, &Willing));
        assert!(has_warned());
        seats.truncate(1 + 4);
        assert!(has_warned(), "half of them");
        seats.truncate(1 + 3);
        assert!(!has_warned());
    }
}
