//! The entries that a member holds at the server: waiting to be handed out, out with the
//! application, or on their way back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::driver::{Confirmer, Inbound, Tenure};

use super::super::connection::entry::{Entry, EntryId, Pending};
use super::trials::{Change, Trials};
use super::window::Window;

/// The entries of one member. They outlive a connection: the server counts them as the member's
/// until they are settled, given back, or claimed by another member.
#[derive(Default)]
pub(super) struct Holdings {
    state: Mutex<State>,
    /// Notified when there are counts to store, trials to note or entries to give back.
    chores: Notify,
}

#[derive(Default)]
struct State {
    slots: HashMap<EntryId, Slot>,
    epoch: u64,
    /// Entries whose number of failed attempts is not stored yet.
    unstored: HashSet<EntryId>,
    trials: Trials,
    returns: Vec<Return>,
}

struct Slot {
    /// The reading of the entry: the same entry can be read again after its group was moved back.
    epoch: u64,
    stage: Stage,
    tenure: Tenure,
    deliveries: u32,
    failed: u32,
    /// The number of lost trials when the entry was read.
    trials: u32,
    /// `true` if a trial was noted here.
    is_tried: bool,
    /// The time at which the server was last known to count the entry as this member's.
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Out,
    Returning,
}

/// The entry and the reading that a handle belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) id: EntryId,
    pub(super) epoch: u64,
}

/// A place in the window, taken until it is dropped or set aside.
pub(super) struct Place {
    window: Arc<Window>,
    is_aside: AtomicBool,
}

impl Place {
    /// Takes charge of a place that is already taken.
    pub(super) fn taken(window: &Arc<Window>) -> Self {
        Self { window: Arc::clone(window), is_aside: AtomicBool::new(false) }
    }

    /// Frees the place for another entry, while this one stays unsettled.
    pub(super) fn set_aside(&self) {
        if !self.is_aside.swap(true, Ordering::Relaxed) {
            self.window.set_aside();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match *self.is_aside.get_mut() {
            true => self.window.release_aside(),
            false => self.window.release(1),
        }
    }
}

/// An entry to give back to the group.
pub(super) struct Return {
    pub(super) claim: Claim,
    /// The number of hand-outs that the server is to count; `None` to leave its count as it is.
    pub(super) deliveries: Option<u32>,
    pub(super) since: Instant,
    pub(super) confirmer: Option<Confirmer<()>>,
    _place: Option<Place>,
}

/// The facts about an entry at its hand-out.
pub(super) struct HandOut {
    pub(super) tenure: Tenure,
    pub(super) failed: u32,
    pub(super) deliveries: u32,
    pub(super) lost_trials: Option<u32>,
}

impl Holdings {
    /// Records entries that were read, and returns the epoch of this reading.
    pub(super) fn enter(&self, entries: &[Entry]) -> u64 {
        let since = Instant::now();
        let mut state = self.state.lock();
        state.epoch += 1;
        let epoch = state.epoch;
        for Entry { id, deliveries, failed, trials, .. } in entries {
            // A handle of an earlier reading shares the tenure: either one settles the entry.
            let earlier = state.slots.get(id).map(|slot| (slot.tenure.clone(), slot.failed, slot.is_tried));
            let (tenure, before, is_tried) = earlier.unwrap_or_default();
            let (deliveries, failed) = (*deliveries, before.max(*failed));
            let trials = if *trials > 0 { state.trials.lost(*id, *trials) } else { 0 };
            let slot = Slot { epoch, stage: Stage::Waiting, tenure, deliveries, failed, trials, is_tried, since };
            state.slots.insert(*id, slot);
        }
        epoch
    }

    /// Hands an entry out; `None` if it was given back or lost while it waited.
    pub(super) fn hand_out(&self, claim: Claim) -> Option<HandOut> {
        let mut state = self.state.lock();
        let slot = state.slot(claim).filter(|slot| slot.stage == Stage::Waiting)?;
        slot.stage = Stage::Out;
        let Slot { failed, deliveries, trials, .. } = *slot;
        let is_suspect = trials > 0 || Inbound::is_suspicious(failed.saturating_add(1), deliveries);
        let lost_trials = is_suspect.then_some(trials);
        Some(HandOut { tenure: slot.tenure.clone(), failed, deliveries, lost_trials })
    }

    /// Records the number of failed attempts of an entry, to be stored at the server.
    pub(super) fn fail(&self, claim: Claim, attempts: u32) {
        let mut state = self.state.lock();
        let Some(slot) = state.slot(claim) else { return };
        slot.failed = attempts;
        state.unstored.insert(claim.id);
        drop(state);
        self.chores.notify_one();
    }

    /// Notes a trial of an entry. Returns the confirmer if the entry is no longer held.
    pub(super) fn begin_trial(&self, claim: Claim, confirmer: Confirmer<()>) -> Option<Confirmer<()>> {
        let mut state = self.state.lock();
        let Some(slot) = state.slot(claim) else { return Some(confirmer) };
        slot.is_tried = true;
        state.trials.begin(claim.id, confirmer);
        drop(state);
        self.chores.notify_one();
        None
    }

    /// Withdraws the note of a trial, also of an entry that is no longer held.
    pub(super) fn withdraw_trial(&self, id: EntryId) {
        self.state.lock().trials.withdraw(id);
        self.chores.notify_one();
    }

    /// Withdraws the notes of all trials.
    pub(super) fn withdraw_trials(&self) {
        self.state.lock().trials.withdraw_all();
    }

    /// Takes the notes to write and to withdraw.
    pub(super) fn take_trials(&self) -> Vec<Change> {
        self.state.lock().trials.take_changes()
    }

    /// Forgets a note that the server has refused.
    pub(super) fn refuse_trial(&self, id: EntryId) {
        self.state.lock().trials.refused(id);
    }

    /// Gives back an entry that was handed out, together with its place in the window. Its hand-out
    /// counts if `counted`, or if an attempt has failed. Returns the confirmer if the entry is no
    /// longer held.
    pub(super) fn give_back(
        &self,
        claim: Claim,
        counted: bool,
        place: Option<Place>,
        confirmer: Option<Confirmer<()>>,
    ) -> Option<Confirmer<()>> {
        let mut state = self.state.lock();
        let Some(slot) = state.slot(claim) else { return confirmer };
        slot.stage = Stage::Returning;
        let deliveries = (!counted && slot.failed == 0).then(|| slot.deliveries.saturating_sub(1));
        let since = slot.since;
        state.returns.push(Return { claim, deliveries, since, confirmer, _place: place });
        drop(state);
        self.chores.notify_one();
        None
    }

    /// Gives back all entries that wait to be handed out, without counting their hand-out.
    pub(super) fn give_back_waiting(&self) {
        let mut state = self.state.lock();
        let State { slots, returns, .. } = &mut *state;
        for (id, slot) in slots.iter_mut().filter(|(_, slot)| slot.stage == Stage::Waiting) {
            slot.stage = Stage::Returning;
            let claim = Claim { id: *id, epoch: slot.epoch };
            let deliveries = Some(slot.deliveries.saturating_sub(1));
            returns.push(Return { claim, deliveries, since: slot.since, confirmer: None, _place: None });
        }
        drop(state);
        self.chores.notify_one();
    }

    /// Forgets entries that wait to be handed out, which are then read again: nothing is handed out
    /// while the server cannot be reached.
    pub(super) fn forget_waiting(&self) {
        self.state.lock().slots.retain(|_, slot| slot.stage != Stage::Waiting);
    }

    /// Returns the number of the latest reading.
    pub(super) fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// Ends the tenures of entries that were read until that reading and wait to be handed out, and
    /// returns them: their group was moved.
    pub(super) fn take_waiting(&self, until: u64) -> Vec<EntryId> {
        let mut state = self.state.lock();
        let is_old = |slot: &Slot| slot.stage == Stage::Waiting && slot.epoch <= until;
        let waiting: Vec<EntryId> = state.slots.iter().filter(|(_, slot)| is_old(slot)).map(|(id, _)| *id).collect();
        for id in &waiting {
            state.slots.remove(id).into_iter().for_each(|slot| slot.tenure.end());
        }
        waiting
    }

    /// Completes when there are counts to store, trials to note or entries to give back.
    pub(super) async fn chores(&self) {
        self.chores.notified().await;
    }

    /// Returns the failed attempts that are not stored yet.
    pub(super) fn unstored(&self) -> Vec<(EntryId, u32)> {
        let state = self.state.lock();
        let failed = |id: &EntryId| state.slots.get(id).map(|slot| (*id, slot.failed));
        state.unstored.iter().filter_map(failed).collect()
    }

    /// Records that these counts are stored, or that the server does not take them.
    pub(super) fn stored(&self, counts: &[(EntryId, u32)]) {
        let mut state = self.state.lock();
        for (id, failed) in counts {
            if state.slots.get(id).is_none_or(|slot| slot.failed == *failed) {
                state.unstored.remove(id);
            }
        }
    }

    /// Takes the entries to give back, without those that were read again in the meantime.
    pub(super) fn take_returns(&self) -> Vec<Return> {
        let mut state = self.state.lock();
        let mut returns = std::mem::take(&mut state.returns);
        returns.retain(|entry| state.slot(entry.claim).is_some());
        returns
    }

    /// Returns those of the entries, about to be settled, that have failed attempts or trials to be
    /// removed.
    pub(super) fn settling(&self, ids: impl Iterator<Item = EntryId>) -> Vec<EntryId> {
        let mut state = self.state.lock();
        let mut counted = Vec::new();
        for id in ids {
            let Some(slot) = state.slots.get(&id).filter(|slot| slot.failed > 0 || slot.trials > 0 || slot.is_tried)
            else {
                continue;
            };
            if slot.is_tried {
                state.trials.settle(id);
            }
            state.unstored.remove(&id);
            counted.push(id);
        }
        counted
    }

    /// Returns those of the entries of which it is not known that the server counted them as this
    /// member's after that time.
    pub(super) fn doubtful(&self, claims: impl Iterator<Item = Claim>, after: Instant) -> Vec<Claim> {
        let mut state = self.state.lock();
        claims.filter(|claim| state.slot(*claim).is_none_or(|slot| slot.since <= after)).collect()
    }

    /// Forgets an entry that is settled or given back.
    pub(super) fn remove(&self, claim: Claim) {
        let mut state = self.state.lock();
        match state.slots.get(&claim.id) {
            Some(slot) if slot.epoch == claim.epoch => {
                state.slots.remove(&claim.id);
            }
            // Settled by the handle of an earlier reading.
            Some(slot) => slot.tenure.end(),
            None => {}
        }
    }

    /// Returns `true` if this reading of the entry is held.
    pub(super) fn holds(&self, claim: Claim) -> bool {
        self.state.lock().slot(claim).is_some()
    }

    /// Returns `true` if the entry is held.
    pub(super) fn has(&self, id: EntryId) -> bool {
        self.state.lock().slots.contains_key(&id)
    }

    /// Returns the entries that are held, to be [compared](Self::compare) with the server's list.
    pub(super) fn all(&self) -> Vec<Claim> {
        let state = self.state.lock();
        state.slots.iter().map(|(id, slot)| Claim { id: *id, epoch: slot.epoch }).collect()
    }

    /// Compares entries held at a time with the server's later list of this member's entries. Those
    /// that are not on it are lost. Returns the others.
    pub(super) fn compare(&self, held: Vec<Claim>, listed: &[Pending], at: Instant) -> Vec<Pending> {
        let listed: HashMap<EntryId, &Pending> = listed.iter().map(|pending| (pending.id, pending)).collect();
        let mut state = self.state.lock();
        let mut ours = Vec::with_capacity(held.len());
        for claim in held {
            let Some(slot) = state.slot(claim) else { continue };
            match listed.get(&claim.id) {
                Some(pending) => {
                    slot.since = at;
                    if slot.stage != Stage::Returning {
                        ours.push(**pending);
                    }
                }
                None => {
                    slot.tenure.end();
                    state.slots.remove(&claim.id);
                    state.unstored.remove(&claim.id);
                }
            }
        }
        ours
    }

    /// Ends every tenure: the member is gone. Handles are dropped without effect from here on.
    pub(super) fn end(&self) {
        let (slots, returns) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.slots), std::mem::take(&mut state.returns))
        };
        slots.values().for_each(|slot| slot.tenure.end());
        drop(returns);
    }
}

impl State {
    fn slot(&mut self, claim: Claim) -> Option<&mut Slot> {
        self.slots.get_mut(&claim.id).filter(|slot| slot.epoch == claim.epoch)
    }
}
