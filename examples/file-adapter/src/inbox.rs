//! The messages that are handed out to a member and not yielded by its stream yet.
//!
//! A channel would hide which of its messages were yielded. The group must know: those that were
//! not are taken back uncounted when the member leaves, and forgotten when the group is moved.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::group::Handed;

/// A queue between a group and one of its members, bounded by the member's room.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Handed>,
    ended: bool,
}

impl Inbox {
    /// Adds a message.
    pub(crate) fn put(&self, handed: Handed) {
        self.waiting.lock().messages.push_back(handed);
        self.changed.notify_one();
    }

    /// Takes the next message, waiting for it; `None` after the end.
    pub(crate) async fn next(&self) -> Option<Handed> {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if waiting.ended {
                    return None;
                }
                if let Some(handed) = waiting.messages.pop_front() {
                    return Some(handed);
                }
            }
            self.changed.notified().await;
        }
    }

    /// Takes back the messages that were not yielded.
    pub(crate) fn take_back(&self) -> VecDeque<Handed> {
        std::mem::take(&mut self.waiting.lock().messages)
    }

    /// Yields no more messages.
    pub(crate) fn end(&self) {
        self.waiting.lock().ended = true;
        self.changed.notify_one();
    }
}
