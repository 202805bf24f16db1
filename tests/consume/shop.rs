//! A memory broker with one topic, and a record of what handlers saw.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use traced_broker::adapters::memory::Memory;
use traced_broker::{Message, Received, Subscription, Traced, TracedBroker};

pub(crate) const TOPIC: &str = "orders";
pub(crate) const DEAD: &str = "orders.dead";

pub(crate) fn broker() -> Traced<Arc<Memory>> {
    Traced::new(Arc::new(Memory::new()))
}

pub(crate) fn workers() -> Subscription {
    Subscription::new(TOPIC).group("workers")
}

/// Publishes messages given as `key:payload`, or as a payload alone.
pub(crate) async fn publish(broker: &impl TracedBroker, messages: impl IntoIterator<Item = impl AsRef<str>>) {
    for message in messages {
        let message = match message.as_ref().split_once(':') {
            Some((key, payload)) => Message::new(payload.to_owned()).key(key),
            None => Message::new(message.as_ref().to_owned()),
        };
        broker.publish(TOPIC, message).await.unwrap();
    }
}

/// The messages that handlers saw, in order, as text.
#[derive(Debug, Default)]
pub(crate) struct Record {
    lines: Mutex<Vec<String>>,
    more: Notify,
}

impl Record {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.lines.lock().push(line.into());
        self.more.notify_waiters();
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// Waits until there are this many lines.
    pub(crate) async fn reaches(&self, count: usize) {
        let reached = async {
            loop {
                let more = self.more.notified();
                if self.lines.lock().len() >= count {
                    return;
                }
                more.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), reached).await;
        waited.unwrap_or_else(|_| panic!("{count} lines expected: {:?}", self.lines()));
    }
}

pub(crate) fn text(message: &Received) -> String {
    String::from_utf8(message.payload().to_vec()).unwrap()
}
