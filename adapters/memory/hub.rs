//! Brokers by name, their topics, and connections to them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::log::Bounds;
use super::topic::TopicLog;
use super::unfinished::{Changes, Unfinished};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};

/// The brokers that URLs reach; an entry ends with the last connection to its broker.
static SHARED: LazyLock<Mutex<HashMap<String, Weak<Hub>>>> = LazyLock::new(Mutex::default);

/// The settings that all connections to a broker share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// The bounds of each topic.
    pub(super) bounds: Bounds,
    /// Time without a member after which a group may end if its topic is full.
    pub(super) group_expiry: Duration,
}

/// An embedded broker.
#[derive(Debug)]
pub(super) struct Hub {
    settings: Settings,
    topics: RwLock<HashMap<Box<str>, Arc<TopicLog>>>,
    changes: Arc<Changes>,
}

impl Hub {
    pub(super) fn private(settings: Settings) -> Arc<Self> {
        Arc::new(Self { settings, topics: RwLock::default(), changes: Arc::default() })
    }

    /// Returns the broker with this name; creates it with these settings if it is missing.
    pub(super) fn named(name: &str, settings: Settings) -> Arc<Self> {
        let mut shared = SHARED.lock();
        shared.retain(|_, hub| hub.strong_count() > 0);
        if let Some(hub) = shared.get(name).and_then(Weak::upgrade) {
            return hub;
        }
        let hub = Self::private(settings);
        shared.insert(name.to_owned(), Arc::downgrade(&hub));
        hub
    }

    pub(super) fn settings(&self) -> Settings {
        self.settings
    }

    /// Returns the pending messages, by topic.
    pub(super) fn unfinished(&self) -> Vec<Unfinished> {
        let topics = self.topics.read();
        let mut names: Vec<&str> = topics.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names.into_iter().flat_map(|name| topics[name].unfinished(name)).collect()
    }

    /// Completes at the next change after the call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.changes.next()
    }

    pub(super) fn existing_topic(&self, name: &str) -> Option<Arc<TopicLog>> {
        self.topics.read().get(name).cloned()
    }

    pub(super) fn topic(&self, name: &str) -> Arc<TopicLog> {
        if let Some(topic) = self.existing_topic(name) {
            return topic;
        }
        let mut topics = self.topics.write();
        Arc::clone(topics.entry(name.into()).or_insert_with(|| Arc::new(self.new_topic())))
    }

    fn new_topic(&self) -> TopicLog {
        TopicLog::new(self.settings.bounds, self.settings.group_expiry, Arc::clone(&self.changes))
    }

    fn topics(&self) -> Vec<Arc<TopicLog>> {
        self.topics.read().values().cloned().collect()
    }
}

/// A connection to a broker. Its unsettled deliveries go back to their groups when it is closed.
#[derive(Debug)]
pub(super) struct Connection {
    hub: Arc<Hub>,
    id: u64,
    closed: CancellationToken,
}

impl Connection {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { hub, id: NEXT.fetch_add(1, Ordering::Relaxed), closed: CancellationToken::new() }
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Completes when the connection is closed.
    pub(super) fn closed(&self) -> WaitForCancellationFutureOwned {
        self.closed.clone().cancelled_owned()
    }

    pub(super) fn close(&self) {
        if !self.closed.is_cancelled() {
            self.closed.cancel();
            self.hub.topics().iter().for_each(|topic| topic.release(self.id));
        }
    }
}
