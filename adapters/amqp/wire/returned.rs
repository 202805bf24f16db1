//! The published messages that the broker returned because no queue takes them.
//!
//! The client assigns a returned message to the confirm that it completes next, but one confirm may
//! cover many messages. Each message therefore carries a number. The number of a returned message
//! is noted as its frames arrive, before those of its confirm.

use crate::names::header;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::table::{Entries, Value};

/// The returned messages of one connection. Holds at most one number per unconfirmed message.
#[derive(Debug, Default)]
pub(crate) struct Returned {
    /// The publishing channels, with the number of their users: the next channel may get the number
    /// of one that was closed.
    channels: Mutex<HashMap<u16, usize>>,
    next: AtomicU64,
    numbers: Mutex<HashSet<i64>>,
}

impl Returned {
    /// Expects returned messages on this channel from now on.
    pub(crate) fn watch(&self, channel: u16) {
        *self.channels.lock().entry(channel).or_default() += 1;
    }

    /// Ends what [`watch`](Self::watch) began.
    pub(crate) fn unwatch(&self, channel: u16) {
        let mut channels = self.channels.lock();
        if let Some(users) = channels.get_mut(&channel) {
            *users -= 1;
        }
        channels.retain(|_, users| *users > 0);
    }

    pub(crate) fn is_channel(&self, channel: u16) -> bool {
        self.channels.lock().contains_key(&channel)
    }

    /// Returns a number for a message to publish.
    pub(crate) fn number(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed).cast_signed()
    }

    /// Notes a returned message by its header table.
    pub(crate) fn note(&self, table: &[u8]) {
        if let Some(Value::Bytes(text)) = Entries::new(table).find(header::PUBLISH_NUMBER)
            && let Some(number) = read(text)
        {
            self.numbers.lock().insert(number);
        }
    }

    /// Forgets the number of a message that is answered. Returns `true` if it was returned.
    pub(crate) fn take(&self, number: i64) -> bool {
        self.numbers.lock().remove(&number)
    }
}

/// Returns a number as it is written in the header, always equally long. As text, because there
/// are consumers that refuse headers of other types.
pub(crate) fn written(number: i64) -> String {
    format!("{number:016x}")
}

fn read(text: &[u8]) -> Option<i64> {
    i64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}
