//! The lanes of keys: with order by key, only one message of each key is worked on at a time.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::broker::Delivery;

/// The lane of a message: that of its key if order matters, otherwise none.
pub(super) type Lane = Option<KeyLane>;

/// The lane of a key, identified by the key's hash alone, so that keys need not be kept or
/// compared. If two keys have the same hash (64 bits, seeded per consumer), they wait for each
/// other, and both stay in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyLane {
    hash: u64,
    /// `true` if the lane is registered as busy, so that later messages wait in it.
    occupied: bool,
}

/// The busy lanes, each with the messages that wait in it.
pub(super) struct Lanes {
    ordered: bool,
    hasher: DefaultHashBuilder,
    busy: HashTable<Busy>,
    waiting: usize,
    /// Maximum number of messages that may wait.
    limit: usize,
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
    pub(super) fn new(ordered: bool, limit: usize) -> Self {
        Self { ordered, hasher: DefaultHashBuilder::default(), busy: HashTable::new(), waiting: 0, limit }
    }

    /// Returns `true` if one more message may come in.
    ///
    /// With at-least-once delivery, the driver itself stops before this number of messages; with
    /// at-most-once delivery, it does not.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < self.limit
    }

    /// Returns the number of messages that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns the message with its lane if it may be worked on; keeps it if another message of its
    /// key is in progress.
    pub(super) fn enter(&mut self, mut delivery: Delivery) -> Option<(Delivery, Lane)> {
        if !self.ordered {
            return Some((delivery, None));
        }
        let Some(key) = delivery.message().key() else { return Some((delivery, None)) };
        let hash = self.hasher.hash_one(key.as_ref());
        // While handlers end at once, no lane is busy, and no lookup is needed.
        if self.busy.is_empty() {
            return Some((delivery, Some(KeyLane { hash, occupied: false })));
        }
        // Otherwise this message is likely to wait too, so lookup and insertion are one step.
        match self.entry(hash) {
            Entry::Occupied(mut busy) => {
                delivery.wait_here();
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

    /// Makes later messages of this lane wait from now on.
    pub(super) fn occupy(&mut self, lane: Lane) -> Lane {
        let KeyLane { hash, occupied } = lane?;
        if !occupied {
            self.entry(hash).or_insert_with(|| Busy::new(hash));
        }
        Some(KeyLane { hash, occupied: true })
    }

    /// Ends the work on a lane. Returns the next message that waits in it, with the lane still
    /// occupied, or frees the lane.
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

    /// Empties all lanes and returns the messages that waited.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = Delivery> {
        self.waiting = 0;
        std::mem::take(&mut self.busy).into_iter().flat_map(|busy| busy.behind)
    }

    fn entry(&mut self, hash: u64) -> Entry<'_, Busy> {
        self.busy.entry(hash, |busy| busy.hash == hash, |busy| busy.hash)
    }
}
