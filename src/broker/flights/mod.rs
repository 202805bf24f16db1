//! The publishes in flight of one driver, and those that wait for a place.
//!
//! A place belongs to the confirmer that the driver holds, so it is free when the driver has
//! answered, and not when a caller stops waiting. Publishes without a place queue as messages. A
//! task passes them to the driver in the order of their first polls, so nothing depends on a caller
//! that polls.

mod drain;
mod flight;
mod overdue;
mod slot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use self::drain::Drain;
use self::overdue::Overdue;
use self::slot::{Clock, Slot};
use crate::driver::{Confirmer, Driver, Outbound, Place};
use crate::error::{Error, ErrorKind};
use crate::message::{Receipt, Topic};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::time::timeout;
use crate::sync::{Handle, Mutex, Notify};

pub(in crate::broker) use self::flight::Flight;
pub(in crate::broker) use self::slot::Answer;

/// Set once closing has begun.
const CLOSING: usize = 1;
/// Set while publishes wait for a place, or are being passed to the driver.
const QUEUED: usize = 2;
/// One publish in flight.
const ONE: usize = 4;

/// Maximum number of unused slots that are kept for further publishes.
const SPARE: usize = 1024;

/// The declaration of a topic, which closing waits for.
pub(in crate::broker) struct Declaring(Arc<Flights>);

impl Drop for Declaring {
    fn drop(&mut self) {
        self.0.queue.lock().declaring -= 1;
        self.0.idle.notify_waiters();
    }
}

/// The places in flight of one driver.
#[derive(Debug)]
pub(in crate::broker) struct Flights {
    /// The number of publishes in flight in units of [`ONE`], and two flags.
    state: AtomicUsize,
    limit: usize,
    queue: Mutex<Queue>,
    /// Notified when a place is freed while publishes wait, and when the last waiting one leaves.
    freed: Notify,
    /// Notified when the last publish in flight has ended while closing.
    idle: Notify,
    spare: Mutex<Vec<Arc<Slot>>>,
    overdue: Overdue,
}

/// The publishes that wait for a place, in the order of their first polls. Each belongs to a
/// future, and leaves with it.
#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<u64, Queued>,
    next: u64,
    /// `true` while a task passes them to the driver.
    is_drained: bool,
    /// The number of topics that are being declared.
    declaring: usize,
}

#[derive(Debug)]
struct Queued {
    topic: Topic,
    message: Outbound,
    slot: Arc<Slot>,
}

impl Flights {
    pub(in crate::broker) fn new(limit: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            overdue: Overdue::new(patience),
            state: AtomicUsize::new(0),
            limit: limit.min(usize::MAX / ONE - 1),
            queue: Mutex::default(),
            freed: Notify::new(),
            idle: Notify::new(),
            spare: Mutex::default(),
        })
    }

    /// Publishes a message: at once if there is a place and no other publish waits for one,
    /// otherwise behind those that wait. One that was `accepted` before closing began still goes
    /// out.
    pub(in crate::broker) fn begin<D: Driver>(
        self: &Arc<Self>,
        driver: &Arc<D>,
        topic: &Topic,
        message: Outbound,
        accepted: bool,
    ) -> Flight {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            if state & CLOSING != 0 && !accepted {
                return Flight::Refused(Some(closed()));
            }
            if state & QUEUED != 0 || state / ONE >= self.limit {
                return self.wait(driver, topic, message, accepted);
            }
            match self.state.compare_exchange_weak(state, state + ONE, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(changed) => state = changed,
            }
        }
        let slot = self.slot();
        self.overdue.watch(self, &slot);
        driver.publish(topic, message, Confirmer::to(Arc::clone(&slot) as Arc<dyn Place<Receipt>>));
        Flight::Waiting { slot: Some(slot), queued: None }
    }

    fn wait<D: Driver>(self: &Arc<Self>, driver: &Arc<D>, topic: &Topic, message: Outbound, accepted: bool) -> Flight {
        let slot = self.slot();
        let number = {
            let mut queue = self.queue.lock();
            // Closing may have begun meanwhile, and even ended: it waits for this flag.
            let join = |state| (accepted || state & CLOSING == 0).then_some(state | QUEUED);
            if self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, join).is_err() {
                return Flight::Refused(Some(closed()));
            }
            let number = queue.next;
            queue.next += 1;
            queue.waiting.insert(number, Queued { topic: topic.clone(), message, slot: Arc::clone(&slot) });
            number
        };
        self.drain(driver);
        Flight::Waiting { slot: Some(slot), queued: Some(number) }
    }

    /// Ensures that a task passes the waiting publishes on. Without a runtime, passes on as many as
    /// there are places for.
    fn drain<D: Driver>(self: &Arc<Self>, driver: &Arc<D>) {
        {
            let mut queue = self.queue.lock();
            if queue.is_drained {
                // A place may have been freed before this publish could be seen in the queue.
                self.freed.notify_one();
                return;
            }
            queue.is_drained = true;
        }
        let mut drain = Drain { flights: Arc::clone(self), is_over: false };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(drain.run(Arc::clone(driver)))),
            Err(_) => drain.pass(&**driver),
        }
    }

    /// Passes waiting publishes on if the task that did so is gone with its runtime.
    fn ensure_drained<D: Driver>(self: &Arc<Self>, driver: &Arc<D>) {
        if self.state.load(Ordering::Acquire) & QUEUED != 0 && !self.queue.lock().is_drained {
            self.drain(driver);
        }
    }

    /// Takes a place for the publish that has waited longest.
    fn next(&self) -> Option<Queued> {
        let mut queue = self.queue.lock();
        let mut first = queue.waiting.first_entry();
        let taken = first.is_some()
            && self
                .state
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                    (state / ONE < self.limit).then_some(state + ONE)
                })
                .is_ok();
        first.take().filter(|_| taken).map(|first| first.remove())
    }

    /// Ends the draining if no publish waits.
    fn is_done(&self) -> bool {
        let mut queue = self.queue.lock();
        if !queue.waiting.is_empty() {
            return false;
        }
        queue.is_drained = false;
        self.state.fetch_and(!QUEUED, Ordering::AcqRel);
        self.idle.notify_waiters();
        true
    }

    /// Takes a publish out of the queue. Returns `false` if the driver has it already.
    fn leave(&self, number: u64) -> bool {
        let mut queue = self.queue.lock();
        let left = queue.waiting.remove(&number).is_some();
        if left && queue.waiting.is_empty() {
            self.freed.notify_one();
        }
        left
    }

    fn overdue(&self) -> &Overdue {
        &self.overdue
    }

    /// Returns `true` if the driver has no publish.
    ///
    /// Written, not only read: a publish that begins either is seen here, or sees all that was
    /// written before this call. A plain read may pass such a write.
    fn is_idle(&self) -> bool {
        self.state.fetch_or(0, Ordering::AcqRel) < ONE
    }

    fn free(&self) {
        let before = self.state.fetch_sub(ONE, Ordering::AcqRel);
        if before & QUEUED != 0 {
            self.freed.notify_one();
            self.wake_waiting();
        }
        if before & CLOSING != 0 {
            self.idle.notify_waiters();
        }
    }

    /// Wakes the waiting publishes if no task passes them on, so that one of them does.
    fn wake_waiting(&self) {
        let wakers: Vec<Waker> = {
            let queue = self.queue.lock();
            let waiting = queue.waiting.values().filter(|_| !queue.is_drained);
            waiting.filter_map(|queued| queued.slot.state.lock().waker.clone()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn slot(self: &Arc<Self>) -> Arc<Slot> {
        let spare = self.spare.lock().pop();
        spare.unwrap_or_else(|| {
            Arc::new(Slot { flights: Arc::clone(self), state: Mutex::default(), clock: Clock::default() })
        })
    }

    /// Keeps a slot that is used no more, unless the driver still holds it.
    fn recycle(&self, slot: Arc<Slot>) {
        if Arc::strong_count(&slot) != 1 {
            return;
        }
        let mut spare = self.spare.lock();
        if spare.len() < SPARE {
            spare.push(slot);
        }
    }

    /// Counts the declaration of a topic, until the returned value is dropped. Closing waits for
    /// it. Returns `None` once closing has begun.
    pub(in crate::broker) fn declaring(self: &Arc<Self>) -> Option<Declaring> {
        let mut queue = self.queue.lock();
        if self.state.load(Ordering::Acquire) & CLOSING != 0 {
            return None;
        }
        queue.declaring += 1;
        Some(Declaring(Arc::clone(self)))
    }

    /// Returns `true` once closing has begun.
    pub(in crate::broker) fn is_closing(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSING != 0
    }

    /// Refuses new publishes, and waits until the accepted ones have ended, at most this long. The
    /// ones that still wait for a place then fail.
    pub(in crate::broker) async fn stop(&self, patience: Duration) {
        self.state.fetch_or(CLOSING, Ordering::AcqRel);
        let ended = async {
            loop {
                let idle = self.idle.notified();
                let declaring = self.queue.lock().declaring;
                if self.state.load(Ordering::Acquire) == CLOSING && declaring == 0 {
                    return;
                }
                idle.await;
            }
        };
        if timeout(patience, ended).await.is_err() {
            let waiting = std::mem::take(&mut self.queue.lock().waiting);
            for queued in waiting.into_values() {
                queued.slot.tell(Answer { result: Err(closed()), message: None, was_sent: false });
            }
            self.freed.notify_one();
        }
    }

    /// Breaks the circle of this and the slots that are kept.
    pub(in crate::broker) fn forget_spare(&self) {
        let spare = std::mem::take(&mut *self.spare.lock());
        drop(spare);
    }
}

impl Queued {
    fn send<D: Driver>(self, driver: &D) {
        self.slot.flights.overdue.watch(&self.slot.flights, &self.slot);
        driver.publish(&self.topic, self.message, Confirmer::to(self.slot));
    }
}

pub(in crate::broker) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the broker is closed")
}
