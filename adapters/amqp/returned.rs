//! Which of our messages the broker returned because no queue takes them.
//!
//! The client hands a returned message to whichever confirm it completes next, and confirms come for many messages at once. So
//! each message carries a number of ours, and the number of a returned one is noted as its frames arrive, before those
//! of its confirm.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::table::{Entries, Value};

/// The header that holds the number, written only where returns are asked for.
pub(super) const NUMBER: &str = "publish-number";

/// The returned messages of one connection. Holds a number per message that awaits its confirm, at most.
#[derive(Debug, Default)]
pub(super) struct Returned {
    /// The channel that publishes; no channel has number 0.
    channel: AtomicU16,
    next: AtomicU64,
    numbers: Mutex<HashSet<i64>>,
}

impl Returned {
    /// Returns are expected on this channel from now on.
    pub(super) fn watch(&self, channel: u16) {
        self.numbers.lock().clear();
        self.channel.store(channel, Ordering::Release);
    }

    pub(super) fn is_channel(&self, channel: u16) -> bool {
        self.channel.load(Ordering::Acquire) == channel
    }

    /// A number for a message to publish.
    pub(super) fn number(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed).cast_signed()
    }

    /// Notes a returned message by its header table.
    pub(super) fn note(&self, table: &[u8]) {
        if let Some(Value::Integer(number)) = Entries::new(table).find(NUMBER) {
            self.numbers.lock().insert(number);
        }
    }

    /// Whether the confirmed message of that number was returned.
    pub(super) fn take(&self, number: i64) -> bool {
        self.numbers.lock().remove(&number)
    }
}
