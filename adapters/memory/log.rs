//! The messages that a topic keeps, within bounds in number and bytes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use super::group::Group;
use crate::driver::Outbound;

/// A stored message, shared by the groups that have yet to read it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) message: Outbound,
    pub(super) sequence: u64,
    /// The time at which it became visible.
    pub(super) time: SystemTime,
}

/// The bounds of what a topic keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// The visible messages, oldest first. A message that every group has settled may be dropped, also
/// from between two others that are not settled.
#[derive(Debug)]
pub(super) struct Log {
    bounds: Bounds,
    kept: VecDeque<Kept>,
    /// The sequence number of the next message.
    end: u64,
    /// The bytes of all messages, delayed ones included.
    bytes: usize,
    /// The messages that every group has settled, the oldest on top. Each is in here once.
    settled: BinaryHeap<Reverse<u64>>,
}

#[derive(Debug)]
struct Kept {
    stored: Arc<Stored>,
    /// Number of groups that have not settled it.
    unsettled: usize,
}

impl Log {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, kept: VecDeque::new(), end: 0, bytes: 0, settled: BinaryHeap::new() }
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Returns the sequence number of the next message.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Returns the sequence number of the oldest message; that of the next one if there is none.
    pub(super) fn first(&self) -> u64 {
        self.kept.front().map_or(self.end, |kept| kept.stored.sequence)
    }

    /// Returns the number of messages from this one on.
    pub(super) fn count_from(&self, sequence: u64) -> usize {
        self.kept.len() - self.place(sequence)
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.kept.iter().map(|kept| &kept.stored)
    }

    /// Returns this message, if it is kept.
    pub(super) fn get(&self, sequence: u64) -> Option<&Arc<Stored>> {
        self.from(sequence).filter(|stored| stored.sequence == sequence)
    }

    /// Returns this message, or the next one that is kept.
    pub(super) fn from(&self, sequence: u64) -> Option<&Arc<Stored>> {
        self.kept.get(self.place(sequence)).map(|kept| &kept.stored)
    }

    /// Returns the place of this message, or of the next one that is kept.
    fn place(&self, sequence: u64) -> usize {
        let Some(behind) = sequence.checked_sub(self.first()) else { return 0 };
        // It is there unless a message before it was dropped.
        let place = usize::try_from(behind).unwrap_or(usize::MAX).min(self.kept.len());
        match self.kept.get(place) {
            Some(kept) if kept.stored.sequence == sequence => place,
            None if sequence >= self.end => self.kept.len(),
            _ => self.kept.partition_point(|kept| kept.stored.sequence < sequence),
        }
    }

    /// Takes up the room of a message, if it fits in beside so many delayed ones: messages that
    /// every group has settled are dropped for it, the oldest first.
    pub(super) fn take_room(&mut self, bytes: usize, delayed: usize) -> bool {
        while self.kept.len() + delayed >= self.bounds.messages || self.bytes + bytes > self.bounds.bytes {
            let Some(Reverse(sequence)) = self.settled.pop() else { return false };
            if let Some(dropped) = self.kept.remove(self.place(sequence)) {
                self.bytes -= size(&dropped.stored.message);
            }
        }
        self.bytes += bytes;
        true
    }

    /// Adds a message whose room is taken up, to be settled by so many groups.
    pub(super) fn push(&mut self, message: Outbound, time: SystemTime, groups: usize) -> u64 {
        let sequence = self.end;
        self.end += 1;
        self.kept.push_back(Kept { stored: Arc::new(Stored { message, sequence, time }), unsettled: groups });
        if groups == 0 {
            self.settled.push(Reverse(sequence));
        }
        sequence
    }

    /// Records that one group more has settled a message.
    pub(super) fn settle(&mut self, sequence: u64) {
        let place = self.place(sequence);
        let Some(kept) = self.kept.get_mut(place).filter(|kept| kept.stored.sequence == sequence) else { return };
        kept.unsettled -= 1;
        if kept.unsettled == 0 {
            self.settled.push(Reverse(sequence));
        }
    }

    /// Counts in a group that begins here.
    pub(super) fn add_group(&mut self, group: &Group) {
        self.recount(group, |unsettled| unsettled + 1);
    }

    /// Leaves a group out that ends, or that moves away.
    pub(super) fn remove_group(&mut self, group: &Group) {
        self.recount(group, |unsettled| unsettled - 1);
    }

    fn recount(&mut self, group: &Group, change: impl Fn(usize) -> usize) {
        let concerned = self.kept.iter_mut().filter(|kept| !group.is_settled(kept.stored.sequence));
        concerned.for_each(|kept| kept.unsettled = change(kept.unsettled));
        let settled = self.kept.iter().filter(|kept| kept.unsettled == 0);
        self.settled = settled.map(|kept| Reverse(kept.stored.sequence)).collect();
    }
}

/// Returns the size of a message in bytes, as far as the sender chose it.
pub(super) fn size(message: &Outbound) -> usize {
    let Outbound { payload, key, id, headers, .. } = message;
    let texts = [payload.as_deref(), key.as_deref(), id.as_deref().map(str::as_bytes)];
    texts.into_iter().flatten().map(<[u8]>::len).sum::<usize>() + headers.byte_len()
}
