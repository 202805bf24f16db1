//! The handle of a delivery, and what all deliveries of one generation share.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::driver::{AttributeValue, Confirmation, Confirmer, DeliveryHandle, Disposition};
use crate::error::{Error, ErrorKind};

use super::super::entry::EntryId;
use super::super::error::SYSTEM;
use super::window::Window;

/// What the deliveries share that were read over the same connections.
///
/// Once these are lost, nobody receives settlements any more, so that a handle of that generation can settle nothing.
pub(super) struct Generation {
    window: Arc<Window>,
    /// To the task that acknowledges; none where there is nothing to acknowledge.
    settlements: Option<mpsc::Sender<Settlement>>,
    /// Dropped unsettled: no longer renewed, so that some member claims them.
    abandoned: Mutex<HashSet<EntryId>>,
}

impl Generation {
    pub(super) fn new(window: Arc<Window>, settlements: Option<mpsc::Sender<Settlement>>) -> Self {
        Self { window, settlements, abandoned: Mutex::default() }
    }

    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    /// Whether its deliveries can no longer be settled.
    pub(super) fn is_over(&self) -> bool {
        self.settlements.as_ref().is_some_and(mpsc::Sender::is_closed)
    }

    /// Whether the entry was dropped unsettled.
    pub(super) fn is_abandoned(&self, id: EntryId) -> bool {
        self.abandoned.lock().contains(&id)
    }

    /// The entry was claimed and is handed out again.
    pub(super) fn reclaim(&self, id: EntryId) {
        self.abandoned.lock().remove(&id);
    }
}

/// A delivery to acknowledge, and whom to tell. When it is dropped, its connection is gone.
pub(super) struct Settlement {
    delivery: Box<Held>,
    confirmer: Option<Confirmer<()>>,
}

impl Settlement {
    pub(super) fn id(&self) -> EntryId {
        self.delivery.id
    }

    /// When the server was last known to count the entry as this member's.
    pub(super) fn since(&self) -> Instant {
        self.delivery.since
    }

    /// The delivery is settled, or cannot be any more; what is left is to tell whoever waits for it.
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

/// The handle of a delivery. It takes up a place in the window until it is dropped, which its settlement does in the end.
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
            let message = "Redis does not redeliver at once; the message comes back when it is claimed";
            return Confirmation::ready(Err(Error::new(ErrorKind::Unsupported, message).with_system(SYSTEM)));
        }
        let Some(settlements) = self.generation.settlements.clone() else {
            self.settled = true;
            return Confirmation::ready(Ok(()));
        };
        let (confirmer, confirmation) = Confirmation::pending();
        // It is refused only when its generation is over, for the queue has a place for each delivery of the window; being
        // dropped, it then answers itself.
        let _ = settlements.try_send(Settlement { delivery: self, confirmer: Some(confirmer) });
        confirmation
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        visit("messaging.redis.entry.id", AttributeValue::Text(self.id.to_string().into()));
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

/// The delivery is no longer this member's to settle.
pub(super) fn lost() -> Error {
    let message = "the delivery is no longer this consumer's: the connection it came from is gone, or another member took it over";
    Error::new(ErrorKind::SettlementLost, message).with_system(SYSTEM)
}
