//! Unsettled deliveries that wait in this process for their next attempt.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::waiting::Seat;
use crate::driver::DeliveryHandle;
use crate::message::Parts;
use crate::telemetry::{SubscriptionTelemetry, WaitingGauge, WaitingReason};

/// Delay of the first retry of a message that is processed without a policy. It doubles with each
/// attempt, up to the longest.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// A delivery that is still unsettled at the broker and will be due again.
#[derive(Debug)]
pub(crate) struct HeldDelivery {
    pub(crate) parts: Arc<Parts>,
    pub(crate) attempt: u32,
    pub(crate) handle: Box<dyn DeliveryHandle>,
    pub(crate) seat: Option<Seat>,
}

/// The deliveries of one subscription that wait, earliest due first.
///
/// Each of them is unsettled. The subscription's prefetch and its limit of waiting messages bound
/// their number.
#[derive(Debug)]
pub(crate) struct Held(Mutex<State>);

#[derive(Debug)]
struct State {
    waiting: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
    waker: Option<Waker>,
    closed: bool,
    gauge: WaitingGauge,
}

impl Held {
    pub(crate) fn new(telemetry: &Arc<SubscriptionTelemetry>) -> Self {
        let gauge = WaitingGauge::new(telemetry, WaitingReason::Retry);
        Self(Mutex::new(State { waiting: BinaryHeap::new(), sequence: 0, waker: None, closed: false, gauge }))
    }

    /// Keeps the delivery until `due`. Drops it unsettled if the subscription has ended, so that
    /// the broker redelivers it.
    pub(crate) fn hold(&self, delivery: HeldDelivery, due: Instant) {
        let mut state = self.0.lock();
        if state.closed {
            return;
        }
        state.sequence += 1;
        let order = (due, state.sequence);
        state.waiting.push(Reverse(Entry { order, delivery }));
        let waker = state.waker.take();
        state.tell();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Returns the delivery that is due now, or else the time of the next one. Wakes `cx` when an
    /// earlier one is added.
    pub(crate) fn next_due(&self, cx: &Context<'_>) -> Result<HeldDelivery, Option<Instant>> {
        let mut state = self.0.lock();
        // Those of another consumer are let go of, and not only when they are due: it waits for
        // them.
        state.waiting.retain(|Reverse(entry)| entry.delivery.parts.tenure.may_begin());
        let next = state.waiting.peek().map(|Reverse(entry)| entry.order.0);
        let popped = if next.is_some_and(|due| due <= Instant::now()) { state.waiting.pop() } else { None };
        state.tell();
        match popped {
            Some(Reverse(entry)) => Ok(entry.delivery),
            None => {
                if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    state.waker = Some(cx.waker().clone());
                }
                Err(next)
            }
        }
    }

    /// Drops the held deliveries and accepts no more.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut state = self.0.lock();
            state.closed = true;
            let waiting = std::mem::take(&mut state.waiting);
            state.tell();
            waiting
        };
        drop(waiting);
    }
}

impl State {
    /// Measures how many deliveries wait.
    fn tell(&mut self) {
        self.gauge.tell(self.waiting.len());
    }
}

/// Returns the time that is `delay` from now, or a year from now if that is beyond the clock's
/// range.
pub(crate) fn due_after(delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(delay).unwrap_or(now + Duration::from_secs(31_536_000))
}

/// Returns the delay before the next attempt of a message that is processed without a policy.
pub(crate) fn back_off(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    (FIRST_BACK_OFF * (1 << doublings)).min(LONGEST_BACK_OFF)
}

#[derive(Debug)]
struct Entry {
    order: (Instant, u64),
    delivery: HeldDelivery,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}
