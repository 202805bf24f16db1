//! The offsets of one partition during one of its assignments: taken, settled, failed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::progress::Progress;
use super::suspects::{Suspects, withdraw};

/// The offsets that were taken from a partition, and what the group had done beyond its position
/// before.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    /// Unsettled offsets, ascending; the window, and the limit of what is set aside, bound their
    /// number.
    unsettled: VecDeque<i64>,
    /// The offset after the last one taken, once one was taken.
    next: Option<i64>,
    /// The position from which this assignment began.
    begin: i64,
    /// Ranges that were settled in earlier assignments and are not passed yet, and the attempts of
    /// unsettled messages. The size of a commit's metadata bounds what is read; the window bounds
    /// what is added.
    earlier: Progress,
    /// The suspects of this assignment; `None` if it notes no trials.
    suspects: Option<Suspects>,
}

/// The past of a message that is taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Past {
    /// The number of its failed attempts.
    pub(crate) failed: u32,
    /// The number of its lost trials, if it is a suspect.
    pub(crate) lost_trials: Option<u32>,
}

/// A position to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The position up to which all messages are settled.
    pub(crate) position: i64,
    /// The progress beyond the position, for the metadata of the commit.
    pub(crate) metadata: String,
}

impl Offsets {
    /// Continues at `begin`, with the progress that was committed with that position.
    pub(crate) fn resume(begin: i64, earlier: Progress) -> Self {
        Self { begin, earlier, ..Self::default() }
    }

    /// Notes trials in this assignment, whose window has that limit. Those of `own`, by their
    /// offset, are of this process, which lives. The partition ends at `end` now.
    pub(crate) fn note_trials(&mut self, limit: usize, own: &BTreeSet<i64>, end: Option<i64>) {
        own.iter().for_each(|offset| withdraw(&mut self.earlier.trials, *offset));
        self.suspects = Some(Suspects::after(self.earlier.open, limit, end));
    }

    /// Returns `true` if the assignment before did not end in order.
    pub(crate) fn were_left_open(&self) -> bool {
        self.earlier.open.number > 0
    }

    /// Returns `true` until the position has passed what assignments before may have taken that did
    /// not end in order.
    pub(crate) fn are_suspicious(&self) -> bool {
        self.suspects.as_ref().is_some_and(|suspects| suspects.are_before(self.position()))
    }

    /// Returns the offset up to which all messages are settled.
    pub(crate) fn position(&self) -> i64 {
        self.unsettled.front().copied().unwrap_or_else(|| self.next())
    }

    /// Returns the position from which this assignment began.
    pub(crate) fn begin(&self) -> i64 {
        self.begin
    }

    /// Returns the offset of the message to take next, or one before it.
    pub(crate) fn next(&self) -> i64 {
        self.next.unwrap_or(self.begin)
    }

    /// Takes the message at `offset`, to be settled. Returns `None` if it was settled in an earlier
    /// assignment and is not to be handed out again.
    pub(crate) fn take(&mut self, offset: i64) -> Option<Past> {
        let is_new = self.pass(offset);
        is_new.then(|| {
            self.unsettled.push_back(offset);
            let failed = self.earlier.attempts.get(&offset).copied().unwrap_or(0);
            let trials = self.earlier.trials.get(&offset).copied();
            let suspects = self.suspects.as_ref();
            let lost_trials = suspects.and_then(|suspects| suspects.lost_trials(offset, trials));
            Past { failed, lost_trials }
        })
    }

    /// Takes the message at `offset` as settled. Returns `false` if it was settled in an earlier
    /// assignment.
    pub(crate) fn pass(&mut self, offset: i64) -> bool {
        if offset < self.begin {
            // Another topic of that name.
            self.earlier = Progress::default();
        }
        self.next = Some(offset + 1);
        let passed = self.earlier.settled.iter().take_while(|range| range.end <= offset).count();
        self.earlier.settled.drain(..passed);
        !self.earlier.settled.first().is_some_and(|range| range.contains(&offset))
    }

    /// Settles the message at `offset`. Returns `false` if it is not among the unsettled.
    pub(crate) fn settle(&mut self, offset: i64) -> bool {
        // Usually the first one, which is found at once and removed without moving others.
        let index = match self.unsettled.front() {
            Some(first) if *first == offset => Ok(0),
            _ => self.unsettled.binary_search(&offset),
        };
        let settled = index.is_ok_and(|index| self.unsettled.remove(index).is_some());
        if settled {
            if !self.earlier.attempts.is_empty() {
                self.earlier.attempts.remove(&offset);
            }
            if !self.earlier.trials.is_empty() {
                self.earlier.trials.remove(&offset);
            }
        }
        settled
    }

    /// Notes that a handler begins on the suspect at `offset`.
    pub(crate) fn begin_trial(&mut self, offset: i64) {
        if let Some(suspects) = &mut self.suspects
            && self.unsettled.binary_search(&offset).is_ok()
            && suspects.tried.insert(offset)
        {
            let trials = self.earlier.trials.entry(offset).or_default();
            *trials = trials.saturating_add(1);
        }
    }

    /// Withdraws the note of the trial of the suspect at `offset`. Returns `false` if there is
    /// none.
    pub(crate) fn end_trial(&mut self, offset: i64) -> bool {
        let is_noted = self.suspects.as_mut().is_some_and(|suspects| suspects.tried.remove(&offset));
        if is_noted {
            withdraw(&mut self.earlier.trials, offset);
        }
        is_noted
    }

    /// Returns `true` if trials are noted.
    pub(crate) fn notes_trials(&self) -> bool {
        self.suspects.is_some()
    }

    /// Returns the offsets of trials of this process that are noted.
    pub(crate) fn tried(&self) -> BTreeSet<i64> {
        self.suspects.as_ref().map(|suspects| suspects.tried.clone()).unwrap_or_default()
    }

    /// Notes that the unsettled message at `offset` failed for the number of times.
    pub(crate) fn fail(&mut self, offset: i64, attempts: u32) {
        if self.unsettled.binary_search(&offset).is_ok() {
            self.earlier.attempts.insert(offset, attempts);
        }
    }

    /// Ends the assignment in order, before the last [mark](Self::mark). Its trials are withdrawn:
    /// the process lives.
    pub(crate) fn end(&mut self) {
        for offset in self.tried() {
            self.end_trial(offset);
        }
        self.suspects = None;
    }

    /// Returns the number of unsettled messages.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// Forgets the unsettled messages and returns their number.
    pub(crate) fn clear(&mut self) -> usize {
        self.unsettled.drain(..).count()
    }

    /// Returns `true` if a message at or after `offset` was taken.
    pub(crate) fn is_past(&self, offset: i64) -> bool {
        self.next.is_some_and(|next| offset < next)
    }

    /// Returns the position to commit, with at most `limit` bytes of metadata, and the number of
    /// settled offsets that did not fit into it. Returns `None` if no message was taken.
    pub(crate) fn mark(&self, limit: usize) -> Option<(Mark, u64)> {
        let next = self.next?;
        let position = self.unsettled.front().copied().unwrap_or(next);
        let from = |counts: &BTreeMap<i64, u32>| counts.range(position..).map(|(offset, n)| (*offset, *n)).collect();
        let progress = Progress {
            settled: self.settled_after(position, next),
            attempts: from(&self.earlier.attempts),
            trials: from(&self.earlier.trials),
            open: self.suspects.as_ref().map(|suspects| suspects.open(position, next)).unwrap_or_default(),
        };
        let (metadata, left_out) = progress.encode(position, limit);
        Some((Mark { position, metadata }, left_out))
    }

    /// Returns the settled ranges after `position`: the gaps between the unsettled messages, those
    /// up to `next`, and those of earlier assignments. A missing offset counts as settled.
    fn settled_after(&self, position: i64, next: i64) -> Vec<Range<i64>> {
        let taken = self.unsettled.iter().copied().chain([next]);
        let gaps = taken.clone().zip(taken.skip(1)).map(|(one, other)| one + 1..other);
        let earlier = self.earlier.settled.iter().map(|range| range.start.max(next)..range.end);
        let mut settled: Vec<Range<i64>> = Vec::new();
        for range in gaps.chain(earlier).filter(|range| range.start < range.end && position <= range.start) {
            match settled.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => settled.push(range),
            }
        }
        settled
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one range of offsets is meant")]
mod tests {
    use super::*;

    const LIMIT: usize = 4000;

    fn position(offsets: &Offsets) -> i64 {
        offsets.mark(LIMIT).unwrap().0.position
    }

    fn progress(offsets: &Offsets) -> Progress {
        let mark = offsets.mark(LIMIT).unwrap().0;
        Progress::decode(mark.metadata.as_bytes(), mark.position).unwrap_or_default()
    }

    /// Ends the assignment and begins another.
    fn again(offsets: &Offsets) -> Offsets {
        Offsets::resume(position(offsets), progress(offsets))
    }

    #[test]
    fn the_position_never_passes_what_is_unsettled() {
        let mut offsets = Offsets::default();
        assert_eq!(offsets.mark(LIMIT), None, "nothing taken, nothing to commit");
        // Offsets have gaps where the broker compacted or a transaction ended.
        for offset in [10, 11, 15, 16] {
            assert_eq!(offsets.take(offset), Some(Past::default()));
        }
        assert_eq!((position(&offsets), progress(&offsets).settled), (10, vec![12..15]));
        assert!(offsets.settle(11) && offsets.settle(16));
        assert_eq!((position(&offsets), progress(&offsets).settled), (10, vec![11..15, 16..17]));
        assert!(offsets.settle(10) && !offsets.settle(10));
        assert_eq!((position(&offsets), progress(&offsets).settled), (15, vec![16..17]));
        assert!(offsets.settle(15));
        assert_eq!((position(&offsets), progress(&offsets)), (17, Progress::default()));
    }

    #[test]
    fn the_next_assignment_skips_what_was_settled_beyond_the_position() {
        let mut offsets = Offsets::default();
        (0..50_000).for_each(|offset| assert_eq!(offsets.take(offset), Some(Past::default())));
        (0..50_000).filter(|offset| ![7, 9].contains(offset)).for_each(|offset| assert!(offsets.settle(offset)));
        offsets.fail(9, 4);
        offsets.fail(20, 1);
        // Twice, the second time with nothing but the first message taken.
        let mut second = again(&offsets);
        assert_eq!(second.take(7), Some(Past::default()));
        let mut third = again(&second);
        let taken: Vec<_> = (7..50_002).filter_map(|offset| Some((offset, third.take(offset)?.failed))).collect();
        assert_eq!(taken, [(7, 0), (9, 4), (50_000, 0), (50_001, 0)]);
        for (offset, _) in taken {
            assert!(third.settle(offset));
        }
        assert_eq!((position(&third), progress(&third)), (50_002, Progress::default()));
    }

    #[test]
    fn offsets_that_begin_again_are_of_another_topic() {
        let mut offsets = Offsets::resume(
            100,
            Progress { settled: vec![101..200], attempts: [(100, 2)].into(), ..Progress::default() },
        );
        assert_eq!(offsets.take(0), Some(Past::default()));
        assert_eq!(offsets.take(150), Some(Past::default()));
        assert_eq!(progress(&offsets).settled, [1..150]);
    }

    #[test]
    fn what_retention_deleted_is_passed() {
        let mut offsets = Offsets::resume(100, Progress { settled: vec![101..110, 120..130], ..Progress::default() });
        let new = Some(Past::default());
        assert_eq!((offsets.take(115), offsets.take(125), offsets.take(130)), (new, None, new));
        assert_eq!((position(&offsets), progress(&offsets).settled), (115, vec![116..130]));
    }

    #[test]
    fn taken_as_settled_moves_the_position() {
        let mut offsets = Offsets::resume(5, Progress { settled: vec![6..8], ..Progress::default() });
        assert!(offsets.pass(5) && !offsets.pass(6));
        assert_eq!((position(&offsets), progress(&offsets).settled), (7, vec![7..8]));
    }

    #[test]
    fn trials_are_noted_until_they_are_heard_of() {
        let begin = |progress| {
            let mut offsets = Offsets::resume(0, progress);
            offsets.note_trials(4, &BTreeSet::new(), None);
            offsets
        };
        let mut offsets = begin(Progress::default());
        for _ in 0..2 {
            assert_eq!(offsets.take(0), Some(Past::default()));
            offsets = begin(progress(&offsets));
        }
        let suspect = |lost| Some(Past { failed: 0, lost_trials: Some(lost) });
        assert_eq!(
            (offsets.take(0), offsets.take(1), offsets.take(9)),
            (suspect(0), suspect(0), Some(Past::default()))
        );
        offsets.begin_trial(0);
        offsets.begin_trial(1);
        offsets.end_trial(1);
        let mut again = begin(progress(&offsets));
        assert_eq!((again.take(0), again.take(1)), (suspect(1), suspect(0)), "0 was not heard of");
        again.begin_trial(0);
        let mut own = Offsets::resume(0, progress(&again));
        own.note_trials(4, &again.tried(), None);
        assert_eq!(own.take(0), suspect(1), "the process that tried it lives");
        again.end();
        assert_eq!(progress(&again).open, super::super::progress::Open::default());
        let mut later = begin(progress(&again));
        assert_eq!((later.take(0), later.take(1)), (suspect(1), Some(Past::default())), "it ended in order");
        assert!(later.settle(0));
        assert_eq!(progress(&later).trials, BTreeMap::new());
    }
}
