//! Deliveries that wait for their next attempt ahead of the other deliveries of their key.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::lanes::Lane;
use crate::broker::{Delivery, due_after};

/// The waiting deliveries, earliest due first. Each of them is unsettled; the subscription's
/// prefetch and its limit of waiting messages bound their number.
#[derive(Default)]
pub(super) struct Delayed {
    waiting: BTreeMap<(Instant, u64), (Delivery, Lane)>,
    sequence: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Delayed {
    pub(super) fn insert(&mut self, mut delivery: Delivery, lane: Lane, delay: Duration) {
        delivery.wait_here();
        self.sequence += 1;
        self.waiting.insert((due_after(delay), self.sequence), (delivery, lane));
    }

    /// Returns the next delivery that is due; wakes the task when there is one.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<(Delivery, Lane)> {
        loop {
            let Some(first) = self.waiting.first_entry() else { return Poll::Pending };
            let due = first.key().0;
            if due <= Instant::now() {
                return Poll::Ready(first.remove());
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Returns the number of waiting deliveries.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Removes and returns all waiting deliveries.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Delivery> {
        std::mem::take(&mut self.waiting).into_values().map(|(delivery, _)| delivery)
    }
}
