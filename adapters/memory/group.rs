//! The state of a group in a topic: settled messages, deliveries, and messages to redeliver.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::task::{Context, Waker};
use std::time::Duration;

use super::delayed::after;
use crate::driver::{Disposition, Inbound, Tenure};
use crate::sync::time::Instant;

/// The identity of a delivery: enough to settle it, and to detect that it is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) group: u64,
    /// Number of times the group's position had been moved at the delivery.
    pub(super) moves: u64,
    pub(super) connection: u64,
    pub(super) sequence: u64,
    pub(super) deliveries: u32,
}

/// One delivery of a message.
#[derive(Debug)]
pub(super) struct HandedOut {
    pub(super) ticket: Ticket,
    pub(super) attempt: u32,
    pub(super) lost_trials: Option<u32>,
    pub(super) tenure: Tenure,
}

/// The position of a group: the first message that was never delivered, and those before it that
/// are not settled.
#[derive(Debug)]
pub(super) struct Group {
    next: u64,
    /// Number of times the position was moved.
    moves: u64,
    unsettled: BTreeMap<u64, Slot>,
    /// Messages to redeliver at once.
    again: VecDeque<u64>,
    /// Messages to redeliver at a later time.
    later: BinaryHeap<Reverse<(Instant, u64)>>,
    waiting: Vec<(u64, Waker)>,
    members: usize,
    /// The time since which there is no member.
    alone_since: Instant,
    /// The tenures of the deliveries that are out, by connection.
    tenures: BTreeMap<u64, Tenure>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Number of times the message was handed out.
    deliveries: u32,
    /// Number of retries that were asked for.
    retries: u32,
    /// Number of trials that were noted and not withdrawn.
    trials: u32,
    state: SlotState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    /// Delivered on this connection.
    Out(u64),
    /// Waits in `again` or `later`.
    Back,
}

/// The answer of a group to a member that asks for a message.
pub(super) enum Pull {
    Message { sequence: u64, attempt: u32, deliveries: u32, lost_trials: Option<u32>, tenure: Tenure },
    Nothing(Option<Instant>),
}

impl Group {
    pub(super) fn new(position: u64) -> Self {
        Self {
            next: position,
            moves: 0,
            unsettled: BTreeMap::new(),
            again: VecDeque::new(),
            later: BinaryHeap::new(),
            waiting: Vec::new(),
            members: 0,
            alone_since: Instant::now(),
            tenures: BTreeMap::new(),
        }
    }

    /// Returns the first message that was never delivered.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Returns the oldest message that is not settled.
    pub(super) fn low_water(&self) -> u64 {
        self.unsettled.keys().next().copied().unwrap_or(self.next)
    }

    /// Returns the number of messages that were delivered and are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// Returns `true` if the group has settled the message, or passes it over.
    pub(super) fn is_settled(&self, sequence: u64) -> bool {
        sequence < self.next && !self.unsettled.contains_key(&sequence)
    }

    /// Counts in a member.
    pub(super) fn join(&mut self) {
        self.members += 1;
    }

    /// Counts out a member that is gone.
    pub(super) fn leave(&mut self, member: u64) {
        self.stop_waiting(member);
        self.members = self.members.saturating_sub(1);
        self.alone_since = Instant::now();
    }

    /// Returns the time at which the group counts as abandoned; `None` while it has a member, or a
    /// delivery of one that is gone.
    pub(super) fn abandoned_at(&self, patience: Duration) -> Option<Instant> {
        let is_out = |slot: &Slot| matches!(slot.state, SlotState::Out(_));
        let is_in_use = self.members > 0 || self.unsettled.values().any(is_out);
        (!is_in_use).then(|| self.alone_since.checked_add(patience)).flatten()
    }

    /// Returns the number of times the position was moved.
    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    /// Starts anew at this position and returns the wakers of waiting members. All earlier tickets
    /// become stale.
    pub(super) fn reposition(&mut self, position: u64) -> Vec<Waker> {
        let woken = self.wake_all();
        self.end_tenures();
        *self = Self { moves: self.moves + 1, members: self.members, ..Self::new(position) };
        woken
    }

    /// Takes the next message for a connection: one to redeliver, or the first one that was never
    /// delivered, which is `new`.
    pub(super) fn pull(&mut self, connection: u64, new: Option<u64>) -> Pull {
        let mut due = None;
        if let Some(Reverse((when, sequence))) = self.later.peek().copied() {
            if when <= Instant::now() {
                self.later.pop();
                self.again.push_back(sequence);
            } else {
                due = Some(when);
            }
        }
        let sequence = match (self.again.pop_front(), new) {
            (Some(sequence), _) => sequence,
            (None, Some(sequence)) => {
                self.next = sequence + 1;
                let slot = Slot { deliveries: 0, retries: 0, trials: 0, state: SlotState::Back };
                self.unsettled.insert(sequence, slot);
                sequence
            }
            (None, None) => return Pull::Nothing(due),
        };
        let tenure = self.tenures.entry(connection).or_default().clone();
        match self.unsettled.get_mut(&sequence) {
            Some(slot) => {
                slot.deliveries = slot.deliveries.saturating_add(1);
                slot.state = SlotState::Out(connection);
                let attempt = slot.retries.saturating_add(1);
                let is_suspect = slot.trials > 0 || Inbound::is_suspicious(attempt, slot.deliveries);
                let lost_trials = is_suspect.then_some(slot.trials);
                Pull::Message { sequence, attempt, deliveries: slot.deliveries, lost_trials, tenure }
            }
            None => Pull::Nothing(due),
        }
    }

    /// Settles the delivery of this ticket and returns the wakers to wake, or `None` if the ticket
    /// is stale.
    pub(super) fn settle(&mut self, ticket: Ticket, disposition: Disposition) -> Option<Vec<Waker>> {
        if ticket.moves != self.moves {
            return None;
        }
        let slot = self.unsettled.get_mut(&ticket.sequence)?;
        if slot.state != SlotState::Out(ticket.connection) || slot.deliveries != ticket.deliveries {
            return None;
        }
        match disposition {
            Disposition::Ack | Disposition::Discard => {
                self.unsettled.remove(&ticket.sequence);
                Some(Vec::new())
            }
            Disposition::GiveBack => {
                slot.state = SlotState::Back;
                let place = self.again.partition_point(|waiting| *waiting < ticket.sequence);
                self.again.insert(place, ticket.sequence);
                Some(self.wake_all())
            }
            Disposition::Retry(delay) => {
                slot.state = SlotState::Back;
                slot.retries = slot.retries.saturating_add(1);
                if delay.is_zero() {
                    self.again.push_back(ticket.sequence);
                } else {
                    self.later.push(Reverse((after(delay), ticket.sequence)));
                }
                Some(self.wake_all())
            }
        }
    }

    /// Notes a trial of the message of this ticket, or withdraws the note, also of a stale ticket.
    /// The broker ends with its process, so a connection stands for a process here.
    pub(super) fn note_trial(&mut self, ticket: Ticket, begins: bool) {
        if ticket.moves == self.moves
            && let Some(slot) = self.unsettled.get_mut(&ticket.sequence)
        {
            slot.trials = if begins { slot.trials.saturating_add(1) } else { slot.trials.saturating_sub(1) };
        }
    }

    /// Takes back the deliveries of a connection, oldest first, and returns the wakers to wake.
    pub(super) fn release(&mut self, connection: u64) -> Vec<Waker> {
        self.tenures.remove(&connection).inspect(Tenure::end);
        let mut released = VecDeque::new();
        for (sequence, slot) in &mut self.unsettled {
            if slot.state == SlotState::Out(connection) {
                slot.state = SlotState::Back;
                released.push_back(*sequence);
            }
        }
        released.append(&mut self.again);
        self.again = released;
        self.wake_all()
    }

    /// Remembers the waker of a member that waits for a message.
    pub(super) fn wait(&mut self, member: u64, cx: &Context<'_>) {
        match self.waiting.iter_mut().find(|(waiting, _)| *waiting == member) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => self.waiting.push((member, cx.waker().clone())),
        }
    }

    /// Removes a member that takes no more messages.
    pub(super) fn stop_waiting(&mut self, member: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != member);
    }

    /// Ends the tenures of all deliveries: none of them can be settled any more.
    pub(super) fn end_tenures(&mut self) {
        std::mem::take(&mut self.tenures).into_values().for_each(|tenure| tenure.end());
    }

    /// Returns the wakers of all members that wait. One of them would do for one message, but it
    /// may be busy with something else, and then another one must take its place.
    pub(super) fn wake_all(&mut self) -> Vec<Waker> {
        self.waiting.drain(..).map(|(_, waker)| waker).collect()
    }
}
