//! Which message may be worked on: one at a time of each key, where order by key is asked for.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hashbrown::hash_map::Entry;
use hashbrown::{DefaultHashBuilder, HashMap};

use crate::delivery::Delivery;
use crate::received::{Parts, Received};

/// The lane of a message: its key where order matters, else none.
pub(super) type Lane = Option<Key>;

/// A key, by way of the message that has it: sharing the message costs less than sharing the bytes.
#[derive(Debug, Clone)]
pub(super) struct Key {
    parts: Arc<Parts>,
    /// Of its bytes, once the key had to be looked up: most are never.
    hash: Option<u64>,
}

impl Key {
    fn of(message: &Received) -> Option<Self> {
        message.key().map(|_| Self { parts: Arc::clone(&message.parts), hash: None })
    }

    fn bytes(&self) -> Option<&[u8]> {
        self.parts.key.as_deref()
    }

    fn hashed(mut self, hasher: &DefaultHashBuilder) -> Self {
        self.hash = self.hash.or_else(|| Some(hasher.hash_one(self.bytes())));
        self
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
        self.hash.hash(state);
    }
}

/// The keys that are being worked on, each with the messages that wait behind it.
pub(super) struct Lanes {
    ordered: bool,
    hasher: DefaultHashBuilder,
    busy: HashMap<Key, VecDeque<Delivery>>,
    waiting: usize,
    /// The highest number of messages that may wait.
    window: usize,
}

impl Lanes {
    pub(super) fn new(ordered: bool, window: usize) -> Self {
        Self { ordered, hasher: DefaultHashBuilder::default(), busy: HashMap::new(), waiting: 0, window }
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
        let Some(mut key) = Key::of(delivery.message()) else { return Some((delivery, None)) };
        // As long as handlers end at once no lane is busy, and nothing needs to be looked up.
        if self.busy.is_empty() {
            return Some((delivery, Some(key)));
        }
        key = key.hashed(&self.hasher);
        match self.busy.get_mut(&key) {
            Some(behind) => {
                behind.push_back(delivery);
                self.waiting += 1;
                None
            }
            None => Some((delivery, Some(key))),
        }
    }

    /// Keeps others of this lane waiting from now on.
    pub(super) fn occupy(&mut self, lane: Lane) -> Lane {
        let key = lane?.hashed(&self.hasher);
        self.busy.entry(key.clone()).or_default();
        Some(key)
    }

    /// Ends the work on an occupied lane: returns the next message that waits in it, with the lane still occupied, or frees it.
    pub(super) fn leave(&mut self, lane: Lane) -> Option<(Delivery, Lane)> {
        if self.busy.is_empty() {
            return None;
        }
        let Entry::Occupied(mut busy) = self.busy.entry(lane?.hashed(&self.hasher)) else { return None };
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
