//! Messages still pending, for tests and tools that wait until the broker is at rest.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::sync::Notify;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Messages of one topic that are still pending.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use futures_util::StreamExt;
/// use traced_broker::adapters::memory::{Memory, Pending};
/// use traced_broker::{Message, Subscription, Traced, TracedBroker};
///
/// let broker = Traced::new(Memory::new());
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
/// let unread = &broker.get_ref().unfinished()[0];
/// assert_eq!((unread.topic.as_str(), unread.messages), ("orders", 1));
/// assert_eq!(unread.to_string(), "1 message of `orders` waiting for a reader");
///
/// let mut workers = broker.subscribe(Subscription::new("orders").group("workers")).await?;
/// let delivery = workers.next().await.expect("the subscription is open")?;
/// assert_eq!(broker.get_ref().unfinished()[0].pending, Pending::Group(Some("workers".into())));
/// delivery.ack().await?;
/// assert!(broker.get_ref().unfinished().is_empty());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// Name of the topic.
    pub topic: String,
    /// The event that the messages wait for.
    pub pending: Pending,
    /// The number of messages, at least 1.
    pub messages: usize,
}

/// The event that pending messages wait for.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::adapters::memory::{Memory, Pending};
/// use traced_broker::{BrokerUrl, Message, Traced, TracedBroker};
///
/// let url = BrokerUrl::parse("memory://pending-example?capacity=1")?;
/// let broker = Traced::new(Memory::connect(&url)?);
/// let tomorrow = Message::new("tomorrow").delay(Duration::from_secs(86_400));
/// broker.publish("orders", tomorrow).await?;
///
/// // The delayed message takes the only place of the topic, so the next publish waits.
/// let now = broker.publish("orders", Message::new("now"));
/// assert!(tokio::time::timeout(Duration::from_millis(10), now).await.is_err());
///
/// let unfinished = broker.get_ref().unfinished();
/// let pending: Vec<Pending> = unfinished.into_iter().map(|messages| messages.pending).collect();
/// assert_eq!(pending, [Pending::Room, Pending::Time]);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pending {
    /// Room in the topic, which is full: the messages are not stored yet.
    Room,
    /// The due time of delayed messages.
    Time,
    /// A reader: no group reads the topic, and no earlier group read as far as these messages.
    Unread,
    /// Settlement by this group, also if not delivered yet; `None` is a reader without a group.
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

/// Notifies watchers of a change; costs one atomic load until there has been a watcher.
#[derive(Debug, Default)]
pub(super) struct Changes {
    watched: AtomicBool,
    notify: Arc<Notify>,
}

impl Changes {
    /// Completes at the next change after the call.
    ///
    /// A caller that looks at a topic afterwards, under its lock, cannot miss a change there.
    /// Either it sees the change, or the next holder of the lock sees `watched` and notifies it.
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
