//! The messages that a consumer has taken and not settled, per partition and assignment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::notes::Notes;
use super::offsets::{Mark, Offsets, Past};
use super::window::Window;
use crate::driver::{Confirmation, Tenure};
use crate::error::{Error, ErrorKind};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Maximum size of a commit's metadata in bytes. Brokers accept 4096 unless configured otherwise
/// (`offset.metadata.max.bytes`).
const METADATA: usize = 4000;

/// Maximum number of settled messages of a partition that a crash may bring back because they fit
/// in no metadata, in windows, and the least of this bound. Beyond it, fetching waits until older
/// messages are settled.
const AHEAD: u64 = 4;
const LEAST_AHEAD: u64 = 16_384;

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
        partitions[index] = Some(Arc::new(Partition {
            number: partition,
            is_untold: AtomicBool::new(offsets.notes_trials()),
            tenure: Tenure::new(),
            state: Mutex::new(State { offsets, told: None, in_hand: 0, aside: 0, gives_up: false }),
            is_ahead: AtomicBool::new(false),
            window: Arc::clone(&self.window),
            notes: Arc::clone(&self.notes),
        }));
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
        let tried = revoked.state.lock().offsets.tried();
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
            let is_known = confirmed && partition.state.lock().told.as_ref() == Some(&mark);
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
        self.partitions.lock().iter().flatten().for_each(|partition| partition.state.lock().told = None);
    }

    /// Finds the partitions in which too much is settled beyond what a commit can tell. Returns
    /// `true` if there are others than before.
    pub(crate) fn survey(&self) -> bool {
        let limit = self.metadata_limit();
        let partitions = self.partitions.lock();
        partitions.iter().flatten().filter(|partition| partition.survey(limit)).count() > 0
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

/// One partition during one of its assignments.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) number: i32,
    /// Ends when the partition is revoked.
    pub(crate) tenure: Tenure,
    state: Mutex<State>,
    /// `true` while too much is settled beyond what a commit can tell.
    is_ahead: AtomicBool,
    /// `true` until a commit is asked for that tells of this assignment, if trials are noted in it.
    is_untold: AtomicBool,
    window: Arc<Window>,
    notes: Arc<Notes>,
}

#[derive(Debug)]
struct State {
    offsets: Offsets,
    /// The position that [`Partition::moved`] returned last.
    told: Option<Mark>,
    /// The number of deliveries that were handed out and are neither settled nor dropped.
    in_hand: usize,
    /// The number of unsettled messages that take up no place of the window.
    aside: usize,
    /// `true` once no more deliveries are handed out.
    gives_up: bool,
}

impl Partition {
    /// Takes the message at `offset`, to be settled. Returns `None` if it was settled before.
    pub(crate) fn take(&self, offset: i64) -> Option<Past> {
        let past = self.state.lock().offsets.take(offset)?;
        self.window.occupy();
        Some(past)
    }

    /// Takes the message at `offset` as settled. It occupies the window until [`Window::release`]
    /// is called when it is handed out. Returns `false` if it was settled before.
    pub(crate) fn pass(&self, offset: i64) -> bool {
        let is_new = self.state.lock().offsets.pass(offset);
        if is_new {
            self.window.occupy();
        }
        is_new
    }

    /// Counts a delivery that is handed out. Returns `false` if it may not be, because the
    /// partition is given up or was revoked.
    pub(crate) fn hand_out(&self) -> bool {
        let mut state = self.state.lock();
        let may = !state.gives_up && !self.is_ended();
        state.in_hand += usize::from(may);
        may
    }

    /// Counts a delivery that is in hand no more.
    pub(crate) fn hand_back(&self) {
        let mut state = self.state.lock();
        state.in_hand -= 1;
        if state.in_hand == 0 {
            self.window.wake();
        }
    }

    /// Returns the number of deliveries in hand.
    pub(crate) fn in_hand(&self) -> usize {
        self.state.lock().in_hand
    }

    /// Hands out no more deliveries, before the partition is revoked.
    pub(crate) fn give_up(&self) {
        self.state.lock().gives_up = true;
        self.tenure.wind_down();
    }

    /// Frees the place of an unsettled message in the window. Returns `false` if the partition is
    /// no longer assigned.
    pub(crate) fn set_aside(&self) -> bool {
        let mut state = self.state.lock();
        let may = !self.is_ended();
        if may {
            state.aside += 1;
            self.window.release();
        }
        may
    }

    /// Settles the message at `offset`, which may have been set aside. Returns `false` if the
    /// partition is no longer assigned.
    pub(crate) fn settle(&self, offset: i64, is_aside: bool) -> bool {
        let mut state = self.state.lock();
        if self.is_ended() {
            return false;
        }
        if state.offsets.end_trial(offset) {
            self.hurry();
        }
        match (state.offsets.settle(offset), is_aside) {
            (true, true) => state.aside -= 1,
            (true, false) => self.window.release(),
            (false, _) => {}
        }
        true
    }

    /// Notes that the message at `offset` failed for the number of times.
    pub(crate) fn fail(&self, offset: i64, attempts: u32) {
        self.state.lock().offsets.fail(offset, attempts);
    }

    /// Notes that a handler begins on the suspect at `offset`. Confirmed once it is committed.
    pub(crate) fn begin_trial(&self, offset: i64) -> Confirmation<()> {
        let mut state = self.state.lock();
        if self.is_ended() || state.gives_up {
            let message = "the partition is no longer assigned to this consumer, or about to be revoked";
            return Confirmation::ready(Err(Error::new(ErrorKind::SettlementLost, message)));
        }
        state.offsets.begin_trial(offset);
        drop(state);
        let committed = self.notes.await_commit();
        self.window.wake();
        committed
    }

    /// Withdraws the note of a trial, if there is one.
    pub(crate) fn end_trial(&self, offset: i64) {
        if self.state.lock().offsets.end_trial(offset) {
            self.hurry();
        }
    }

    /// Asks for a commit now: a process that ends soon for another reason would leave a note that
    /// is withdrawn.
    fn hurry(&self) {
        self.notes.hurry();
        self.window.wake();
    }

    /// Returns `true` if it is not told yet that this assignment is open.
    pub(crate) fn is_untold(&self) -> bool {
        self.is_untold.load(Ordering::Relaxed)
    }

    /// Notes that the next commit tells how far this assignment has taken messages. After one that
    /// was left open, each batch is told.
    pub(crate) fn tell(&self) {
        let is_suspicious = self.state.lock().offsets.are_suspicious();
        self.is_untold.store(is_suspicious, Ordering::Relaxed);
    }

    /// Returns `true` if the partition was revoked, or its subscription ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.tenure.is_over()
    }

    /// Returns `true` if the partition is given up or was revoked.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_ended() || self.state.lock().gives_up
    }

    /// Returns `true` if fetching has to wait until older messages are settled.
    pub(crate) fn is_ahead(&self) -> bool {
        self.is_ahead.load(Ordering::Relaxed)
    }

    /// Returns the position to commit, if a message was taken.
    pub(crate) fn mark(&self, limit: usize) -> Option<Mark> {
        Some(self.state.lock().offsets.mark(limit)?.0)
    }

    fn is_past(&self, offset: i64) -> bool {
        self.state.lock().offsets.is_past(offset)
    }

    fn moved(&self, limit: usize) -> Option<Mark> {
        let mut state = self.state.lock();
        let (mark, _) = state.offsets.mark(limit)?;
        if state.told.as_ref() == Some(&mark) {
            return None;
        }
        state.told = Some(mark.clone());
        Some(mark)
    }

    fn survey(&self, limit: usize) -> bool {
        let left_out = self.state.lock().offsets.mark(limit).map_or(0, |(_, left_out)| left_out);
        // Resumed at half, so that fetching does not stop and go for every message.
        let most = (AHEAD * self.window.limit() as u64).max(LEAST_AHEAD);
        let bound = most / if self.is_ahead() { 2 } else { 1 };
        self.is_ahead.swap(left_out > bound, Ordering::Relaxed) != (left_out > bound)
    }

    fn end(&self, limit: usize) -> Option<Mark> {
        let mut state = self.state.lock();
        state.offsets.end();
        let mark = state.offsets.mark(limit);
        // Set under the lock, so that concurrent settlement happens either before or after.
        self.tenure.end();
        let in_window = state.offsets.clear() - std::mem::take(&mut state.aside);
        (0..in_window).for_each(|_| self.window.release());
        Some(mark?.0)
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
        assert!(!assignment.survey() && !partition.is_ahead());
        while assignment.metadata_limit() > 0 {
            assignment.limit_metadata();
        }
        assert!(assignment.survey() && partition.is_ahead(), "a broker that keeps no metadata");
        assert!(partition.settle(0, false));
        assert!(assignment.survey() && !partition.is_ahead());
    }
}
