//! The published messages that the broker returned because no queue takes them.
//!
//! The client assigns a returned message to the confirm that it completes next, but one confirm may
//! cover many messages. Each message therefore carries a number. The number of a returned message
//! is noted as its frames arrive, before those of its confirm.

use crate::names::header;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::table::{Entries, Value};

/// The returned messages of one connection. Holds at most one number per unconfirmed message.
#[derive(Debug, Default)]
pub(crate) struct Returned {
    /// The publishing channel; no channel has number 0.
    channel: AtomicU16,
    next: AtomicU64,
    numbers: Mutex<HashSet<i64>>,
}

impl Returned {
    /// Sets the channel on which returned messages are expected from now on.
    pub(crate) fn watch(&self, channel: u16) {
        self.numbers.lock().clear();
        self.channel.store(channel, Ordering::Release);
    }

    pub(crate) fn is_channel(&self, channel: u16) -> bool {
        self.channel.load(Ordering::Acquire) == channel
    }

    /// Returns a number for a message to publish.
    pub(crate) fn number(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed).cast_signed()
    }

    /// Notes a returned message by its header table.
    pub(crate) fn note(&self, table: &[u8]) {
        if let Some(Value::Integer(number)) = Entries::new(table).find(header::PUBLISH_NUMBER) {
            self.numbers.lock().insert(number);
        }
    }

    /// Returns `true` if the confirmed message of that number was returned.
    pub(crate) fn take(&self, number: i64) -> bool {
        self.numbers.lock().remove(&number)
    }
}
