//! The handle of a delivery, and the state that all deliveries of one member share.

use crate::names::attribute;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::driver::{AttributeValue, Confirmation, Confirmer, DeliveryHandle, Disposition, Tenure};
use crate::error::{Error, ErrorKind};

use super::super::connection::commands::Member;
use super::super::connection::entry::EntryId;
use super::super::error::SYSTEM;
use super::holdings::{Claim, Holdings, Place};

/// The state shared by the deliveries of one member of a group, over all its connections.
pub(super) struct Membership {
    pub(super) holdings: Holdings,
    /// The position of the group when it was last looked up.
    seen: Mutex<Option<EntryId>>,
    /// The queue to the task that acknowledges.
    settlements: mpsc::Sender<Settlement>,
}

impl Membership {
    pub(super) fn new(settlements: mpsc::Sender<Settlement>) -> Self {
        Self { holdings: Holdings::default(), seen: Mutex::default(), settlements }
    }

    /// Returns the position at which the group has to begin if it was lost.
    pub(super) fn seen(&self) -> Option<EntryId> {
        *self.seen.lock()
    }

    /// Records the position of the group.
    pub(super) fn see(&self, position: EntryId) {
        *self.seen.lock() = Some(position);
    }

    /// Forgets the position of the group, which was moved.
    fn forget_position(&self) {
        *self.seen.lock() = None;
    }
}

/// The members of groups of one broker, for moving a group.
#[derive(Clone, Default)]
pub(crate) struct Memberships(Arc<Mutex<Vec<Known>>>);

/// A member, while it lives.
type Known = (Member, Weak<Membership>);

impl Memberships {
    pub(super) fn add(&self, member: &Member, membership: &Arc<Membership>) {
        let mut all = self.0.lock();
        all.retain(|(_, membership)| membership.strong_count() > 0);
        all.push((member.clone(), Arc::downgrade(membership)));
    }

    /// Returns what the members of the group have read so far.
    pub(crate) fn read(&self, stream: &str, group: &str) -> Read {
        let all = self.0.lock();
        let of_group = all.iter().filter(|(member, _)| member.stream == stream && member.group == group);
        Read(of_group.filter_map(|(_, one)| one.upgrade()).map(|one| (one.holdings.epoch(), one)).collect())
    }
}

/// The members of a group, each with the number of its latest reading at a time.
pub(crate) struct Read(Vec<(u64, Arc<Membership>)>);

impl Read {
    /// Takes from the members what they have not handed out of it, and returns it. What they know
    /// of the group's position is over.
    pub(crate) fn take_waiting(self) -> Vec<EntryId> {
        self.0.iter().for_each(|(_, one)| one.forget_position());
        self.0.iter().flat_map(|(until, one)| one.holdings.take_waiting(*until)).collect()
    }
}

impl fmt::Debug for Memberships {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memberships")
    }
}

/// A delivery to acknowledge, and the receiver of the result. If it is dropped, the member is gone.
pub(super) struct Settlement {
    owned: Owned,
    confirmer: Option<Confirmer<()>>,
}

impl Settlement {
    pub(super) fn claim(&self) -> Claim {
        self.owned.claim
    }

    /// Returns `true` if the entry is known to be no longer this member's.
    pub(super) fn is_lost(&self) -> bool {
        self.owned.tenure.is_over()
    }

    /// Marks the delivery as settled, or no longer to be settled, and returns the receiver of the
    /// result.
    pub(super) fn end(mut self) -> Option<Confirmer<()>> {
        self.owned.membership.holdings.remove(self.owned.claim);
        self.owned.place = None;
        self.confirmer.take()
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        if let Some(confirmer) = self.confirmer.take() {
            confirmer.confirm(Err(lost().with_unknown_outcome()));
        }
    }
}

/// The handle of a delivery. It takes up a place in the window until it is dropped; settling drops
/// it at the end.
pub(super) enum Held {
    /// Read without acknowledgement.
    Free { id: EntryId, place: Place },
    /// Pending with this member until it is settled.
    Owned(Owned),
}

/// An entry that is this member's to settle. Dropping it gives the entry back.
pub(super) struct Owned {
    membership: Arc<Membership>,
    claim: Claim,
    tenure: Tenure,
    /// `None` once it is settled or given back.
    place: Option<Place>,
    /// `true` while a trial is noted.
    is_tried: AtomicBool,
}

impl Owned {
    pub(super) fn new(membership: Arc<Membership>, claim: Claim, tenure: Tenure, place: Place) -> Self {
        Self { membership, claim, tenure, place: Some(place), is_tried: AtomicBool::new(false) }
    }

    fn acknowledge(self) -> Confirmation<()> {
        if self.tenure.is_over() {
            return Confirmation::ready(Err(lost()));
        }
        let (confirmer, confirmation) = Confirmation::pending();
        let settlements = self.membership.settlements.clone();
        // The queue has a place for each delivery of the window, so this fails only if the member
        // is gone. The settlement then answers by being dropped.
        let _ = settlements.try_send(Settlement { owned: self, confirmer: Some(confirmer) });
        confirmation
    }

    fn begin_trial(&self) -> Confirmation<()> {
        if self.is_tried.swap(true, Ordering::Relaxed) {
            return Confirmation::ready(Ok(()));
        }
        let (confirmer, confirmation) = Confirmation::pending();
        if let Some(confirmer) = self.membership.holdings.begin_trial(self.claim, confirmer) {
            confirmer.confirm(Err(lost()));
        }
        confirmation
    }

    fn withdraw_trial(&self) {
        // Nearly no delivery is tried, and a look is cheaper than a swap.
        if self.is_tried.load(Ordering::Relaxed) && self.is_tried.swap(false, Ordering::Relaxed) {
            self.membership.holdings.withdraw_trial(self.claim.id);
        }
    }

    fn give_back(mut self) -> Confirmation<()> {
        self.withdraw_trial();
        let (confirmer, confirmation) = Confirmation::pending();
        let place = self.place.take();
        let refused = self.membership.holdings.give_back(self.claim, false, place, Some(confirmer));
        if let Some(confirmer) = refused {
            confirmer.confirm(Err(lost()));
        }
        confirmation
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Before the entry is given back: its next owner must not find the note.
        self.withdraw_trial();
        if let Some(place) = self.place.take() {
            self.membership.holdings.give_back(self.claim, true, Some(place), None);
        }
    }
}

impl DeliveryHandle for Held {
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        match (disposition, *self) {
            (Disposition::Retry(_), _) => {
                let message = "Redis does not redeliver at once; the message is redelivered when it is claimed";
                Confirmation::ready(Err(Error::new(ErrorKind::Unsupported, message).with_system(SYSTEM)))
            }
            (_, Self::Free { .. }) => Confirmation::ready(Ok(())),
            (Disposition::Ack | Disposition::Discard, Self::Owned(owned)) => owned.acknowledge(),
            (Disposition::GiveBack, Self::Owned(owned)) => owned.give_back(),
        }
    }

    fn failed(&self, attempts: u32) {
        if let Self::Owned(owned) = self {
            owned.withdraw_trial();
            owned.membership.holdings.fail(owned.claim, attempts);
        }
    }

    fn begin_trial(&self) -> Confirmation<()> {
        match self {
            Self::Free { .. } => Confirmation::ready(Ok(())),
            Self::Owned(owned) => owned.begin_trial(),
        }
    }

    fn set_aside(&self) -> bool {
        let place = match self {
            Self::Free { place, .. } => Some(place),
            Self::Owned(owned) => owned.place.as_ref(),
        };
        place.map(Place::set_aside).is_some()
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        visit(attribute::REDIS_ENTRY_ID, AttributeValue::Text(self.id().to_string().into()));
    }
}

impl Held {
    fn id(&self) -> EntryId {
        match self {
            Self::Free { id, .. } => *id,
            Self::Owned(owned) => owned.claim.id,
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Returns the error for a delivery that is no longer this member's to settle.
pub(super) fn lost() -> Error {
    let message =
        "the delivery no longer belongs to this consumer: it was closed, or another member took the message over";
    Error::new(ErrorKind::SettlementLost, message).with_system(SYSTEM)
}
