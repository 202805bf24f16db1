//! A topic: the messages it keeps, and the groups that read it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use super::delayed::{Delayed, after};
use super::group::{Group, HandedOut, Pull, Ticket};
use super::log::{Bounds, Log, Stored, size};
use super::unfinished::{Changes, Pending, Unfinished};
use crate::driver::{Confirmer, Disposition, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Start};
use crate::sync::time::{self, Instant};
use crate::sync::{Handle, Mutex, Notify};

/// A publish that waits for room.
#[derive(Debug)]
struct Waiting {
    connection: u64,
    message: Outbound,
    bytes: usize,
    confirmer: Confirmer<Receipt>,
    /// The time at which it fails.
    until: Instant,
}

/// The answer to a member that asks for a message.
pub(super) enum Next {
    /// A message to deliver.
    Message(Arc<Stored>, HandedOut),
    /// No message before this time, or until the task is woken.
    Wait(Option<Instant>),
}

/// The messages and groups of a topic, behind one short lock.
///
/// Due messages are made visible at the start of every operation, so callers cannot observe the
/// delay. A waiting task looks again at [`Delayed::next_due`].
#[derive(Debug)]
pub(super) struct TopicLog {
    state: Mutex<State>,
    /// Notified when a delayed message was added or a member has left, so that the task that
    /// watches publishes waiting for room looks again sooner, and when none waits any more, so that
    /// it ends.
    delayed: Notify,
    /// The changes of the whole broker.
    changes: Arc<Changes>,
}

#[derive(Debug)]
struct State {
    log: Log,
    /// Time without a member after which a group of a full topic counts as abandoned.
    group_expiry: Duration,
    delayed: Delayed,
    groups: BTreeMap<u64, Group>,
    names: BTreeMap<Arc<str>, u64>,
    next_group: u64,
    /// Publishes that wait for room, in order; at most as many as connections allow in flight.
    waiting: VecDeque<Waiting>,
    /// `true` while a task watches them.
    is_watched: bool,
    /// The highest position that a removed group had reached.
    read: u64,
}

impl TopicLog {
    pub(super) fn new(bounds: Bounds, group_expiry: Duration, changes: Arc<Changes>) -> Self {
        let state = State {
            log: Log::new(bounds),
            group_expiry,
            delayed: Delayed::default(),
            groups: BTreeMap::new(),
            names: BTreeMap::new(),
            next_group: 0,
            waiting: VecDeque::new(),
            is_watched: false,
            read: 0,
        };
        Self { state: Mutex::new(state), delayed: Notify::new(), changes }
    }

    /// Stores the message, or queues it until there is room, the connection is closed, or its time
    /// is up.
    pub(super) fn publish(
        self: &Arc<Self>,
        connection: u64,
        is_closed: impl Fn() -> bool,
        message: Outbound,
        patience: Duration,
        confirmer: Confirmer<Receipt>,
    ) {
        let waits = self.look(|state, wakers| {
            // Looked at under the lock: `release` refuses no publish that begins to wait after it.
            if is_closed() {
                return Err((confirmer, Err(Error::new(ErrorKind::Closed, "the connection is closed"))));
            }
            let bytes = size(&message);
            if bytes > state.log.bounds().bytes {
                return Err((confirmer, Err(too_large(bytes, state.log.bounds()))));
            }
            if state.waiting.is_empty() && state.take_room(bytes) {
                let receipt = state.store(message, wakers);
                return Err((confirmer, Ok(receipt)));
            }
            state.waiting.push_back(Waiting { connection, message, bytes, confirmer, until: after(patience) });
            Ok(!std::mem::replace(&mut state.is_watched, true))
        });
        match waits {
            Err((confirmer, answer)) => confirmer.confirm(answer),
            Ok(true) => self.watch(),
            Ok(false) => {}
        }
    }

    /// Starts a task that stays while publishes wait for room.
    fn watch(self: &Arc<Self>) {
        let watch = Watch { topic: Arc::clone(self), is_over: false };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(watch.admit());
        }
    }

    /// Adds a member to the group with this name, created if it is missing; without a name, to a
    /// new group.
    pub(super) fn join(&self, name: Option<&str>, start: Start) -> u64 {
        self.look(|state, _| {
            let known = name.and_then(|name| state.names.get(name)).copied();
            let id = known.unwrap_or_else(|| state.add_group(name, start));
            state.groups.get_mut(&id).into_iter().for_each(Group::join);
            id
        })
    }

    /// Moves the group with this name, created if it is missing. Deliveries that its members hold
    /// become stale.
    pub(super) fn reposition(&self, name: &str, start: Start) {
        self.look(|state, wakers| {
            let position = state.position(start);
            match state.names.get(name).and_then(|id| state.groups.get_mut(id)) {
                Some(group) => {
                    state.log.remove_group(group);
                    wakers.extend(group.reposition(position));
                    state.log.add_group(group);
                }
                None => {
                    state.add_group(Some(name), start);
                }
            }
            state.admit(wakers);
        });
    }

    /// Ends a group without a name.
    pub(super) fn end(&self, group: u64) {
        self.look(|state, wakers| {
            state.remove_group(group);
            state.admit(wakers);
        });
    }

    /// Returns the next message for a member of the group; `cx` is woken when there may be one.
    pub(super) fn next(
        &self,
        group: u64,
        connection: u64,
        is_closed: impl Fn() -> bool,
        member: u64,
        cx: &Context<'_>,
    ) -> Next {
        self.look(|state, _| {
            // Looked at under the lock: what is taken after `release` would never come back.
            if is_closed() {
                return Next::Wait(None);
            }
            let delayed = state.delayed.next_due();
            let Some(reading) = state.groups.get_mut(&group) else {
                return Next::Wait(None);
            };
            let new = state.log.from(reading.next()).map(|stored| stored.sequence);
            match reading.pull(connection, new) {
                Pull::Message { sequence, attempt, deliveries, lost_trials, tenure } => {
                    let ticket = Ticket { group, moves: reading.moves(), connection, sequence, deliveries };
                    let handed = HandedOut { ticket, attempt, lost_trials, tenure };
                    let stored = state.log.get(sequence).cloned();
                    stored.map_or(Next::Wait(None), |stored| Next::Message(stored, handed))
                }
                Pull::Nothing(due) => {
                    reading.wait(member, cx);
                    Next::Wait(due.into_iter().chain(delayed).min())
                }
            }
        })
    }

    /// Takes a member out of its group's turns.
    pub(super) fn stop(&self, group: u64, member: u64) {
        self.look(|state, _| {
            state.groups.get_mut(&group).into_iter().for_each(|group| group.stop_waiting(member));
        });
    }

    /// Removes a member from its group, which stays.
    pub(super) fn leave(&self, group: u64, member: u64) {
        self.look(|state, _| {
            state.groups.get_mut(&group).into_iter().for_each(|group| group.leave(member));
        });
        // The group may be abandoned before any of the times that are waited for.
        self.delayed.notify_waiters();
    }

    /// Settles a delivery.
    ///
    /// # Errors
    /// [`ErrorKind::SettlementLost`] if the delivery is stale.
    pub(super) fn settle(&self, ticket: Ticket, disposition: Disposition) -> Result<()> {
        self.look(|state, wakers| {
            let group = state.groups.get_mut(&ticket.group);
            let Some(woken) = group.and_then(|group| group.settle(ticket, disposition)) else {
                let message = "the connection or reader it came from is gone, or the group was moved: the group \
                               redelivers messages from its position onward";
                return Err(Error::new(ErrorKind::SettlementLost, message));
            };
            wakers.extend(woken);
            if matches!(disposition, Disposition::Ack | Disposition::Discard) {
                state.log.settle(ticket.sequence);
            }
            state.admit(wakers);
            Ok(())
        })
    }

    /// Notes a trial of the message of this ticket, or withdraws the note.
    pub(super) fn note_trial(&self, ticket: Ticket, begins: bool) {
        self.look_quietly(|state, _| {
            state.groups.get_mut(&ticket.group).into_iter().for_each(|group| group.note_trial(ticket, begins));
        });
    }

    /// Returns the unsettled deliveries of a connection to their groups, and refuses its publishes
    /// that wait for room.
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

    /// Returns the messages that are kept and visible, oldest first.
    pub(super) fn messages(&self) -> Vec<Outbound> {
        self.look_quietly(|state, _| state.log.messages().map(|stored| stored.message.clone()).collect())
    }

    /// Returns the pending messages.
    pub(super) fn unfinished(&self, topic: &str) -> Vec<Unfinished> {
        self.look_quietly(|state, _| state.unfinished(topic))
    }

    /// Runs `work` on what is visible now, wakes the tasks concerned, and notifies watchers.
    fn look<T>(&self, work: impl FnOnce(&mut State, &mut Vec<Waker>) -> T) -> T {
        let result = self.look_quietly(work);
        self.changes.tell();
        result
    }

    /// Works like [`look`](Self::look), but for queries: does not notify watchers, because watchers
    /// make these queries themselves.
    fn look_quietly<T>(&self, work: impl FnOnce(&mut State, &mut Vec<Waker>) -> T) -> T {
        let mut wakers = Vec::new();
        let mut state = self.state.lock();
        let (delayed, waits) = (state.delayed.taken(), !state.waiting.is_empty());
        state.uncover(&mut wakers);
        let result = work(&mut state, &mut wakers);
        if state.delayed.taken() != delayed || (waits && state.waiting.is_empty()) {
            self.delayed.notify_waiters();
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

/// The task that watches the publishes waiting for room, as long as it lives.
struct Watch {
    topic: Arc<TopicLog>,
    is_over: bool,
}

impl Watch {
    /// Ends the publishes that have waited for too long. Looks again when a delayed message is due,
    /// or a group counts as abandoned, because messages can then be dropped, which makes room.
    async fn admit(mut self) {
        loop {
            let delayed = self.topic.delayed.notified();
            let next = self.topic.look_quietly(|state, wakers| {
                state.admit(wakers);
                state.refuse_late();
                state.is_watched = !state.waiting.is_empty();
                let late = state.waiting.iter().map(|publish| publish.until).min();
                late.map(|late| state.next_room().map_or(late, |room| room.min(late)))
            });
            let Some(next) = next else { break };
            tokio::select! {
                biased;
                () = delayed => {}
                () = time::sleep_until(next) => {}
            }
        }
        self.is_over = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_over {
            self.topic.state.lock().is_watched = false;
        }
    }
}

impl State {
    fn unfinished(&self, topic: &str) -> Vec<Unfinished> {
        let left = |pending, messages| Unfinished { topic: topic.to_owned(), pending, messages };
        let unread = if self.groups.is_empty() { self.log.count_from(self.read) } else { 0 };
        let mut all = vec![
            left(Pending::Room, self.waiting.len()),
            left(Pending::Time, self.delayed.len()),
            left(Pending::Unread, unread),
        ];
        for (id, group) in &self.groups {
            let name = self.names.iter().find(|(_, named)| *named == id).map(|(name, _)| Arc::clone(name));
            all.push(left(Pending::Group(name), group.unsettled() + self.log.count_from(group.next())));
        }
        all.retain(|left| left.messages > 0);
        all
    }

    /// Returns the position at which a group with this start begins. An offset in the future is
    /// waited for.
    fn position(&self, start: Start) -> u64 {
        match start {
            Start::Earliest => self.log.first(),
            Start::Latest => self.log.end(),
            Start::Offset(offset) => offset.max(self.log.first()),
            Start::Time(time) => {
                let first = self.log.messages().find(|stored| stored.time >= time);
                first.map_or(self.log.end(), |stored| stored.sequence)
            }
        }
    }

    fn add_group(&mut self, name: Option<&str>, start: Start) -> u64 {
        let id = self.next_group;
        self.next_group += 1;
        let group = Group::new(self.position(start));
        self.log.add_group(&group);
        self.groups.insert(id, group);
        if let Some(name) = name {
            self.names.insert(name.into(), id);
        }
        id
    }

    fn remove_group(&mut self, id: u64) {
        if let Some(mut group) = self.groups.remove(&id) {
            group.end_tenures();
            self.log.remove_group(&group);
            self.read = self.read.max(group.low_water());
            self.names.retain(|_, named| *named != id);
        }
    }

    /// Takes up the room of a message. If the topic is full of messages that only abandoned groups
    /// have not settled, these groups end. Returns `false` if the topic stays full.
    fn take_room(&mut self, bytes: usize) -> bool {
        self.log.take_room(bytes, self.delayed.len())
            || (self.give_up_abandoned() && self.log.take_room(bytes, self.delayed.len()))
    }

    /// Ends the groups that were without a member for too long. Returns `true` if there were any.
    fn give_up_abandoned(&mut self) -> bool {
        let now = Instant::now();
        let is_over = |group: &Group| group.abandoned_at(self.group_expiry).is_some_and(|at| at <= now);
        let over: Vec<u64> = self.groups.iter().filter(|(_, group)| is_over(group)).map(|(id, _)| *id).collect();
        for id in &over {
            let name = self.names.iter().find(|(_, named)| *named == id).map(|(name, _)| &**name);
            tracing::warn!(group = name, "a group without members ends: its unsettled messages fill the topic");
            self.remove_group(*id);
        }
        !over.is_empty()
    }

    /// Returns the time at which there may be room, without a settlement.
    fn next_room(&self) -> Option<Instant> {
        let abandoned = self.groups.values().filter_map(|group| group.abandoned_at(self.group_expiry));
        abandoned.chain(self.delayed.next_due()).min()
    }

    /// Stores a message: visible with an offset, or delayed without one.
    fn store(&mut self, mut message: Outbound, wakers: &mut Vec<Waker>) -> Receipt {
        let now = SystemTime::now();
        if let Some(time) = message.deliver_at.take().filter(|time| *time > now) {
            self.delayed.push(message, time);
            // All members: any of them may be the one that keeps waiting, and that one has to wake
            // up in time.
            self.groups.values_mut().for_each(|group| wakers.extend(group.wake_all()));
            return Receipt::confirmed();
        }
        let sequence = self.log.push(message, now, self.unsettled_by());
        self.groups.values_mut().for_each(|group| wakers.extend(group.wake_all()));
        Receipt::confirmed().with_offset(i64::try_from(sequence).unwrap_or(i64::MAX))
    }

    /// Returns the number of groups that will have to settle the next message: an offset in the
    /// future passes it over.
    fn unsettled_by(&self) -> usize {
        self.groups.values().filter(|group| !group.is_settled(self.log.end())).count()
    }

    /// Makes the delayed messages that are due visible.
    fn uncover(&mut self, wakers: &mut Vec<Waker>) {
        if self.delayed.len() == 0 {
            return;
        }
        let end = self.log.end();
        while let Some((message, time)) = self.delayed.pop() {
            self.log.push(message, time, self.unsettled_by());
        }
        if self.log.end() > end {
            self.groups.values_mut().for_each(|group| wakers.extend(group.wake_all()));
            self.admit(wakers);
        }
    }

    /// Fails the publishes that have waited for too long.
    fn refuse_late(&mut self) {
        let now = Instant::now();
        let (late, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<VecDeque<Waiting>, _>(|publish| publish.until <= now);
        self.waiting = waiting;
        for Waiting { confirmer, .. } in late {
            let message = "the topic was full for all of the time limit: some group does not settle its messages";
            confirmer.confirm(Err(Error::new(ErrorKind::Busy, message)));
        }
    }

    /// Stores the publishes that wait, as far as there is room now.
    fn admit(&mut self, wakers: &mut Vec<Waker>) {
        while let Some(bytes) = self.waiting.front().map(|publish| publish.bytes)
            && self.take_room(bytes)
        {
            if let Some(Waiting { message, confirmer, .. }) = self.waiting.pop_front() {
                confirmer.confirm(Ok(self.store(message, wakers)));
            }
        }
    }
}

fn too_large(bytes: usize, bounds: Bounds) -> Error {
    let message = "the message is larger than all that its topic keeps: raise max_bytes";
    Error::new(ErrorKind::TooLarge, message).with_context("size", bytes).with_context("limit", bounds.bytes)
}
