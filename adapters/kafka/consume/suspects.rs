//! The suspects of one partition during one of its assignments: messages that may end the process
//! of their handler.
//!
//! Kafka counts no deliveries. So the metadata of the commits says that an assignment is open,
//! until it ends in order. After two in a row that did not, whatever they may have taken is a
//! suspect.

use std::collections::{BTreeMap, BTreeSet};

use super::progress::Open;

/// The number of assignments in a row, ended out of order, after which their messages are suspects.
const ENOUGH: u32 = 2;

/// Maximum number of messages that are settled between two commits of an ordinary assignment.
/// Later ones tell of each batch before it is handed out, for as long.
const BETWEEN_COMMITS: i64 = 16_384;

#[derive(Debug)]
pub(crate) struct Suspects {
    /// The assignments before this one that did not end in order.
    before: Open,
    /// The offset before which messages are suspects, if there were enough of them.
    until: i64,
    /// The offset before which this assignment counts as one more of them.
    cautious_until: i64,
    /// The offsets of trials that this assignment has noted and not withdrawn.
    pub(crate) tried: BTreeSet<i64>,
}

impl Suspects {
    /// Starts an assignment, with a window of `limit` messages, after these. The partition ends at
    /// `end` now.
    pub(crate) fn after(before: Open, limit: usize, end: Option<i64>) -> Self {
        // They may have taken more after their last commit, of what there was.
        let reached = |ahead: i64| before.reached.saturating_add(ahead).min(end.unwrap_or(i64::MAX));
        let until = reached(i64::try_from(limit).unwrap_or(i64::MAX));
        let cautious_until = if before.number == 0 { 0 } else { reached(BETWEEN_COMMITS).max(until) };
        Self { before, until, cautious_until, tried: BTreeSet::new() }
    }

    /// Returns the number of lost trials of the message at `offset`, of which so many are noted;
    /// `None` if it is no suspect.
    pub(crate) fn lost_trials(&self, offset: i64, trials: Option<u32>) -> Option<u32> {
        let is_suspect = self.before.number >= ENOUGH && offset < self.until;
        trials.or(is_suspect.then_some(0))
    }

    /// Returns `true` if what was left open before is not passed at `position`.
    pub(crate) fn are_before(&self, position: i64) -> bool {
        position < self.cautious_until
    }

    /// Returns the open assignments for a commit of `position`, with messages taken up to `next`.
    /// Once the position has passed what those before may have taken, only this one counts.
    pub(crate) fn open(&self, position: i64, next: i64) -> Open {
        if self.are_before(position) {
            Open { number: self.before.number.saturating_add(1), reached: next.max(self.before.reached) }
        } else {
            Open { number: 1, reached: next }
        }
    }
}

/// Takes one from the trials of the message at `offset`.
pub(crate) fn withdraw(trials: &mut BTreeMap<i64, u32>, offset: i64) {
    if let Some(number) = trials.get_mut(&offset) {
        // Another program may have committed a zero.
        *number = number.saturating_sub(1);
        if *number == 0 {
            trials.remove(&offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_assignments_that_ended_out_of_order_make_suspects_of_what_they_took() {
        let once = Suspects::after(Open::default(), 10, None);
        assert_eq!((once.lost_trials(5, None), once.open(0, 8)), (None, Open { number: 1, reached: 8 }));
        let twice = Suspects::after(once.open(0, 8), 10, None);
        assert_eq!((twice.lost_trials(5, None), twice.open(3, 5)), (None, Open { number: 2, reached: 8 }));
        let again = Suspects::after(twice.open(3, 5), 10, None);
        assert_eq!((again.lost_trials(17, None), again.lost_trials(18, None)), (Some(0), None));
        assert_eq!((again.lost_trials(17, Some(2)), again.lost_trials(40, Some(1))), (Some(2), Some(1)));
        assert_eq!(again.open(20, 30), Open { number: 3, reached: 30 });
        let far = 8 + BETWEEN_COMMITS;
        assert_eq!(again.open(far, far), Open { number: 1, reached: far }, "all that they may have taken is passed");
        let idle = Suspects::after(twice.open(8, 8), 10, Some(8));
        assert_eq!((idle.lost_trials(8, None), idle.open(8, 8).number), (None, 1), "there was no more");
    }

    #[test]
    fn a_trial_is_withdrawn_once() {
        let mut trials = BTreeMap::from([(7, 2), (9, 1)]);
        [7, 9, 9, 11].into_iter().for_each(|offset| withdraw(&mut trials, offset));
        assert_eq!(trials, BTreeMap::from([(7, 1)]));
    }
}
