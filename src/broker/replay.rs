//! The boundary between replayed and new messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::message::Subscription;

/// Maximum number of groups whose replay marks are kept.
const MAX_GROUPS: usize = 4096;

/// The time before which stored messages are a replay, shared by the members of a group; unset at
/// first.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReplayMark(Arc<AtomicU64>);

impl ReplayMark {
    /// Marks all messages stored until now as a replay.
    fn set(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.store(now.as_micros().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns `true` if a message stored at that time is handed out as a replay.
    pub(crate) fn covers(&self, stored: Option<SystemTime>) -> bool {
        let mark = self.0.load(Ordering::Relaxed);
        if mark == 0 {
            return false;
        }
        let stored = stored.map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros());
        stored.is_some_and(|stored| stored < u128::from(mark))
    }
}

/// A topic and a group of its consumers.
type Group = (Box<str>, Box<str>);

/// The replay marks of the groups that may be moved.
#[derive(Debug, Default)]
pub(crate) struct Replays(Mutex<HashMap<Group, ReplayMark>>);

impl Replays {
    /// Returns the mark of a subscription that begins now.
    pub(crate) fn begin(&self, subscription: &Subscription) -> ReplayMark {
        if subscription.is_replay() {
            // Not shared: the other members of the group have not asked for a replay.
            let mark = ReplayMark::default();
            mark.set();
            return mark;
        }
        self.of_group(subscription).unwrap_or_default()
    }

    /// Records that the subscription's group was moved.
    pub(crate) fn moved(&self, subscription: &Subscription) {
        if let Some(mark) = self.of_group(subscription) {
            mark.set();
        }
    }

    fn of_group(&self, subscription: &Subscription) -> Option<ReplayMark> {
        let key = (subscription.topic().into(), subscription.group_name()?.into());
        let mut groups = self.0.lock();
        if groups.len() >= MAX_GROUPS && !groups.contains_key(&key) {
            return None;
        }
        Some(groups.entry(key).or_default().clone())
    }
}
