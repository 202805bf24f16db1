//! One topic: the messages it keeps, and the groups that read it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::group::{Group, Pull};
use crate::address::Start;
use crate::driver::{Confirmation, Confirmer, Disposition, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

/// A message as it is kept, shared by the groups that have yet to read it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) message: Outbound,
    pub(super) sequence: u64,
    pub(super) time: SystemTime,
}

/// Whose turn a delivery is: enough to settle it, and to see that it is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) group: u64,
    pub(super) connection: u64,
    pub(super) sequence: u64,
    pub(super) attempt: u32,
}

/// What a member gets when it asks for a message.
pub(super) enum Next {
    /// A message to work on.
    Message(Arc<Stored>, Ticket),
    /// Nothing before that time, or until woken.
    Wait(Option<Instant>),
}

/// The messages and groups of a topic, behind one short lock.
#[derive(Debug)]
pub(super) struct TopicLog(Mutex<State>);

#[derive(Debug)]
struct State {
    capacity: usize,
    /// The messages kept; the first has the sequence number `first`.
    log: VecDeque<Arc<Stored>>,
    first: u64,
    groups: HashMap<u64, Group>,
    names: HashMap<Arc<str>, u64>,
    next_group: u64,
    /// Publishes that wait for room, in order; as many as connections allow in flight.
    waiting: VecDeque<(Outbound, Confirmer<Receipt>)>,
}

impl TopicLog {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Mutex::new(State {
            capacity,
            log: VecDeque::new(),
            first: 0,
            groups: HashMap::new(),
            names: HashMap::new(),
            next_group: 0,
            waiting: VecDeque::new(),
        }))
    }

    /// Stores the message, or queues it until there is room.
    pub(super) fn publish(&self, message: Outbound) -> Confirmation<Receipt> {
        let mut state = self.0.lock();
        if !state.waiting.is_empty() || !state.make_room() {
            let (confirmer, confirmation) = Confirmation::pending();
            state.waiting.push_back((message, confirmer));
            return confirmation;
        }
        let receipt = state.store(message);
        let wakers = state.wakers();
        drop(state);
        wake(wakers);
        Confirmation::ready(Ok(receipt))
    }

    /// The group of that name, or a new one without a name, and a place in it.
    pub(super) fn join(&self, name: Option<&str>, start: Start) -> u64 {
        let mut state = self.0.lock();
        if let Some(id) = name.and_then(|name| state.names.get(name)) {
            return *id;
        }
        let id = state.next_group;
        state.next_group += 1;
        let position = match start {
            Start::Earliest => state.first,
            Start::Latest | Start::Time(_) | Start::Offset(_) => state.end(),
        };
        state.groups.insert(id, Group::new(position));
        if let Some(name) = name {
            state.names.insert(name.into(), id);
        }
        id
    }

    /// Ends a group without a name.
    pub(super) fn leave(&self, group: u64) {
        let mut state = self.0.lock();
        state.groups.remove(&group);
        let wakers = state.admit();
        drop(state);
        wake(wakers);
    }

    /// The next message for a member of the group; `cx` is woken when there may be one.
    pub(super) fn next(&self, group: u64, connection: u64, member: u64, cx: &Context<'_>) -> Next {
        let mut state = self.0.lock();
        let end = state.end();
        let Some(reading) = state.groups.get_mut(&group) else {
            return Next::Wait(None);
        };
        match reading.pull(connection, end) {
            Pull::Message { sequence, attempt } => {
                let index = usize::try_from(sequence - state.first).ok();
                let stored = index.and_then(|index| state.log.get(index)).cloned();
                let ticket = Ticket { group, connection, sequence, attempt };
                stored.map_or(Next::Wait(None), |stored| Next::Message(stored, ticket))
            }
            Pull::Nothing(due) => {
                reading.wait(member, cx);
                Next::Wait(due)
            }
        }
    }

    /// Forgets the waker of a member that is gone, and wakes another in its stead.
    pub(super) fn forget(&self, group: u64, member: u64) {
        let mut state = self.0.lock();
        let wakers = state.groups.get_mut(&group).map(|group| group.forget(member)).unwrap_or_default();
        drop(state);
        wake(wakers);
    }

    /// Settles a delivery.
    ///
    /// # Errors
    /// [`ErrorKind::SettlementLost`] when it is not that connection's turn any more.
    pub(super) fn settle(&self, ticket: Ticket, disposition: Disposition) -> Result<()> {
        let mut state = self.0.lock();
        let group = state.groups.get_mut(&ticket.group);
        let Some(mut wakers) = group.and_then(|group| group.settle(ticket, disposition)) else {
            let message = "the connection or reader it came from is gone; a group hands the message out again";
            return Err(Error::new(ErrorKind::SettlementLost, message));
        };
        wakers.extend(state.admit());
        drop(state);
        wake(wakers);
        Ok(())
    }

    /// Gives what a connection has unsettled back to the groups.
    pub(super) fn release(&self, connection: u64) {
        let mut state = self.0.lock();
        let wakers: Vec<Waker> = state.groups.values_mut().flat_map(|group| group.release(connection)).collect();
        drop(state);
        wake(wakers);
    }
}

impl State {
    fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// Drops the oldest message if the topic is full and every group is done with it; false if the topic stays full.
    fn make_room(&mut self) -> bool {
        if self.log.len() < self.capacity {
            return true;
        }
        if self.groups.values().any(|group| group.low_water() <= self.first) {
            return false;
        }
        self.log.pop_front();
        self.first += 1;
        true
    }

    fn store(&mut self, message: Outbound) -> Receipt {
        let sequence = self.end();
        self.log.push_back(Arc::new(Stored { message, sequence, time: SystemTime::now() }));
        Receipt::confirmed().with_offset(i64::try_from(sequence).unwrap_or(i64::MAX))
    }

    /// Stores the publishes that were waiting, as far as there is room now.
    fn admit(&mut self) -> Vec<Waker> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        while !self.waiting.is_empty() && self.make_room() {
            if let Some((message, confirmer)) = self.waiting.pop_front() {
                confirmer.confirm(Ok(self.store(message)));
            }
        }
        self.wakers()
    }

    /// One waiting member of each group: a message needs one.
    fn wakers(&mut self) -> Vec<Waker> {
        self.groups.values_mut().filter_map(Group::wake_one).collect()
    }
}

fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
