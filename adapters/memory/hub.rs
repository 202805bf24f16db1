//! Brokers by name, their topics, and connections to them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, LazyLock, Weak};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::DEFAULT_CAPACITY;
use super::topic::TopicLog;
use super::unfinished::{Changes, Unfinished};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};

/// The brokers that URLs reach; an entry ends with the last connection to its broker.
static SHARED: LazyLock<Mutex<HashMap<String, Weak<Hub>>>> = LazyLock::new(Mutex::default);

/// An embedded broker.
#[derive(Debug)]
pub(super) struct Hub {
    capacity: usize,
    topics: RwLock<HashMap<Box<str>, Arc<TopicLog>>>,
    changes: Arc<Changes>,
}

impl Hub {
    pub(super) fn private(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, topics: RwLock::default(), changes: Arc::default() })
    }

    /// Returns the broker with this name; creates it with this capacity if it is missing.
    pub(super) fn named(name: &str, capacity: usize) -> Arc<Self> {
        let mut shared = SHARED.lock();
        shared.retain(|_, hub| hub.strong_count() > 0);
        if let Some(hub) = shared.get(name).and_then(Weak::upgrade) {
            return hub;
        }
        let hub = Self::private(capacity);
        shared.insert(name.to_owned(), Arc::downgrade(&hub));
        hub
    }

    /// Returns the broker with this name, created if it is missing. Fails if it exists with a
    /// capacity other than the given one.
    pub(super) fn shared(name: &str, capacity: Option<usize>) -> Result<Arc<Self>> {
        let hub = Self::named(name, capacity.unwrap_or(DEFAULT_CAPACITY));
        match capacity {
            Some(capacity) if capacity != hub.capacity => {
                Err(Error::new(ErrorKind::Conflict, "the broker of that name has another capacity")
                    .with_context("name", name)
                    .with_context("capacity", hub.capacity))
            }
            _ => Ok(hub),
        }
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
        Arc::clone(
            topics
                .entry(name.into())
                .or_insert_with(|| Arc::new(TopicLog::new(self.capacity, Arc::clone(&self.changes)))),
        )
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
