//! Subscriptions: streams of messages that go on when the directory is opened again, and the handles to settle them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::mpsc;
use traced_broker::capability::TimestampSource;
use traced_broker::driver::{AttributeValue, Confirmation, DeliveryHandle, Disposition, Inbound, Timestamp};
use traced_broker::{Result, Start, Subscription, Topic};

use crate::connection::Connection;
use crate::group::{Handed, Member};
use crate::queue::{Command, Ticket};
use crate::store::{Store, settlement_lost};
use crate::topic::GroupKey;

/// How long to wait when the directory is there and the topic cannot be joined.
const PAUSE: Duration = Duration::from_millis(200);

static NEXT_MEMBER: AtomicU64 = AtomicU64::new(1);

/// A subscription, as its stream carries it along.
pub(crate) struct Reading {
    connection: Arc<Connection>,
    topic: Topic,
    group: GroupKey,
    member: u64,
    start: Start,
    limit: usize,
    messages: mpsc::Receiver<Handed>,
    store: Weak<Store>,
}

impl Reading {
    pub(crate) async fn begin(connection: Arc<Connection>, subscription: &Subscription) -> Result<Self> {
        let member = NEXT_MEMBER.fetch_add(1, Ordering::Relaxed);
        let named = subscription.group_name().map(|name| GroupKey::Named(name.into()));
        let mut reading = Self {
            connection,
            topic: Topic::new(subscription.topic())?,
            group: named.unwrap_or(GroupKey::Reader(member)),
            member,
            start: subscription.start_position(),
            limit: subscription.max_unsettled(),
            messages: mpsc::channel(1).1,
            store: Weak::new(),
        };
        let create = reading.connection.place.create;
        let store = reading.connection.store()?;
        reading.join(&store, create).await?;
        Ok(reading)
    }

    async fn join(&mut self, store: &Arc<Store>, create: bool) -> Result<()> {
        // Room for all that may be unsettled: the store never waits for us.
        let (sender, messages) = mpsc::channel(self.limit);
        let (topic, group) = (self.topic.clone(), self.group.clone());
        let member = Member { id: self.member, connection: self.connection.id, room: self.limit, messages: sender };
        let start = self.start;
        self.messages = messages;
        self.store = Arc::downgrade(store);
        self.connection.ask(|reply| Command::Join { topic, group, start, member, create, reply }).await
    }

    /// The messages, until the connection is closed.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Inbound>> + Send {
        futures_util::stream::unfold(self, |mut reading| async {
            let connection = Arc::clone(&reading.connection);
            tokio::select! {
                biased;
                () = connection.closed() => None,
                item = reading.next() => item.map(|item| (item, reading)),
            }
        })
    }

    async fn next(&mut self) -> Option<Result<Inbound>> {
        loop {
            if let Some(handed) = self.messages.recv().await {
                return Some(Ok(self.inbound(handed)));
            }
            let store = self.connection.next_store().await?;
            if let Err(error) = self.join(&store, false).await {
                tokio::time::sleep(PAUSE).await;
                return Some(Err(error.with_operation("subscribe")));
            }
        }
    }

    fn inbound(&mut self, handed: Handed) -> Inbound {
        if matches!(self.group, GroupKey::Reader(_)) {
            // A reader has no file that tells where it was.
            self.start = Start::Offset(handed.number + 1);
        }
        let handle = Handle { ticket: Some(self.ticket(&handed)), store: self.store.clone() };
        let stored = handed.stored;
        Inbound {
            payload: stored.payload,
            key: stored.key,
            id: stored.id,
            headers: stored.headers,
            unreadable_headers: stored.unreadable_headers,
            attempt: handed.attempt,
            timestamp: stored.time.map(|time| Timestamp { time, source: TimestampSource::Broker }),
            partition: None,
            offset: i64::try_from(handed.number).ok(),
            handle: Box::new(handle),
        }
    }

    fn ticket(&self, handed: &Handed) -> Ticket {
        let (topic, group) = (self.topic.clone(), self.group.clone());
        Ticket { topic, group, number: handed.number, delivery: handed.delivery }
    }
}

impl Drop for Reading {
    /// Leaves the group, and gives back what was on its way here.
    fn drop(&mut self) {
        let Some(store) = self.store.upgrade() else { return };
        let (topic, group) = (self.topic.clone(), self.group.clone());
        store.queue.push(Command::Leave { topic, group, member: self.member });
        self.messages.close();
        while let Ok(handed) = self.messages.try_recv() {
            store.queue.push(Command::Unsent(self.ticket(&handed)));
        }
    }
}

/// The way to settle one delivery. One that is dropped unsettled gives its message back.
#[derive(Debug)]
struct Handle {
    ticket: Option<Ticket>,
    /// The store that handed it out: no other has this delivery.
    store: Weak<Store>,
}

impl Handle {
    fn send(&mut self, disposition: Disposition) -> Confirmation<()> {
        let (Some(ticket), Some(store)) = (self.ticket.take(), self.store.upgrade()) else {
            return Confirmation::ready(Err(settlement_lost()));
        };
        let (confirmer, confirmation) = Confirmation::pending();
        match store.queue.push(Command::Settle { ticket, disposition, confirmer }) {
            true => confirmation,
            false => Confirmation::ready(Err(settlement_lost())),
        }
    }
}

impl DeliveryHandle for Handle {
    fn settle(mut self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        self.send(disposition)
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        let number = self.ticket.as_ref().and_then(|ticket| i64::try_from(ticket.number).ok());
        number.into_iter().for_each(|number| visit("messaging.files.number", AttributeValue::Integer(number)));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            drop(self.send(Disposition::Retry(Duration::ZERO)));
        }
    }
}
