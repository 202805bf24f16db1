//! The time limit of publishes that the driver has.
//!
//! Most drivers keep the limit themselves, and know more about the outcome. This is for the others,
//! and for a client that hangs: the sender is told, and the place stays taken. A task looks at all
//! publishes in flight from time to time, because a timer for each would cost more than the rest of
//! its way through this layer.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Flights;
use super::slot::Slot;
use crate::error::{Error, ErrorKind};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Handle, Mutex, time};

/// Longest interval between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Shortest interval between two looks.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);
/// Longest time beyond the limit in which a driver may answer by itself.
const GRACE: Duration = Duration::from_secs(2);
/// Number of slots from which on the list is cleared of those that are gone.
const CLEARED_FROM: usize = 4096;

/// The slots of publishes that the driver has, or had.
#[derive(Debug)]
pub(super) struct Overdue {
    limit: Duration,
    look: Duration,
    /// The number of looks that a publish may see.
    looks: u64,
    /// The number of looks so far, from 1.
    now: AtomicU64,
    is_watched: AtomicBool,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Weak<Slot>>,
    /// The length at which the list is cleared next.
    cleared_at: usize,
}

impl Overdue {
    pub(super) fn new(limit: Duration) -> Self {
        let patience = limit.saturating_add((limit / 4).min(GRACE));
        let look = (limit / 4).clamp(SHORTEST_LOOK, LOOK);
        let looks = patience.as_nanos().div_ceil(look.as_nanos());
        Self {
            limit,
            look,
            looks: u64::try_from(looks).unwrap_or(u64::MAX),
            now: AtomicU64::new(1),
            is_watched: AtomicBool::new(false),
            slots: Mutex::default(),
        }
    }

    /// Notes that the driver is about to get a publish.
    pub(super) fn watch(&self, flights: &Arc<Flights>, slot: &Arc<Slot>) {
        slot.clock.since.store(self.now.load(Ordering::Relaxed), Ordering::Relaxed);
        if !slot.clock.is_listed.swap(true, Ordering::Relaxed) {
            self.slots.lock().add(slot);
        }
        if !self.is_watched.load(Ordering::Relaxed) && !self.is_watched.swap(true, Ordering::AcqRel) {
            let watch = Watch { flights: Arc::clone(flights), is_over: false };
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(watch.run());
            }
        }
    }

    fn look(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        let is_late = |slot: &Slot| {
            let since = slot.clock.since.load(Ordering::Relaxed);
            since != 0 && now.saturating_sub(since) > self.looks
        };
        let late: Vec<Arc<Slot>> = {
            let slots = self.slots.lock();
            slots.all.iter().filter_map(Weak::upgrade).filter(|slot| is_late(slot)).collect()
        };
        for slot in late {
            slot.clock.stop();
            slot.give_up(late_answer(self.limit));
        }
    }
}

impl Slots {
    fn add(&mut self, slot: &Arc<Slot>) {
        if self.all.len() >= self.cleared_at.max(CLEARED_FROM) {
            self.all.retain(|slot| slot.strong_count() > 0);
            self.cleared_at = 2 * self.all.len();
        }
        self.all.push(Arc::downgrade(slot));
    }
}

/// The task that looks, while publishes are in flight.
struct Watch {
    flights: Arc<Flights>,
    is_over: bool,
}

impl Watch {
    async fn run(mut self) {
        let flights = Arc::clone(&self.flights);
        let overdue = flights.overdue();
        loop {
            time::sleep(overdue.look).await;
            overdue.look();
            if !flights.is_idle() {
                continue;
            }
            overdue.is_watched.store(false, Ordering::Release);
            // A publish may have begun before it could see that nothing is watched.
            if flights.is_idle() || overdue.is_watched.swap(true, Ordering::AcqRel) {
                self.is_over = true;
                return;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_over {
            self.flights.overdue().is_watched.store(false, Ordering::Release);
        }
    }
}

fn late_answer(limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, "the broker did not confirm in time")
        .with_context("limit_ms", limit.as_millis())
        .with_unknown_outcome()
}
