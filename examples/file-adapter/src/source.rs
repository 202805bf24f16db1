//! Subscriptions: streams of messages that continue when the directory is reopened, and the handles
//! that settle the messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::Stream;
use traced_broker::capability::TimestampSource;
use traced_broker::driver::{
    AttributeValue, Confirmation, DeliveryHandle, Destination, Disposition, Inbound, Source, Timestamp,
};
use traced_broker::{Result, Start, Subscription, Topic};

use crate::connection::Connection;
use crate::group::{Handed, Member};
use crate::inbox::Inbox;
use crate::queue::{Command, Ticket};
use crate::store::{Store, settlement_lost};
use crate::topic::GroupKey;

/// Delay after an attempt to join a topic has failed although the directory is open.
const PAUSE: Duration = Duration::from_millis(200);

static NEXT_MEMBER: AtomicU64 = AtomicU64::new(1);

/// A subscription, which is the state of its stream.
pub(crate) struct Reading {
    connection: Arc<Connection>,
    topic: Topic,
    group: GroupKey,
    member: u64,
    start: Start,
    limit: usize,
    inbox: Arc<Inbox>,
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
            limit: subscription.prefetch_limit(),
            inbox: Arc::default(),
            store: Weak::new(),
        };
        let create = reading.connection.location.create;
        let store = reading.connection.store()?;
        reading.join(&store, create).await?;
        Ok(reading)
    }

    async fn join(&mut self, store: &Arc<Store>, create: bool) -> Result<()> {
        let inbox = Arc::new(Inbox::default());
        let (topic, group) = (self.topic.clone(), self.group.clone());
        let connection = self.connection.id;
        let member = Member { id: self.member, connection, room: self.limit, inbox: Arc::clone(&inbox) };
        let start = self.start;
        self.inbox = inbox;
        self.store = Arc::downgrade(store);
        let first = self.connection.ask(|reply| Command::Join { topic, group, start, member, create, reply }).await?;
        if matches!(self.group, GroupKey::Reader(_)) {
            // "The latest" is decided once, not again after each failure.
            self.start = Start::Offset(first);
        }
        Ok(())
    }

    /// Returns the subscription, whose stream ends when the connection is closed.
    pub(crate) fn into_source(self) -> Source {
        let (connection, topic) = (Arc::clone(&self.connection), self.topic.clone());
        let (group, member) = (self.group.clone(), self.member);
        let stop = move || {
            let store = connection.store().ok();
            store.map(|store| store.queue.push(Command::Stop { topic, group, member }));
        };
        Source::new(Destination::new(), self.into_stream()).on_stop(stop)
    }

    fn into_stream(self) -> impl Stream<Item = Result<Inbound>> + Send {
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
            if let Some(handed) = self.inbox.next().await {
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
            // A reader has no file that holds its position.
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
            deliveries: Some(handed.deliveries),
            lost_trials: None,
            timestamp: stored.time.map(|time| Timestamp { time, source: TimestampSource::Broker }),
            partition: None,
            offset: i64::try_from(handed.number).ok(),
            native: None,
            tenure: handed.tenure,
            handle: Box::new(handle),
        }
    }

    fn ticket(&self, handed: &Handed) -> Ticket {
        let (topic, group) = (self.topic.clone(), self.group.clone());
        Ticket { topic, group, number: handed.number, delivery: handed.delivery }
    }
}

impl Drop for Reading {
    /// Leaves the group, which takes back the messages that were not yielded.
    fn drop(&mut self) {
        let Some(store) = self.store.upgrade() else { return };
        let (topic, group) = (self.topic.clone(), self.group.clone());
        store.queue.push(Command::Leave { topic, group, member: self.member });
    }
}

/// The handle of one delivery. Dropping it unsettled gives the message back.
#[derive(Debug)]
struct Handle {
    ticket: Option<Ticket>,
    /// The store that handed the message out; no other store has this delivery.
    store: Weak<Store>,
}

impl Handle {
    fn send(&mut self, disposition: Disposition) -> Confirmation<()> {
        let (Some(ticket), Some(store)) = (self.ticket.take(), self.store.upgrade()) else {
            return Confirmation::ready(Err(settlement_lost()));
        };
        let (confirmer, confirmation) = Confirmation::pending();
        match store.queue.push(Command::Settle { ticket, disposition, confirmer }) {
            None => confirmation,
            Some(_) => Confirmation::ready(Err(settlement_lost())),
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
            drop(self.send(Disposition::GiveBack));
        }
    }
}
