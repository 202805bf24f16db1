//! Which message may be worked on: one at a time of each key, where order by key is asked for.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::delivery::Delivery;

/// The lane of a message: its key where order matters, else none.
pub(super) type Lane = Option<Bytes>;

/// The keys that are being worked on, each with the messages that wait behind it.
pub(super) struct Lanes {
    ordered: bool,
    busy: HashMap<Bytes, VecDeque<Delivery>>,
    waiting: usize,
    /// The highest number of messages that may wait.
    window: usize,
}

impl Lanes {
    pub(super) fn new(ordered: bool, window: usize) -> Self {
        Self { ordered, busy: HashMap::new(), waiting: 0, window }
    }

    /// Whether one more message may come in.
    ///
    /// At least once, the broker stops by itself when it has handed out as many; at most once, it does not.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < self.window
    }

    /// Lets a message in: returns it with its lane if it may be worked on, keeps it if another of its key is.
    pub(super) fn enter(&mut self, delivery: Delivery) -> Option<(Delivery, Lane)> {
        if !self.ordered {
            return Some((delivery, None));
        }
        let lane = delivery.message().key().cloned();
        match lane.as_ref().and_then(|key| self.busy.get_mut(key)) {
            Some(behind) => {
                behind.push_back(delivery);
                self.waiting += 1;
                None
            }
            None => Some((delivery, lane)),
        }
    }

    /// Keeps others of this lane waiting from now on.
    pub(super) fn occupy(&mut self, lane: &Lane) {
        if let Some(key) = lane {
            self.busy.entry(key.clone()).or_default();
        }
    }

    /// Ends the work on an occupied lane: returns the next message that waits in it, with the lane still occupied, or frees it.
    pub(super) fn leave(&mut self, lane: Lane) -> Option<(Delivery, Lane)> {
        let Entry::Occupied(mut busy) = self.busy.entry(lane?) else { return None };
        match busy.get_mut().pop_front() {
            Some(next) => {
                self.waiting -= 1;
                Some((next, Some(busy.key().clone())))
            }
            None => {
                busy.remove();
                None
            }
        }
    }

    /// Empties all lanes and returns what waited.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = Delivery> {
        self.waiting = 0;
        std::mem::take(&mut self.busy).into_values().flatten()
    }
}
