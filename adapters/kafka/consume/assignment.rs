//! The messages that a consumer has taken and not settled, per partition and assignment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::notes::Notes;
use super::offsets::{Mark, Offsets};
use super::partition::Partition;
use super::window::Window;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Maximum size of a commit's metadata in bytes. Brokers accept 4096 unless configured otherwise
/// (`offset.metadata.max.bytes`).
const METADATA: usize = 4000;

/// The partitions that are assigned now.
#[derive(Debug)]
pub(crate) struct Assignment {
    /// The partitions, indexed by their number.
    partitions: Mutex<Vec<Option<Arc<Partition>>>>,
    pub(crate) window: Arc<Window>,
    pub(crate) notes: Arc<Notes>,
    /// The trials that were noted in partitions which ended, by their number and offset. This
    /// process lives, so they are not lost.
    outlived: Mutex<BTreeMap<i32, BTreeSet<i64>>>,
    /// The positions that could not be committed when their partitions were lost, by the number of
    /// the partition.
    lost: Mutex<BTreeMap<i32, i64>>,
    metadata_limit: AtomicUsize,
}

impl Assignment {
    /// Creates an assignment without partitions, with a window of `limit` unsettled deliveries in
    /// all.
    pub(crate) fn new(limit: usize) -> Self {
        let window = Arc::new(Window::new(limit));
        Self {
            partitions: Mutex::default(),
            window,
            notes: Arc::default(),
            outlived: Mutex::default(),
            lost: Mutex::default(),
            metadata_limit: AtomicUsize::new(METADATA),
        }
    }

    /// Starts the assignment of a partition like [`grant`](Self::grant), in which trials are noted.
    /// The partition ends at `end` now.
    pub(crate) fn grant_with_trials(&self, partition: i32, mut offsets: Offsets, end: Option<i64>) {
        let own = self.outlived.lock().remove(&partition).unwrap_or_default();
        offsets.note_trials(self.window.limit(), &own, end);
        self.grant(partition, offsets);
    }

    /// Starts the assignment of a partition, which continues with `offsets`.
    pub(crate) fn grant(&self, partition: i32, offsets: Offsets) {
        let Ok(index) = usize::try_from(partition) else { return };
        let mut partitions = self.partitions.lock();
        if partitions.len() <= index {
            partitions.resize(index + 1, None);
        }
        partitions[index] = Some(Arc::new(Partition::new(partition, offsets, &self.window, &self.notes)));
    }

    /// Returns the partition of that number, if it is assigned.
    pub(crate) fn get(&self, partition: i32) -> Option<Arc<Partition>> {
        let index = usize::try_from(partition).ok()?;
        self.partitions.lock().get(index)?.clone()
    }

    /// Ends the assignment of a partition: its unsettled messages can no longer be settled. Returns
    /// the position to commit, if there is one.
    pub(crate) fn revoke(&self, partition: i32) -> Option<Mark> {
        let index = usize::try_from(partition).ok()?;
        let revoked = self.partitions.lock().get_mut(index)?.take()?;
        let tried = revoked.tried();
        if !tried.is_empty() {
            self.outlived.lock().insert(partition, tried);
        }
        revoked.end(self.metadata_limit())
    }

    /// Ends the assignment of every partition and returns the positions to commit. Those that were
    /// told before are left out if all of these are `confirmed`.
    pub(crate) fn revoke_all(&self, confirmed: bool) -> Vec<(i32, Mark)> {
        let revoked = std::mem::take(&mut *self.partitions.lock());
        let limit = self.metadata_limit();
        let last = |partition: Arc<Partition>| {
            let mark = partition.end(limit)?;
            let is_known = confirmed && partition.has_told(&mark);
            (!is_known).then_some((partition.number, mark))
        };
        revoked.into_iter().flatten().filter_map(last).collect()
    }

    /// Returns the partition of that number, if it is assigned, to take the message at `offset`
    /// from.
    ///
    /// Offsets go back only if the topic was deleted and created again. Messages taken before are
    /// then of another topic.
    pub(crate) fn partition(&self, partition: i32, offset: i64) -> Option<Arc<Partition>> {
        let assigned = self.get(partition)?;
        if !assigned.is_past(offset) {
            return Some(assigned);
        }
        self.revoke(partition);
        self.grant(partition, Offsets::default());
        self.get(partition)
    }

    /// Returns the positions that have moved since the last call, and those with new progress
    /// beyond them.
    pub(crate) fn moved(&self) -> Vec<(i32, Mark)> {
        let limit = self.metadata_limit();
        let partitions = self.partitions.lock();
        partitions.iter().flatten().filter_map(|partition| Some((partition.number, partition.moved(limit)?))).collect()
    }

    /// Lets [`moved`](Self::moved) return every position again, because a commit failed.
    pub(crate) fn repeat(&self) {
        self.partitions.lock().iter().flatten().for_each(|partition| partition.repeat());
    }

    /// Finds the partitions in which too much is settled beyond what a commit can tell.
    pub(crate) fn survey(&self) {
        let limit = self.metadata_limit();
        self.partitions.lock().iter().flatten().for_each(|partition| partition.survey(limit));
    }

    /// Returns the offset of the message to take next from each partition.
    pub(crate) fn each_next(&self) -> Vec<(i32, i64)> {
        self.partitions.lock().iter().flatten().map(|partition| (partition.number, partition.next())).collect()
    }

    /// Like [`each_next`](Self::each_next), for the partitions from which messages are to come.
    pub(crate) fn positions(&self) -> Vec<(i32, i64)> {
        let partitions = self.partitions.lock();
        let wanted = partitions.iter().flatten().filter(|partition| partition.is_wanted());
        wanted.map(|partition| (partition.number, partition.next())).collect()
    }

    /// Returns the positions of these partitions that settled messages have moved.
    pub(crate) fn settled(&self, numbers: &[i32]) -> Vec<(i32, i64)> {
        let partitions = numbers.iter().filter_map(|number| self.get(*number));
        partitions.filter_map(|partition| Some((partition.number, partition.settled_to()?))).collect()
    }

    /// Notes that positions could not be committed.
    pub(crate) fn lose(&self, positions: impl IntoIterator<Item = (i32, i64)>) {
        let mut lost = self.lost.lock();
        for (number, position) in positions {
            let known = lost.entry(number).or_insert(position);
            *known = position.max(*known);
        }
    }

    /// Returns the positions that could not be committed when their partitions were lost.
    pub(crate) fn lost(&self) -> Vec<(i32, i64)> {
        self.lost.lock().iter().map(|(number, position)| (*number, *position)).collect()
    }

    /// Returns `true` if no delivery is in hand.
    pub(crate) fn is_idle(&self) -> bool {
        self.partitions.lock().iter().flatten().all(|partition| partition.in_hand() == 0)
    }

    /// Returns the maximum size of a commit's metadata in bytes.
    pub(crate) fn metadata_limit(&self) -> usize {
        self.metadata_limit.load(Ordering::Relaxed)
    }

    /// Halves the size of the metadata, because the broker refused it.
    pub(crate) fn limit_metadata(&self) {
        self.metadata_limit.store(self.metadata_limit() / 2, Ordering::Relaxed);
        self.repeat();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(limit: usize) -> (Assignment, Arc<Partition>) {
        let assignment = Assignment::new(limit);
        assignment.grant(3, Offsets::default());
        let partition = assignment.partition(3, 0).unwrap();
        (assignment, partition)
    }

    fn positions(marks: Vec<(i32, Mark)>) -> Vec<(i32, i64)> {
        marks.into_iter().map(|(partition, mark)| (partition, mark.position)).collect()
    }

    #[test]
    fn a_position_is_told_when_it_or_the_progress_beyond_it_has_moved() {
        let (assignment, partition) = assigned(8);
        assert_eq!(assignment.moved(), [], "nothing taken, nothing to commit");
        for offset in [10, 11, 12] {
            partition.take(offset);
        }
        assert_eq!(positions(assignment.moved()), [(3, 10)]);
        assert_eq!(assignment.moved(), []);
        assert!(partition.settle(11, false));
        assert_eq!(positions(assignment.moved()), [(3, 10)], "11 is settled");
        assert_eq!(assignment.moved(), []);
        assignment.repeat();
        assert_eq!(positions(assignment.moved()), [(3, 10)], "the commit failed");
        assert!(partition.settle(10, false) && partition.settle(12, false));
        assert_eq!(positions(assignment.moved()), [(3, 13)]);
        assert_eq!(assignment.window.room(), 8);
    }

    #[test]
    fn an_ended_partition_settles_nothing_and_frees_the_window() {
        let (assignment, partition) = assigned(4);
        partition.take(5);
        partition.take(6);
        assert!(partition.settle(5, false));
        assert_eq!(assignment.revoke(3).unwrap().position, 6);
        assert_eq!(assignment.window.room(), 4);
        assert!(!partition.settle(6, false), "the assignment is gone");
        assert!(!partition.hand_out());
        assert_eq!(assignment.window.room(), 4, "a stale settle frees nothing twice");

        assignment.grant(3, Offsets::default());
        let again = assignment.partition(3, 0).unwrap();
        again.take(6);
        assert!(!partition.settle(6, false), "the old handle touches nothing of the new assignment");
        assert_eq!(positions(assignment.revoke_all(true)), [(3, 6)]);
    }

    #[test]
    fn the_end_commits_what_is_not_confirmed() {
        for (confirmed, settled, expected) in [(true, false, None), (false, false, Some(5)), (true, true, Some(6))] {
            let (assignment, partition) = assigned(4);
            partition.take(5);
            assignment.moved();
            assert!(!settled || partition.settle(5, false));
            let last = positions(assignment.revoke_all(confirmed));
            assert_eq!(last.first().map(|(_, position)| *position), expected);
        }
    }

    #[test]
    fn a_partition_that_is_given_up_settles_and_hands_out_nothing() {
        let (assignment, partition) = assigned(4);
        partition.take(5);
        partition.take(6);
        assert!(partition.hand_out());
        partition.give_up();
        assert!(!partition.hand_out() && partition.is_given_up() && !partition.is_ended());
        assert!(!partition.tenure.may_begin());
        assert_eq!((partition.in_hand(), assignment.is_idle()), (1, false));
        assert!(partition.settle(5, false));
        partition.hand_back();
        assert!(assignment.is_idle());
        assert_eq!(assignment.revoke(3).unwrap().position, 6);
    }

    #[test]
    fn a_partition_holds_the_places_of_what_is_neither_settled_nor_set_aside() {
        let (_, partition) = assigned(4);
        assert!(!partition.settles());
        (5..8).for_each(|offset| assert!(partition.take(offset).is_some()));
        assert_eq!(partition.held(), 3);
        assert!(partition.set_aside());
        assert_eq!((partition.held(), partition.settles()), (2, false));
        assert!(partition.settle(6, false) && partition.settle(5, true));
        assert_eq!((partition.held(), partition.settles()), (1, true));
    }

    #[test]
    fn the_furthest_lost_position_of_each_partition_is_kept() {
        let (assignment, partition) = assigned(4);
        partition.take(0);
        assert_eq!(assignment.settled(&[3, 4]), [], "nothing is settled");
        assert!(partition.settle(0, false));
        assert_eq!(assignment.settled(&[3, 4]), [(3, 1)]);
        assignment.lose([(3, 5), (4, 2)]);
        assignment.lose([(3, 1), (4, 3)]);
        assert_eq!(assignment.lost(), [(3, 5), (4, 3)]);
    }

    #[test]
    fn what_is_set_aside_frees_its_place_once() {
        let (assignment, partition) = assigned(2);
        partition.take(5);
        partition.take(6);
        partition.take(7);
        assert!(partition.set_aside() && partition.set_aside());
        assert_eq!(assignment.window.room(), 1);
        assert!(partition.settle(5, true));
        assert_eq!(assignment.window.room(), 1, "its place was free already");
        assert_eq!(assignment.revoke(3).unwrap().position, 6);
        assert_eq!(assignment.window.room(), 2, "the end frees the place of 7 only");
        assert!(!partition.set_aside());
    }

    #[test]
    fn offsets_that_begin_again_are_another_assignment() {
        let (assignment, partition) = assigned(4);
        partition.take(100);
        assert!(Arc::ptr_eq(&partition, &assignment.partition(3, 101).unwrap()));
        let again = assignment.partition(3, 0).unwrap();
        again.take(0);
        assert!(!partition.settle(100, false));
        assert!(again.settle(0, false));
        assert_eq!((positions(assignment.moved()), assignment.window.room()), (vec![(3, 1)], 4));
    }

    #[test]
    fn what_was_passed_is_settled_and_occupies_the_window() {
        let (assignment, partition) = assigned(2);
        assert!(partition.pass(0) && partition.pass(1));
        assert_eq!(assignment.window.room(), 0);
        assert_eq!(positions(assignment.moved()), [(3, 2)]);
        assignment.window.release();
        assert_eq!(assignment.window.room(), 1);
    }

    #[test]
    fn a_partition_waits_if_a_commit_cannot_tell_what_is_settled() {
        let (assignment, partition) = assigned(1000);
        (0..1000).for_each(|offset| assert!(partition.take(2 * offset).is_some()));
        // One message out of order is one range, however long it is.
        (1..1000).for_each(|offset| assert!(partition.settle(2 * offset, false)));
        (2000..150_000).for_each(|offset| assert!(partition.take(offset).is_some() && partition.settle(offset, false)));
        assignment.survey();
        assert!(!partition.is_ahead());
        while assignment.metadata_limit() > 0 {
            assignment.limit_metadata();
        }
        assignment.survey();
        assert!(partition.is_ahead(), "a broker that keeps no metadata");
        assert!(partition.settle(0, false));
        assignment.survey();
        assert!(!partition.is_ahead());
    }
}
