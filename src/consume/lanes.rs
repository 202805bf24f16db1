//! Which message may be worked on: one at a time of each key, where order by key is asked for.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::delivery::Delivery;
use crate::received::{Parts, Received};

/// The lane of a message: its key where order matters, else none.
pub(super) type Lane = Option<Key>;

/// A key, by way of the message that has it: sharing the message costs less than sharing the bytes.
#[derive(Debug, Clone)]
pub(super) struct Key(Arc<Parts>);

impl Key {
    fn of(message: &Received) -> Option<Self> {
        message.key().map(|_| Self(Arc::clone(&message.parts)))
    }

    fn bytes(&self) -> Option<&[u8]> {
        self.0.key.as_deref()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

/// The keys that are being worked on, each with the messages that wait behind it.
pub(super) struct Lanes {
    ordered: bool,
    busy: HashMap<Key, VecDeque<Delivery>>,
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
        let lane = Key::of(delivery.message());
        // As long as handlers end at once no lane is busy, and nothing needs to be looked up.
        let busy = if self.busy.is_empty() { None } else { lane.as_ref().and_then(|key| self.busy.get_mut(key)) };
        match busy {
            Some(behind) => {
                behind.push_back(delivery);
                self.waiting += 1;
                None
            }
            None => Some((delivery, lane)),
        }
    }

    /// Keeps others of this lane waiting from now on.
    pub(super) fn occupy(&mut self, lane: Lane) {
        if let Some(key) = lane {
            self.busy.entry(key).or_default();
        }
    }

    /// Ends the work on an occupied lane: returns the next message that waits in it, with the lane still occupied, or frees it.
    pub(super) fn leave(&mut self, lane: Lane) -> Option<(Delivery, Lane)> {
        if self.busy.is_empty() {
            return None;
        }
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
