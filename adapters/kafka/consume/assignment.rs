//! The messages that a consumer has taken and not settled, per partition and assignment.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::window::Window;
use crate::driver::Tenure;

/// The partitions that are assigned now.
#[derive(Debug)]
pub(crate) struct Assignment {
    /// The partitions, indexed by their number.
    partitions: Mutex<Vec<Option<Arc<Partition>>>>,
    pub(crate) window: Arc<Window>,
}

impl Assignment {
    /// Creates an assignment without partitions, with a window of `limit` unsettled deliveries in
    /// all.
    pub(crate) fn new(limit: usize) -> Self {
        Self { partitions: Mutex::default(), window: Arc::new(Window::new(limit)) }
    }

    /// Starts the assignment of a partition.
    pub(crate) fn grant(&self, partition: i32) {
        let Ok(index) = usize::try_from(partition) else { return };
        let mut partitions = self.partitions.lock();
        if partitions.len() <= index {
            partitions.resize(index + 1, None);
        }
        partitions[index] = Some(Arc::new(Partition {
            number: partition,
            tenure: Tenure::new(),
            offsets: Mutex::default(),
            window: Arc::clone(&self.window),
        }));
    }

    /// Ends the assignment of a partition: its unsettled messages can no longer be settled. Returns
    /// the position to commit, if there is one.
    pub(crate) fn revoke(&self, partition: i32) -> Option<i64> {
        let index = usize::try_from(partition).ok()?;
        let revoked = self.partitions.lock().get_mut(index)?.take()?;
        revoked.end()
    }

    /// Ends the assignment of every partition and returns the positions to commit.
    pub(crate) fn revoke_all(&self) -> Vec<(i32, i64)> {
        let revoked = std::mem::take(&mut *self.partitions.lock());
        revoked.into_iter().flatten().filter_map(|partition| Some((partition.number, partition.end()?))).collect()
    }

    /// Returns the partition of that number, if it is assigned, to take the message at `offset`
    /// from.
    ///
    /// Offsets go back only if the topic was deleted and created again. Messages taken before are
    /// then of another topic.
    pub(crate) fn partition(&self, partition: i32, offset: i64) -> Option<Arc<Partition>> {
        let index = usize::try_from(partition).ok()?;
        let assigned = self.partitions.lock().get(index)?.clone()?;
        if !assigned.is_past(offset) {
            return Some(assigned);
        }
        self.revoke(partition);
        self.grant(partition);
        self.partitions.lock().get(index)?.clone()
    }

    /// Returns the positions that have moved since the last call.
    pub(crate) fn moved(&self) -> Vec<(i32, i64)> {
        let partitions = self.partitions.lock();
        partitions.iter().flatten().filter_map(|partition| Some((partition.number, partition.moved()?))).collect()
    }
}

/// One partition during one of its assignments.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) number: i32,
    /// Ends when the partition is revoked.
    pub(crate) tenure: Tenure,
    offsets: Mutex<Offsets>,
    window: Arc<Window>,
}

#[derive(Debug, Default)]
struct Offsets {
    /// Unsettled offsets, ascending; the window bounds their number.
    unsettled: VecDeque<i64>,
    /// The offset after the last one taken, once one was taken.
    next: Option<i64>,
    /// The position that [`Partition::moved`] returned last.
    told: Option<i64>,
}

impl Offsets {
    /// Returns the position up to which all messages are settled: the contiguous low-water mark.
    fn position(&self) -> Option<i64> {
        self.unsettled.front().copied().or(self.next)
    }
}

impl Partition {
    /// Takes the message at `offset`, to be settled.
    pub(crate) fn take(&self, offset: i64) {
        let mut offsets = self.offsets.lock();
        offsets.unsettled.push_back(offset);
        offsets.next = Some(offset + 1);
        self.window.occupy();
    }

    /// Takes the message at `offset` as settled. It occupies the window until [`Window::release`]
    /// is called when it is handed out.
    pub(crate) fn pass(&self, offset: i64) {
        self.offsets.lock().next = Some(offset + 1);
        self.window.occupy();
    }

    /// Settles the message at `offset`. Returns `false` if the partition is no longer assigned.
    pub(crate) fn settle(&self, offset: i64) -> bool {
        let mut offsets = self.offsets.lock();
        if self.is_ended() {
            return false;
        }
        // Usually the first one, which is found at once and removed without moving others.
        let index = match offsets.unsettled.front() {
            Some(first) if *first == offset => Ok(0),
            _ => offsets.unsettled.binary_search(&offset),
        };
        if index.is_ok_and(|index| offsets.unsettled.remove(index).is_some()) {
            self.window.release();
        }
        true
    }

    /// Returns `true` if the partition was revoked, or its subscription ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.tenure.is_over()
    }

    fn is_past(&self, offset: i64) -> bool {
        self.offsets.lock().next.is_some_and(|next| offset < next)
    }

    fn moved(&self) -> Option<i64> {
        let mut offsets = self.offsets.lock();
        let position = offsets.position();
        if position == offsets.told {
            return None;
        }
        offsets.told = position;
        position
    }

    fn end(&self) -> Option<i64> {
        let mut offsets = self.offsets.lock();
        let position = offsets.position();
        // Set under the lock, so that concurrent settlement happens either before or after.
        self.tenure.end();
        for _ in offsets.unsettled.drain(..) {
            self.window.release();
        }
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(limit: usize) -> (Assignment, Arc<Partition>) {
        let assignment = Assignment::new(limit);
        assignment.grant(3);
        let partition = assignment.partition(3, 0).unwrap();
        (assignment, partition)
    }

    #[test]
    fn the_position_never_passes_what_is_unsettled() {
        let (assignment, partition) = assigned(8);
        assert_eq!(assignment.moved(), [], "nothing taken, nothing to commit");
        // Offsets have gaps where the broker compacted or a transaction ended.
        for offset in [10, 11, 15, 16] {
            partition.take(offset);
        }
        assert_eq!(assignment.moved(), [(3, 10)]);
        assert!(partition.settle(11) && partition.settle(16));
        assert_eq!(assignment.moved(), []);
        assert!(partition.settle(10));
        assert_eq!(assignment.moved(), [(3, 15)]);
        assert!(partition.settle(15));
        assert_eq!(assignment.moved(), [(3, 17)]);
        assert_eq!(assignment.window.room(), 8);
    }

    #[test]
    fn an_ended_partition_settles_nothing_and_frees_the_window() {
        let (assignment, partition) = assigned(4);
        partition.take(5);
        partition.take(6);
        assert!(partition.settle(5));
        assert_eq!(assignment.revoke(3), Some(6));
        assert_eq!(assignment.window.room(), 4);
        assert!(!partition.settle(6), "the assignment is gone");
        assert_eq!(assignment.window.room(), 4, "a stale settle frees nothing twice");

        assignment.grant(3);
        let again = assignment.partition(3, 0).unwrap();
        again.take(6);
        assert!(!partition.settle(6), "the old handle touches nothing of the new assignment");
        assert_eq!(assignment.revoke_all(), [(3, 6)]);
    }

    #[test]
    fn offsets_that_begin_again_are_another_assignment() {
        let (assignment, partition) = assigned(4);
        partition.take(100);
        assert!(Arc::ptr_eq(&partition, &assignment.partition(3, 101).unwrap()));
        let again = assignment.partition(3, 0).unwrap();
        again.take(0);
        assert!(!partition.settle(100));
        assert!(again.settle(0));
        assert_eq!((assignment.moved(), assignment.window.room()), (vec![(3, 1)], 4));
    }

    #[test]
    fn what_was_passed_is_settled_and_occupies_the_window() {
        let (assignment, partition) = assigned(2);
        partition.pass(0);
        partition.pass(1);
        assert_eq!(assignment.window.room(), 0);
        assert_eq!(assignment.moved(), [(3, 2)]);
        assignment.window.release();
        assert_eq!(assignment.window.room(), 1);
    }
}
