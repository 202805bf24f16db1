//! One topic: the messages it keeps, and the groups that read it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::delayed::Delayed;
use super::group::{Group, Pull};
use super::unfinished::{Changes, Pending, Unfinished};
use crate::address::Start;
use crate::driver::{Confirmation, Confirmer, Disposition, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

/// A message as it is kept, shared by the groups that have yet to read it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) message: Outbound,
    pub(super) sequence: u64,
    /// When it became visible.
    pub(super) time: SystemTime,
}

/// Whose turn a delivery is: enough to settle it, and to see that it is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) group: u64,
    /// How often the group's position was moved before.
    pub(super) moves: u64,
    pub(super) connection: u64,
    pub(super) sequence: u64,
    pub(super) attempt: u32,
}

/// A publish that waits for room.
#[derive(Debug)]
struct Waiting {
    connection: u64,
    message: Outbound,
    confirmer: Confirmer<Receipt>,
}

/// What a member gets when it asks for a message.
pub(super) enum Next {
    /// A message to work on.
    Message(Arc<Stored>, Ticket),
    /// Nothing before that time, or until woken.
    Wait(Option<Instant>),
}

/// The messages and groups of a topic, behind one short lock.
///
/// Delayed messages become visible whenever somebody looks, before anything else happens: to whoever looks, it is as if they had at their
/// time. Whoever waits looks again at [`Delayed::next_due`].
#[derive(Debug)]
pub(super) struct TopicLog {
    state: Mutex<State>,
    /// Notified when there is one more delayed message: what waits for room may have to look again sooner.
    delayed: Notify,
    /// Of the whole broker.
    changes: Arc<Changes>,
}

#[derive(Debug)]
struct State {
    capacity: usize,
    /// The messages kept; the first has the sequence number `first`.
    log: VecDeque<Arc<Stored>>,
    first: u64,
    delayed: Delayed,
    groups: HashMap<u64, Group>,
    names: HashMap<Arc<str>, u64>,
    next_group: u64,
    /// Publishes that wait for room, in order; as many as connections allow in flight.
    waiting: VecDeque<Waiting>,
    /// How far groups had read that are gone.
    read: u64,
}

impl TopicLog {
    pub(super) fn new(capacity: usize, changes: Arc<Changes>) -> Self {
        let state = State {
            capacity,
            log: VecDeque::new(),
            first: 0,
            delayed: Delayed::default(),
            groups: HashMap::new(),
            names: HashMap::new(),
            next_group: 0,
            waiting: VecDeque::new(),
            read: 0,
        };
        Self { state: Mutex::new(state), delayed: Notify::new(), changes }
    }

    /// Stores the message, or queues it until there is room or the connection is closed.
    pub(super) fn publish(self: &Arc<Self>, connection: u64, message: Outbound) -> Confirmation<Receipt> {
        self.look(|state, wakers| {
            if !state.waiting.is_empty() || !state.make_room() {
                let (confirmer, confirmation) = Confirmation::pending();
                state.waiting.push_back(Waiting { connection, message, confirmer });
                return Confirmation::running(Arc::clone(self).admitted(confirmation));
            }
            Confirmation::ready(Ok(state.store(message, wakers)))
        })
    }

    /// Waits until there is room, which may come about as a delayed message becomes one that can be dropped.
    async fn admitted(self: Arc<Self>, mut confirmation: Confirmation<Receipt>) -> Result<Receipt> {
        loop {
            let delayed = self.delayed.notified();
            let due = self.look(|state, _| state.delayed.next_due());
            tokio::select! {
                biased;
                answer = &mut confirmation => return answer,
                () = delayed => {}
                () = async {
                    match due {
                        Some(due) => tokio::time::sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }

    /// The group of that name, or a new one without a name, and a place in it.
    pub(super) fn join(&self, name: Option<&str>, start: Start) -> u64 {
        self.look(|state, _| match name.and_then(|name| state.names.get(name)) {
            Some(id) => *id,
            None => state.add_group(name, start),
        })
    }

    /// Moves the position of the group of that name, made if it is not there. What its members hold is theirs no more.
    pub(super) fn reposition(&self, name: &str, start: Start) {
        self.look(|state, wakers| {
            let position = state.position(start);
            match state.names.get(name).and_then(|id| state.groups.get_mut(id)) {
                Some(group) => wakers.extend(group.reposition(position)),
                None => {
                    state.add_group(Some(name), start);
                }
            }
            state.admit(wakers);
        });
    }

    /// Ends a group without a name.
    pub(super) fn leave(&self, group: u64) {
        self.look(|state, wakers| {
            if let Some(group) = state.groups.remove(&group) {
                state.read = state.read.max(group.low_water());
            }
            state.admit(wakers);
        });
    }

    /// The next message for a member of the group; `cx` is woken when there may be one.
    pub(super) fn next(&self, group: u64, connection: u64, member: u64, cx: &Context<'_>) -> Next {
        self.look(|state, _| {
            let end = state.end();
            let delayed = state.delayed.next_due();
            let Some(reading) = state.groups.get_mut(&group) else {
                return Next::Wait(None);
            };
            match reading.pull(connection, end) {
                Pull::Message { sequence, attempt } => {
                    let ticket = Ticket { group, moves: reading.moves(), connection, sequence, attempt };
                    let index = usize::try_from(sequence - state.first).ok();
                    let stored = index.and_then(|index| state.log.get(index)).cloned();
                    stored.map_or(Next::Wait(None), |stored| Next::Message(stored, ticket))
                }
                Pull::Nothing(due) => {
                    reading.wait(member, cx);
                    Next::Wait(due.into_iter().chain(delayed).min())
                }
            }
        })
    }

    /// Forgets the waker of a member that is gone, and wakes another in its stead.
    pub(super) fn forget(&self, group: u64, member: u64) {
        self.look(|state, wakers| {
            wakers.extend(state.groups.get_mut(&group).map(|group| group.forget(member)).unwrap_or_default());
        });
    }

    /// Settles a delivery.
    ///
    /// # Errors
    /// [`ErrorKind::SettlementLost`] when it is not that connection's turn any more.
    pub(super) fn settle(&self, ticket: Ticket, disposition: Disposition) -> Result<()> {
        self.look(|state, wakers| {
            let group = state.groups.get_mut(&ticket.group);
            let Some(woken) = group.and_then(|group| group.settle(ticket, disposition)) else {
                let message = "the connection or reader it came from is gone, or the group was moved: a group hands out \
                               again what is at its position or behind it";
                return Err(Error::new(ErrorKind::SettlementLost, message));
            };
            wakers.extend(woken);
            state.admit(wakers);
            Ok(())
        })
    }

    /// Gives what a connection has unsettled back to the groups, and refuses what it wanted to publish and there was no room for.
    pub(super) fn release(&self, connection: u64) {
        self.look(|state, wakers| {
            let (refused, waiting) = std::mem::take(&mut state.waiting)
                .into_iter()
                .partition::<VecDeque<Waiting>, _>(|publish| publish.connection == connection);
            state.waiting = waiting;
            for publish in refused {
                let message = "the connection was closed before there was room for the message";
                publish.confirmer.confirm(Err(Error::new(ErrorKind::Closed, message)));
            }
            wakers.extend(state.groups.values_mut().flat_map(|group| group.release(connection)));
        });
    }

    /// The messages that are kept and visible, oldest first.
    pub(super) fn messages(&self) -> Vec<Outbound> {
        self.look_quietly(|state, _| state.log.iter().map(|stored| stored.message.clone()).collect())
    }

    /// What is not done with.
    pub(super) fn unfinished(&self, topic: &str) -> Vec<Unfinished> {
        self.look_quietly(|state, _| state.unfinished(topic))
    }

    /// Does something with what is visible now, wakes whom it concerns, and tells whoever watches.
    fn look<T>(&self, work: impl FnOnce(&mut State, &mut Vec<Waker>) -> T) -> T {
        let result = self.look_quietly(work);
        self.changes.tell();
        result
    }

    /// As [`look`](Self::look), for questions: whoever watches asks them, and would be told of nothing but that.
    fn look_quietly<T>(&self, work: impl FnOnce(&mut State, &mut Vec<Waker>) -> T) -> T {
        let mut wakers = Vec::new();
        let mut state = self.state.lock();
        let delayed = state.delayed.taken();
        state.uncover(&mut wakers);
        let result = work(&mut state, &mut wakers);
        if state.delayed.taken() != delayed {
            self.delayed.notify_waiters();
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

impl State {
    fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    fn unfinished(&self, topic: &str) -> Vec<Unfinished> {
        let left = |pending, messages| Unfinished { topic: topic.to_owned(), pending, messages };
        let read = self.read.max(self.first);
        let unread = if self.groups.is_empty() { self.end().saturating_sub(read) } else { 0 };
        let mut all = vec![
            left(Pending::Room, self.waiting.len()),
            left(Pending::Time, self.delayed.len()),
            left(Pending::Unread, usize::try_from(unread).unwrap_or(usize::MAX)),
        ];
        for (id, group) in &self.groups {
            let name = self.names.iter().find(|(_, named)| *named == id).map(|(name, _)| Arc::clone(name));
            all.push(left(Pending::Group(name), group.unsettled(self.end())));
        }
        all.retain(|left| left.messages > 0);
        all
    }

    /// Where a group that begins there stands. An offset that is still to come is waited for.
    fn position(&self, start: Start) -> u64 {
        match start {
            Start::Earliest => self.first,
            Start::Latest => self.end(),
            Start::Offset(offset) => offset.max(self.first),
            Start::Time(time) => {
                let earlier = self.log.iter().take_while(|stored| stored.time < time).count();
                self.first + earlier as u64
            }
        }
    }

    fn add_group(&mut self, name: Option<&str>, start: Start) -> u64 {
        let id = self.next_group;
        self.next_group += 1;
        self.groups.insert(id, Group::new(self.position(start)));
        if let Some(name) = name {
            self.names.insert(name.into(), id);
        }
        id
    }

    /// Drops the oldest message if the topic is full and every group is done with it; false if the topic stays full.
    fn make_room(&mut self) -> bool {
        if self.log.len() + self.delayed.len() < self.capacity {
            return true;
        }
        if self.log.is_empty() || self.groups.values().any(|group| group.low_water() <= self.first) {
            return false;
        }
        self.log.pop_front();
        self.first += 1;
        true
    }

    /// Stores a message, visible or, without an offset, delayed.
    fn store(&mut self, mut message: Outbound, wakers: &mut Vec<Waker>) -> Receipt {
        let now = SystemTime::now();
        if let Some(time) = message.deliver_at.take().filter(|time| *time > now) {
            self.delayed.push(message, time);
            // All, for it depends on which of them goes on waiting who will see to it in time.
            self.groups.values_mut().for_each(|group| wakers.extend(group.wake_all()));
            return Receipt::confirmed();
        }
        let sequence = self.append(message, now);
        // A message needs one member of each group.
        wakers.extend(self.groups.values_mut().filter_map(Group::wake_one));
        Receipt::confirmed().with_offset(i64::try_from(sequence).unwrap_or(i64::MAX))
    }

    fn append(&mut self, message: Outbound, time: SystemTime) -> u64 {
        let sequence = self.end();
        self.log.push_back(Arc::new(Stored { message, sequence, time }));
        sequence
    }

    /// Makes the delayed messages visible whose time has come.
    fn uncover(&mut self, wakers: &mut Vec<Waker>) {
        if self.delayed.len() == 0 {
            return;
        }
        let end = self.end();
        while let Some((message, time)) = self.delayed.pop() {
            self.append(message, time);
        }
        if self.end() > end {
            self.groups.values_mut().for_each(|group| wakers.extend(group.wake_all()));
            self.admit(wakers);
        }
    }

    /// Stores the publishes that were waiting, as far as there is room now.
    fn admit(&mut self, wakers: &mut Vec<Waker>) {
        while !self.waiting.is_empty() && self.make_room() {
            if let Some(Waiting { message, confirmer, .. }) = self.waiting.pop_front() {
                confirmer.confirm(Ok(self.store(message, wakers)));
            }
        }
    }
}
