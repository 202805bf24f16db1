//! The record of a scenario: what was asked for, what was answered, and what was handled.

use std::sync::Arc;

use parking_lot::Mutex;
use traced_broker::{PublishOutcome, Receipt, Result};

/// The end of a publish, as its caller saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Confirmed,
    NotSent,
    /// Also of a publish that the caller gave up.
    Unknown,
}

impl Outcome {
    pub(crate) fn of(result: Option<&Result<Receipt>>) -> Self {
        match result {
            Some(Ok(_)) => Self::Confirmed,
            Some(Err(error)) if error.publish_outcome() == PublishOutcome::NotSent => Self::NotSent,
            Some(Err(_)) | None => Self::Unknown,
        }
    }
}

/// Something that happened in a scenario. Orders have numbers, in the order of their publishing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Published {
        order: usize,
        outcome: Outcome,
    },
    /// The topic of the bridge's copies could not be declared, so that copies failed before the
    /// driver got them.
    NoArchive,
    /// The driver got a copy from the bridge.
    Copied {
        order: usize,
    },
    /// A handler of a group began.
    Began {
        group: &'static str,
        order: usize,
        offset: i64,
        attempt: u32,
        key: String,
        is_lost: bool,
    },
    /// A handler ended by itself.
    Ended {
        group: &'static str,
        order: usize,
        offset: i64,
        is_ok: bool,
    },
    /// The broker confirmed an acknowledgement.
    Settled {
        group: &'static str,
        order: usize,
        offset: i64,
    },
    /// The harness itself found something.
    Found(String),
}

/// The events so far. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<Event>>>);

impl Ledger {
    pub(crate) fn record(&self, event: Event) {
        self.0.lock().push(event);
    }

    pub(crate) fn found(&self, what: impl Into<String>) {
        self.record(Event::Found(what.into()));
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().clone()
    }

    /// Returns how often handlers of the group ended by themselves with this order at this offset,
    /// well or not.
    pub(crate) fn ended(&self, of: &str, number: usize, at: i64, well: bool) -> usize {
        let ended = |event: &&Event| {
            matches!(event, Event::Ended { group, order, offset, is_ok }
                if (*group, *order, *offset, *is_ok) == (of, number, at, well))
        };
        self.0.lock().iter().filter(ended).count()
    }

    /// Returns `true` if some handler of the group has ended well with the order.
    pub(crate) fn is_handled(&self, of: &str, number: usize) -> bool {
        self.0.lock().iter().any(
            |event| matches!(event, Event::Ended { group, order, is_ok: true, .. } if (*group, *order) == (of, number)),
        )
    }
}
