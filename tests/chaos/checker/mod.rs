//! The verdict on a history: a function from the events of a run to the invariants that they break.
//!
//! It knows nothing of brokers and clients. `tests/chaos_checker.rs` plants breaks in histories and
//! expects each to be named.

mod context;
mod delivery;
mod ledger;
mod order;
mod recovery;
mod resources;
mod settling;
mod spans;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::history::Record;
use crate::recipe::Id;

pub(crate) use delivery::{Figures, outstanding};
use ledger::Ledger;

/// The promises that a run is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Invariant {
    /// A confirmed message is delivered to every group; a dead letter, to its reader.
    I1,
    /// A delivered message was published, with the same bytes.
    I2,
    /// A message that was not sent does not appear.
    I3,
    /// A message that is unsettled, or to be retried, comes again.
    I4,
    /// A message whose settlement the broker confirmed does not come again.
    I5,
    /// The first deliveries of a key are in the order of publishing.
    I6,
    /// The extracted context is the one in the payload.
    I7,
    /// Each attempt has one process span, and every span ends.
    I8,
    /// The memory of a process does not grow.
    I9,
    /// There is progress soon after a fault is over.
    I10,
    /// Nothing panics or hangs, and no thread or descriptor is left behind.
    I11,
    /// A message is delivered once, and once more for each retry and fault at most.
    I12,
    /// Closing settles what was handled.
    I13,
    /// No text contains a password.
    I14,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The parts of the promises that differ between brokers and scenarios.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The groups that get every message.
    pub(crate) groups: Vec<String>,
    /// The group whose order by key is checked; it has one member.
    pub(crate) ordered: Option<String>,
    /// `true` if a message that says of itself that it was delivered before may come late. It was
    /// handed to a consumer that died before it could be seen.
    pub(crate) redelivered_may_be_late: bool,
    /// The reader of the dead letters.
    pub(crate) dead: String,
    /// `true` if a settled message must not come again.
    pub(crate) settles_for_good: bool,
    /// Loss is judged for messages that were published this long after the last deletion, if a
    /// deletion takes messages with it.
    pub(crate) lost_with_deletion: Option<Duration>,
    /// Maximum time from healing to progress.
    pub(crate) recovery: Duration,
    /// The password of the clients, if they have one.
    pub(crate) secret: Option<String>,
    /// Redeliveries of a message beyond those that a fault explains.
    pub(crate) spare_deliveries: usize,
}

/// A break of an invariant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Finding {
    pub(crate) invariant: Invariant,
    pub(crate) id: Option<Id>,
    pub(crate) text: String,
}

impl Finding {
    fn new(invariant: Invariant, id: impl Into<Option<Id>>, text: impl Into<String>) -> Self {
        Self { invariant, id: id.into(), text: text.into() }
    }
}

/// Returns every break in a history.
pub(crate) fn check(history: &[Record], rules: &Rules) -> Vec<Finding> {
    let ledger = Ledger::new(history);
    let mut findings = delivery::check(&ledger, rules);
    findings.extend(settling::check(&ledger, rules));
    findings.extend(order::check(&ledger, rules));
    findings.extend(context::check(&ledger));
    findings.extend(spans::check(&ledger));
    findings.extend(recovery::check(&ledger, rules));
    findings.extend(resources::check(&ledger));
    findings.extend(resources::told(history, rules));
    findings
}

/// Returns the numbers of a history.
pub(crate) fn figures(history: &[Record], rules: &Rules) -> Figures {
    delivery::figures(&Ledger::new(history), rules)
}

/// Returns the longest time from a healing to progress in all groups, if it was measured.
pub(crate) fn recoveries(history: &[Record], rules: &Rules) -> Vec<Option<Duration>> {
    recovery::measure(&Ledger::new(history), rules).into_iter().map(|healing| healing.took).collect()
}
