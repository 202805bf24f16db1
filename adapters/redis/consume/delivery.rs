//! The handle of a delivery, and the state that all deliveries of one generation share.

use crate::names::attribute;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::driver::{AttributeValue, Confirmation, Confirmer, DeliveryHandle, Disposition, Tenure};
use crate::error::{Error, ErrorKind};

use super::super::connection::entry::EntryId;
use super::super::error::SYSTEM;
use super::window::Window;

/// The state shared by deliveries that were read over the same connections.
///
/// Once these connections are lost, settlements are no longer received, so a handle of this
/// generation cannot settle its delivery.
pub(super) struct Generation {
    window: Arc<Window>,
    /// The queue to the task that acknowledges; `None` if no acknowledgement is needed.
    settlements: Option<mpsc::Sender<Settlement>>,
    /// Entries that were dropped unsettled. They are no longer renewed, so that some member claims
    /// them.
    abandoned: Mutex<HashSet<EntryId>>,
    tenure: Tenure,
}

impl Generation {
    pub(super) fn new(window: Arc<Window>, settlements: Option<mpsc::Sender<Settlement>>) -> Self {
        Self { window, settlements, abandoned: Mutex::default(), tenure: Tenure::new() }
    }

    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    /// Returns the tenure of its deliveries.
    pub(super) fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    /// Ends the tenure of its deliveries: its connections are lost.
    pub(super) fn end(&self) {
        self.tenure.end();
    }

    /// Returns `true` if its deliveries can no longer be settled.
    pub(super) fn is_over(&self) -> bool {
        self.settlements.as_ref().is_some_and(mpsc::Sender::is_closed)
    }

    /// Returns `true` if the entry was dropped unsettled.
    pub(super) fn is_abandoned(&self, id: EntryId) -> bool {
        self.abandoned.lock().contains(&id)
    }

    /// Records that the entry was claimed and is delivered again.
    pub(super) fn reclaim(&self, id: EntryId) {
        self.abandoned.lock().remove(&id);
    }
}

/// A delivery to acknowledge, and the receiver of the result. It is dropped if its connection is
/// gone.
pub(super) struct Settlement {
    delivery: Box<Held>,
    confirmer: Option<Confirmer<()>>,
}

impl Settlement {
    pub(super) fn id(&self) -> EntryId {
        self.delivery.id
    }

    /// Returns the time at which the server was last known to count the entry as this member's.
    pub(super) fn since(&self) -> Instant {
        self.delivery.since
    }

    /// Marks the delivery as settled, or no longer to be settled, and returns the receiver of the
    /// result.
    pub(super) fn end(mut self) -> Option<Confirmer<()>> {
        self.delivery.settled = true;
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
pub(super) struct Held {
    generation: Arc<Generation>,
    id: EntryId,
    since: Instant,
    settled: bool,
}

impl Held {
    pub(super) fn new(generation: Arc<Generation>, id: EntryId, since: Instant) -> Self {
        Self { generation, id, since, settled: false }
    }
}

impl DeliveryHandle for Held {
    fn settle(mut self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        if !matches!(disposition, Disposition::Ack | Disposition::Discard) {
            let message = "Redis does not redeliver at once; the message is redelivered when it is claimed";
            return Confirmation::ready(Err(Error::new(ErrorKind::Unsupported, message).with_system(SYSTEM)));
        }
        let Some(settlements) = self.generation.settlements.clone() else {
            self.settled = true;
            return Confirmation::ready(Ok(()));
        };
        let (confirmer, confirmation) = Confirmation::pending();
        // The queue has a place for each delivery of the window, so this fails only if the
        // generation is over. The settlement then answers by being dropped.
        let _ = settlements.try_send(Settlement { delivery: self, confirmer: Some(confirmer) });
        confirmation
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        visit(attribute::REDIS_ENTRY_ID, AttributeValue::Text(self.id.to_string().into()));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.settled && !self.generation.is_over() {
            self.generation.abandoned.lock().insert(self.id);
        }
        self.generation.window.release(1);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Returns the error for a delivery that is no longer this member's to settle.
pub(super) fn lost() -> Error {
    let message =
        "the delivery no longer belongs to this consumer: its connection is gone, or another member took it over";
    Error::new(ErrorKind::SettlementLost, message).with_system(SYSTEM)
}
