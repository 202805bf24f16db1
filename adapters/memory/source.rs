//! Members of groups: streams of messages, and the handles to settle them.

use crate::names::attribute;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::group::{HandedOut, Ticket};
use super::hub::Connection;
use super::log::Stored;
use super::topic::{Next, TopicLog};
use crate::driver::{AttributeValue, Confirmation, DeliveryHandle, Disposition, Inbound, Timestamp};
use crate::error::Result;
use crate::message::{Subscription, TimestampSource};
use crate::sync::AtomicWaker;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::time::{self, Instant, Sleep};

/// A member of a group, or a reader without a group.
#[derive(Debug)]
pub(super) struct MemorySource {
    member: Arc<Member>,
    connection: Arc<Connection>,
    topic: Arc<TopicLog>,
    group: u64,
    /// `true` for a reader without a group, which ends with its stream.
    ephemeral: bool,
    timer: Option<Pin<Box<Sleep>>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// The prefetch of a member, and its use.
#[derive(Debug)]
struct Member {
    id: u64,
    limit: usize,
    unsettled: AtomicUsize,
    room: AtomicWaker,
}

impl MemorySource {
    pub(super) fn open(connection: Arc<Connection>, topic: Arc<TopicLog>, subscription: &Subscription) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let group = topic.join(subscription.group_name(), subscription.start_position());
        let member = Member {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            limit: subscription.prefetch_limit(),
            unsettled: AtomicUsize::new(0),
            room: AtomicWaker::new(),
        };
        let ephemeral = subscription.group_name().is_none();
        let closed = Box::pin(connection.closed());
        Self { member: Arc::new(member), connection, topic, group, ephemeral, timer: None, closed }
    }

    /// Returns the action that takes the member out of its group's turns. Nothing is fetched ahead.
    pub(super) fn stop(&self) -> impl FnOnce() + Send + use<> {
        let (topic, group, member) = (Arc::clone(&self.topic), self.group, self.member.id);
        move || topic.stop(group, member)
    }

    fn inbound(&self, stored: &Stored, handed_out: HandedOut) -> Inbound {
        let HandedOut { ticket, attempt, lost_trials, tenure } = handed_out;
        self.member.unsettled.fetch_add(1, Ordering::AcqRel);
        let (topic, member) = (Arc::clone(&self.topic), Arc::clone(&self.member));
        let handle =
            MemoryHandle { ticket, topic, member, is_aside: AtomicBool::new(false), is_tried: AtomicBool::new(false) };
        Inbound {
            payload: stored.message.payload.clone(),
            key: stored.message.key.clone(),
            id: stored.message.id.clone(),
            headers: stored.message.headers.clone(),
            unreadable_headers: 0,
            attempt,
            deliveries: Some(ticket.deliveries),
            lost_trials,
            timestamp: Some(Timestamp { time: stored.time, source: TimestampSource::Broker }),
            partition: None,
            offset: i64::try_from(stored.sequence).ok(),
            native: None,
            tenure,
            handle: Box::new(handle),
        }
    }

    /// Takes the next message of the topic.
    fn take(&self, cx: &Context<'_>) -> Next {
        let is_closed = || self.connection.is_closed();
        self.topic.next(self.group, self.connection.id(), is_closed, self.member.id, cx)
    }

    /// Returns `true` if `due` has passed; otherwise the task is woken at that time.
    fn poll_due(&mut self, due: Instant, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(time::sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

impl Stream for MemorySource {
    type Item = Result<Inbound>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        if self.member.is_full() {
            self.member.room.register(cx.waker());
            if self.member.is_full() {
                return Poll::Pending;
            }
        }
        loop {
            match self.take(cx) {
                Next::Message(stored, handed) => return Poll::Ready(Some(Ok(self.inbound(&stored, handed)))),
                Next::Wait(Some(due)) if self.poll_due(due, cx) => self.timer = None,
                Next::Wait(_) => return Poll::Pending,
            }
        }
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        if self.ephemeral {
            self.topic.end(self.group);
        } else {
            self.topic.leave(self.group, self.member.id);
        }
    }
}

impl Member {
    fn is_full(&self) -> bool {
        self.unsettled.load(Ordering::Acquire) >= self.limit
    }

    fn release(&self) {
        self.unsettled.fetch_sub(1, Ordering::AcqRel);
        self.room.wake();
    }
}

/// The handle of one delivery; stale once its connection is closed.
#[derive(Debug)]
struct MemoryHandle {
    ticket: Ticket,
    topic: Arc<TopicLog>,
    member: Arc<Member>,
    /// `true` if it takes up no place of the member's prefetch any more.
    is_aside: AtomicBool,
    /// `true` while a trial of the message is noted.
    is_tried: AtomicBool,
}

impl MemoryHandle {
    fn withdraw_trial(&self) {
        if self.is_tried.swap(false, Ordering::Relaxed) {
            self.topic.note_trial(self.ticket, false);
        }
    }
}

impl DeliveryHandle for MemoryHandle {
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        self.withdraw_trial();
        // After the connection is closed, the delivery belongs to the group again and the ticket is
        // stale.
        Confirmation::ready(self.topic.settle(self.ticket, disposition))
    }

    fn failed(&self, _: u32) {
        self.withdraw_trial();
    }

    fn begin_trial(&self) -> Confirmation<()> {
        if !self.is_tried.swap(true, Ordering::Relaxed) {
            self.topic.note_trial(self.ticket, true);
        }
        Confirmation::ready(Ok(()))
    }

    fn set_aside(&self) -> bool {
        if !self.is_aside.swap(true, Ordering::Relaxed) {
            self.member.release();
        }
        true
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        visit(
            attribute::MEMORY_SEQUENCE,
            AttributeValue::Integer(i64::try_from(self.ticket.sequence).unwrap_or(i64::MAX)),
        );
    }
}

impl Drop for MemoryHandle {
    fn drop(&mut self) {
        self.withdraw_trial();
        if !*self.is_aside.get_mut() {
            self.member.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;
    use crate::driver::{DriverExt, Outbound};
    use crate::message::Topic;

    #[tokio::test]
    async fn nothing_is_taken_once_the_connection_has_given_back_what_it_had() {
        let memory = Memory::new();
        let orders = Topic::new("orders").unwrap();
        memory.enqueue(&orders, Outbound::new("shoes")).await.unwrap();
        let (connection, topic) = (Arc::clone(&memory.connection), memory.connection.hub().topic("orders"));
        let subscription = Subscription::new("orders").group("workers");
        let source = MemorySource::open(Arc::clone(&connection), topic, &subscription);
        connection.close();
        // As on another thread, past the look at the connection's end.
        let next = source.take(&Context::from_waker(std::task::Waker::noop()));
        assert!(matches!(next, Next::Wait(None)), "a message that no end of the connection brings back");
    }
}
