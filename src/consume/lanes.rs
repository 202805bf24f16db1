//! Which message may be worked on: one at a time of each key, where order by key is asked for.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::delivery::Delivery;

/// The lane of a message: that of its key where order matters, else none.
pub(super) type Lane = Option<KeyLane>;

/// A lane is known by the hash of its key alone, so that no key has to be kept or compared. Should two keys have the same one, of
/// 64 bits and seeded per consumer, they wait for each other, and both are still in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyLane {
    hash: u64,
    /// Whether others of this lane wait already.
    occupied: bool,
}

/// The lanes that are being worked on, each with the messages that wait in it.
pub(super) struct Lanes {
    ordered: bool,
    hasher: DefaultHashBuilder,
    busy: HashTable<Busy>,
    waiting: usize,
    /// The highest number of messages that may wait.
    window: usize,
}

struct Busy {
    hash: u64,
    behind: VecDeque<Delivery>,
}

impl Busy {
    fn new(hash: u64) -> Self {
        Self { hash, behind: VecDeque::new() }
    }
}

impl Lanes {
    pub(super) fn new(ordered: bool, window: usize) -> Self {
        Self { ordered, hasher: DefaultHashBuilder::default(), busy: HashTable::new(), waiting: 0, window }
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
        let Some(key) = delivery.message().key() else { return Some((delivery, None)) };
        let hash = self.hasher.hash_one(key.as_ref());
        // As long as handlers end at once no lane is busy, and nothing needs to be looked up.
        if self.busy.is_empty() {
            return Some((delivery, Some(KeyLane { hash, occupied: false })));
        }
        // Otherwise this one will likely wait as others do: looking up and occupying are one step.
        match self.entry(hash) {
            Entry::Occupied(mut busy) => {
                busy.get_mut().behind.push_back(delivery);
                self.waiting += 1;
                None
            }
            Entry::Vacant(free) => {
                free.insert(Busy::new(hash));
                Some((delivery, Some(KeyLane { hash, occupied: true })))
            }
        }
    }

    /// Keeps others of this lane waiting from now on.
    pub(super) fn occupy(&mut self, lane: Lane) -> Lane {
        let KeyLane { hash, occupied } = lane?;
        if !occupied {
            self.entry(hash).or_insert_with(|| Busy::new(hash));
        }
        Some(KeyLane { hash, occupied: true })
    }

    /// Ends the work on a lane: returns the next message that waits in it, with the lane still occupied, or frees it.
    pub(super) fn leave(&mut self, lane: Lane) -> Option<(Delivery, Lane)> {
        let lane = lane.filter(|lane| lane.occupied)?;
        let mut busy = self.busy.find_entry(lane.hash, |busy| busy.hash == lane.hash).ok()?;
        match busy.get_mut().behind.pop_front() {
            Some(next) => {
                self.waiting -= 1;
                Some((next, Some(lane)))
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
        std::mem::take(&mut self.busy).into_iter().flat_map(|busy| busy.behind)
    }

    fn entry(&mut self, hash: u64) -> Entry<'_, Busy> {
        self.busy.entry(hash, |busy| busy.hash == hash, |busy| busy.hash)
    }
}
