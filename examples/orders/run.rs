//! What the parts of one run share.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use traced_broker::{Message, Received};

use crate::ledger::Ledger;

/// The topic of accepted orders, keyed by customer.
pub(crate) const ORDERS: &str = "orders";
/// The topic of what customers are to be told.
pub(crate) const NOTIFICATIONS: &str = "notifications";
/// Where orders end that cannot be fulfilled.
pub(crate) const DEAD_ORDERS: &str = "orders.dead";

/// The header that says to which run a message belongs.
const RUN_ID: &str = "run-id";

/// One run of the system. Cheap to clone.
///
/// A durable broker may still hold messages of a run that was cut short. They are nobody's business now: their orders
/// are in no book and their traces in no file, so that readers pass over whatever is not [stamped](Self::stamp) with
/// this run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    id: Arc<str>,
    pub(crate) ledger: Arc<Ledger>,
    /// Told to readers once no more messages are expected.
    pub(crate) stop: CancellationToken,
}

impl Run {
    /// A run with a random id.
    pub(crate) fn new() -> Self {
        let id = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        Self { id: id.into(), ledger: Arc::default(), stop: CancellationToken::new() }
    }

    /// What processes that are started one by one take for one run.
    pub(crate) fn shared() -> Self {
        Self { id: "shared".into(), ..Self::new() }
    }

    /// Marks a message as this run's.
    pub(crate) fn stamp(&self, message: Message) -> Message {
        message.header(RUN_ID, &*self.id)
    }

    /// Whether a message is this run's.
    pub(crate) fn owns(&self, message: &Received) -> bool {
        message.headers().get_str(RUN_ID) == Some(&self.id)
    }
}
