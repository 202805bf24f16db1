//! What is not done with: for tests and tools that want to know when all is quiet.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Messages of one topic that are not done with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// The topic.
    pub topic: String,
    /// What they wait for.
    pub pending: Pending,
    /// How many there are, at least 1.
    pub messages: usize,
}

/// What messages wait for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pending {
    /// To be stored: the topic is full.
    Room,
    /// Their time: they are delayed.
    Time,
    /// A reader: the newest messages of a topic that no group reads, and none has read as far.
    Unread,
    /// To be handed out to this group, or to be settled by it; `None` is a reader without a group.
    Group(Option<Arc<str>>),
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, pending, messages } = self;
        let plural = if *messages == 1 { "message" } else { "messages" };
        write!(f, "{messages} {plural} of `{topic}` ")?;
        match pending {
            Pending::Room => f.write_str("waiting for room in the topic"),
            Pending::Time => f.write_str("waiting for their time"),
            Pending::Unread => f.write_str("waiting for a reader"),
            Pending::Group(Some(group)) => write!(f, "not settled by the group `{group}`"),
            Pending::Group(None) => f.write_str("not settled by a reader without a group"),
        }
    }
}

/// Tells whoever watches a broker that something has happened in it. While nobody ever did, that costs one load.
#[derive(Debug, Default)]
pub(super) struct Changes {
    watched: AtomicBool,
    notify: Arc<Notify>,
}

impl Changes {
    /// Completes when something happens after the call.
    ///
    /// Whoever looks at a topic afterwards, under its lock, either sees what happened there or is told of it: whoever takes the lock
    /// later sees that somebody watches.
    pub(super) fn next(&self) -> impl Future<Output = ()> + Send + use<> {
        self.watched.store(true, Ordering::Relaxed);
        Arc::clone(&self.notify).notified_owned()
    }

    pub(super) fn tell(&self) {
        if self.watched.load(Ordering::Relaxed) {
            self.notify.notify_waiters();
        }
    }
}
