//! Which messages come from the past.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::address::Subscription;

/// How many groups are remembered as moved or to be moved.
const MAX_GROUPS: usize = 4096;

/// The time before which what was stored is a replay, shared by the members of a group; none at first.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReplayMark(Arc<AtomicU64>);

impl ReplayMark {
    /// Everything until now is a replay from here on.
    fn set(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.store(now.as_micros().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether what was stored at that time is handed out as a replay.
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

/// The groups that this broker handle has moved, or could.
#[derive(Debug, Default)]
pub(crate) struct Replays(Mutex<HashMap<Group, ReplayMark>>);

impl Replays {
    /// The mark of a subscription that begins now.
    pub(crate) fn begin(&self, subscription: &Subscription) -> ReplayMark {
        if subscription.is_replay() {
            // Its own, for the other members of a group have not asked for one.
            let mark = ReplayMark::default();
            mark.set();
            return mark;
        }
        self.of_group(subscription).unwrap_or_default()
    }

    /// The subscription's group was moved.
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
