//! The answers to messages that no queue takes.
//!
//! A topic without subscribers is nobody's mistake, and its messages are dropped. But a topic may
//! have lost its queues: an operator deleted its exchange, and the publisher has made another. A
//! message is then not confirmed, until the subscriptions had time to bind their queues again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

/// Time after the deletion of an exchange in which its subscriptions bind their queues again. They
/// look after their bindings every five seconds.
const WHILE: Duration = Duration::from_secs(15);

/// The topics that are published or subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Routes(Mutex<HashMap<String, Arc<Route>>>);

/// The way from one topic to its queues.
#[derive(Debug, Default)]
pub(crate) struct Route {
    /// Held by each subscription of this driver, too.
    interest: Arc<()>,
    deleted: Mutex<Option<Instant>>,
    /// The number of messages that should have been taken and were not.
    broken: AtomicU32,
    is_told: AtomicBool,
}

/// The interest of a subscription in its topics, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    routes: Vec<(Arc<Route>, Arc<()>)>,
    /// The number of messages that the routes had lost at the last look.
    seen: AtomicU32,
}

impl Routes {
    pub(crate) fn of(&self, topic: &str) -> Arc<Route> {
        Arc::clone(self.0.lock().entry(topic.to_owned()).or_default())
    }

    /// Notes that a topic was deleted.
    pub(crate) fn deleted(&self, topic: &str) {
        let route = self.of(topic);
        *route.deleted.lock() = Some(Instant::now());
        route.broken.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn interest<'a>(&self, topics: impl Iterator<Item = &'a str>) -> Interest {
        let routes = topics.map(|topic| self.of(topic)).map(|route| (Arc::clone(&route), Arc::clone(&route.interest)));
        Interest { routes: routes.collect(), seen: AtomicU32::new(0) }
    }
}

impl Route {
    /// Returns the answer to a publish of a message that no queue took.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if there have to be subscriptions.
    pub(crate) fn returned(&self, topic: &str) -> Result<Receipt> {
        let was_deleted = self.deleted.lock().is_some_and(|at| at.elapsed() < WHILE);
        if was_deleted || Arc::strong_count(&self.interest) > 1 {
            self.broken.fetch_add(1, Ordering::Relaxed);
            let message = "no queue receives the message: the topic has lost its queues, which are being bound again";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        if !self.is_told.swap(true, Ordering::Relaxed) {
            let message = "no queue receives messages of this topic, the broker drops them: create a group first, \
                           or set unroutable=reject";
            tracing::warn!(topic, message);
        }
        Ok(Receipt { unroutable: true, ..Receipt::confirmed() })
    }
}

impl Interest {
    /// Returns `true` if bindings of the topics may have been lost since the last call.
    pub(crate) fn is_broken(&self) -> bool {
        let broken = self.routes.iter().map(|(route, _)| route.broken.load(Ordering::Relaxed));
        let broken = broken.fold(0, u32::wrapping_add);
        self.seen.swap(broken, Ordering::Relaxed) != broken
    }
}
