//! The trials of a member: notes that a handler runs on a suspect.

use std::collections::HashMap;

use crate::driver::Confirmer;

use super::super::connection::entry::EntryId;

/// A note to write, or to withdraw.
pub(super) struct Change {
    pub(super) id: EntryId,
    /// `true` if a trial begins, `false` if its note is withdrawn.
    pub(super) begins: bool,
    pub(super) confirmer: Option<Confirmer<()>>,
}

/// The notes of one member.
#[derive(Default)]
pub(super) struct Trials {
    /// The notes that are not withdrawn, with their number.
    noted: HashMap<EntryId, u32>,
    /// The changes that the server does not know of yet, in their order.
    changes: Vec<Change>,
}

impl Trials {
    /// Notes a trial of an entry.
    pub(super) fn begin(&mut self, id: EntryId, confirmer: Confirmer<()>) {
        *self.noted.entry(id).or_default() += 1;
        self.changes.push(Change { id, begins: true, confirmer: Some(confirmer) });
    }

    /// Withdraws a note, unless that was done before.
    pub(super) fn withdraw(&mut self, id: EntryId) {
        if self.remove(id) {
            self.changes.push(Change { id, begins: false, confirmer: None });
        }
    }

    /// Withdraws all notes: the member ends, and its process lives.
    pub(super) fn withdraw_all(&mut self) {
        while let Some(id) = self.noted.keys().next().copied() {
            self.withdraw(id);
        }
    }

    /// Forgets a note that the server has refused: there is none to withdraw.
    pub(super) fn refused(&mut self, id: EntryId) {
        self.remove(id);
    }

    /// Forgets the notes of an entry that is settled, whose trials are removed as a whole.
    pub(super) fn settle(&mut self, id: EntryId) {
        self.noted.remove(&id);
        self.changes.retain(|change| change.id != id);
    }

    /// Returns how many of the trials noted at the server are lost: not this member's own.
    pub(super) fn lost(&self, id: EntryId, trials: u32) -> u32 {
        trials.saturating_sub(self.noted.get(&id).copied().unwrap_or(0))
    }

    /// Takes the changes, to be carried out.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn remove(&mut self, id: EntryId) -> bool {
        let Some(noted) = self.noted.get_mut(&id) else { return false };
        *noted -= 1;
        if *noted == 0 {
            self.noted.remove(&id);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Confirmation;

    const ID: EntryId = EntryId { milliseconds: 7, sequence: 0 };

    fn begin(trials: &mut Trials) {
        trials.begin(ID, Confirmation::pending().0);
    }

    fn changes(trials: &mut Trials) -> Vec<bool> {
        trials.take_changes().into_iter().map(|change| change.begins).collect()
    }

    #[test]
    fn a_note_is_withdrawn_once_and_counts_as_lost_for_others_only() {
        let mut trials = Trials::default();
        trials.withdraw(ID);
        assert_eq!((changes(&mut trials), trials.lost(ID, 2)), (Vec::new(), 2));
        begin(&mut trials);
        assert_eq!((trials.lost(ID, 3), trials.lost(ID, 0)), (2, 0));
        trials.withdraw(ID);
        trials.withdraw(ID);
        assert_eq!((changes(&mut trials), trials.lost(ID, 2)), (vec![true, false], 2));
    }

    #[test]
    fn what_is_settled_or_refused_is_not_withdrawn() {
        let mut trials = Trials::default();
        begin(&mut trials);
        trials.settle(ID);
        trials.withdraw(ID);
        assert!(changes(&mut trials).is_empty(), "the entry's numbers are gone as a whole");
        begin(&mut trials);
        assert_eq!(changes(&mut trials), [true]);
        trials.refused(ID);
        trials.withdraw(ID);
        assert!(changes(&mut trials).is_empty());
    }

    #[test]
    fn a_member_that_ends_withdraws_everything() {
        let mut trials = Trials::default();
        begin(&mut trials);
        begin(&mut trials);
        trials.withdraw_all();
        trials.withdraw(ID);
        assert_eq!(changes(&mut trials), [true, true, false, false]);
    }
}
