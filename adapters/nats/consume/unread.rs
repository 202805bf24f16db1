//! The unread messages of a core subscription: bounded by number and bytes, with the gaps between
//! them.

use std::collections::VecDeque;
use std::sync::Arc;

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, interval};

use super::super::connection::health::Health;

/// Bounds of what waits to be read. The server does not wait, so messages beyond are dropped.
pub(crate) const MESSAGES: usize = 65_536;
const BYTES: usize = 64 * 1024 * 1024;
/// Interval of the checks for a connection that was replaced.
const LOOK: Duration = Duration::from_millis(200);

/// An event of the queue.
#[derive(Debug)]
pub(crate) enum Unread {
    Message(Message),
    /// The connection was lost and restored here.
    Gap,
    /// So many messages were dropped.
    Dropped(u64),
    /// The client has given up for good.
    End,
}

/// The queue of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The messages, and `None` for a gap.
    items: VecDeque<Option<Message>>,
    bytes: usize,
    dropped: u64,
    has_ended: bool,
}

impl Queue {
    /// Returns the next event; dropping the future loses none.
    pub(crate) async fn next(&self) -> Unread {
        loop {
            let changed = self.changed.notified();
            if let Some(unread) = self.waiting.lock().take() {
                return unread;
            }
            changed.await;
        }
    }

    fn add(&self, item: Option<Message>) {
        self.waiting.lock().add(item);
        self.changed.notify_one();
    }

    fn end(&self) {
        self.waiting.lock().has_ended = true;
        self.changed.notify_one();
    }
}

impl Waiting {
    fn take(&mut self) -> Option<Unread> {
        if self.dropped > 0 {
            return Some(Unread::Dropped(std::mem::take(&mut self.dropped)));
        }
        match self.items.pop_front() {
            Some(Some(message)) => {
                self.bytes -= message.length;
                Some(Unread::Message(message))
            }
            Some(None) => Some(Unread::Gap),
            None => self.has_ended.then_some(Unread::End),
        }
    }

    fn add(&mut self, item: Option<Message>) {
        let size = item.as_ref().map_or(0, |message| message.length);
        if self.items.len() >= MESSAGES || self.bytes + size > BYTES {
            self.dropped += 1;
            return;
        }
        self.bytes += size;
        self.items.push_back(item);
    }
}

/// Reads a subscription into a queue until the client ends.
pub(crate) async fn read(mut subscriber: Subscriber, client: Client, queue: Arc<Queue>) {
    let health = Health::of(client);
    let (mut epoch, mut look) = (health.epoch(), interval(LOOK));
    loop {
        let next = tokio::select! {
            next = subscriber.next() => Some(next),
            _ = look.tick() => None,
        };
        let now = health.epoch();
        if std::mem::replace(&mut epoch, now) != now {
            queue.add(None);
        }
        match next {
            Some(Some(message)) => queue.add(Some(message)),
            Some(None) => return queue.end(),
            None => {}
        }
    }
}
