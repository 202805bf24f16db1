//! The events of a run, as they happened.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::recipe::{Flaw, Id};

/// An event with its time, in microseconds of the system's clock, which all processes of a run
/// share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) at: u64,
    #[serde(flatten)]
    pub(crate) event: Event,
}

impl Record {
    pub(crate) fn now(event: Event) -> Self {
        Self { at: now(), event }
    }
}

/// Returns the time of the clock.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// An event of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A publish is about to be polled for the first time.
    Attempted {
        id: Id,
        key: String,
    },
    Confirmed {
        id: Id,
    },
    /// The publish failed and was certainly not sent.
    NotSent {
        id: Id,
        why: String,
    },
    /// The publish failed or was given up, and may have been sent.
    Unknown {
        id: Id,
        why: String,
    },
    /// A process has subscribed to everything.
    Joined {
        member: String,
    },
    /// A member of a group has a message in hand.
    Delivered(Delivered),
    /// The work on a delivery ended, with the flaws that it saw.
    Handled {
        delivery: String,
        flaws: Vec<Flaw>,
    },
    /// A member is about to ask for this settlement.
    Asked {
        delivery: String,
        verdict: Verdict,
    },
    /// The answer to it.
    Settled {
        delivery: String,
        outcome: Outcome,
    },
    /// The process span of a delivery ended.
    SpanEnded {
        delivery: String,
    },
    /// All spans of a process that was not killed.
    Spans {
        member: String,
        started: u64,
        ended: u64,
    },
    /// A process was killed with everything that it had in hand.
    Died {
        member: String,
    },
    /// A subscription reported a problem.
    Trouble {
        group: String,
        why: String,
    },
    /// A fault begins, and may last until the next [`Healed`](Self::Healed).
    Fault {
        name: String,
    },
    /// The server answers again, or the connections pass.
    Healed,
    /// An operator deleted something at the server.
    Deleted {
        what: String,
    },
    /// The producers stopped.
    TrafficEnded,
    /// A broker handle was closed.
    Closed {
        member: String,
        error: Option<String>,
    },
    /// The broker's own count of messages of a group that are not settled, after closing.
    Pending {
        group: String,
        count: u64,
    },
    /// Resources of a process before it connected, and after it closed.
    Resources {
        member: String,
        before: Resources,
        after: Resources,
    },
    /// The resident memory of a process.
    Memory {
        member: String,
        kibibytes: u64,
    },
    /// A text with the password of the clients.
    Told {
        text: String,
    },
    /// A panic, or an operation that did not end in time.
    Stuck {
        what: String,
    },
}

/// Counts of the kernel for one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resources {
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
}

/// A message in the hands of a member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Delivered {
    pub(crate) group: String,
    /// The process.
    pub(crate) member: String,
    /// The name of this delivery; in the runtime, the id of its process span.
    pub(crate) delivery: String,
    /// `None` for a payload that is not of this run.
    pub(crate) id: Option<Id>,
    pub(crate) attempt: u32,
    /// The broker's own count of deliveries, if it has one.
    pub(crate) deliveries: Option<u32>,
    /// Partition and offset, where the broker has them.
    pub(crate) place: String,
    pub(crate) flaws: Vec<Flaw>,
}

/// The settlement that a member asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Ack,
    Retry,
    Reject,
    /// None: the delivery is dropped.
    Drop,
}

/// The answer to a settlement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Settled,
    /// The connection or assignment was gone: it may be settled or not.
    Lost,
    /// The message is kept, because of this error.
    Failed(String),
}
