//! The state of a group in a topic: messages that are settled, out with a member, or to be
//! redelivered.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use traced_broker::driver::Disposition;

use crate::journal::Journal;
use crate::record::{Event, Stored, decode};

/// Maximum number of messages between the oldest unsettled one and the newest: the bound of memory.
const WINDOW: usize = 65_536;
/// Maximum delay of a retry, so that the due time is within the range of the clock.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The number of the next delivery. Numbers are unique in a process, so that a stale handle settles
/// no other message.
static NEXT_DELIVERY: AtomicU64 = AtomicU64::new(1);

/// A group, or a reader without a group, which has no file.
#[derive(Debug)]
pub(crate) struct Group {
    file: Option<Journal>,
    /// The oldest unsettled message, and the position of the message behind the window.
    low: u64,
    next_position: u64,
    window: VecDeque<Slot>,
    again: BTreeSet<u64>,
    later: BinaryHeap<Reverse<(Instant, u64)>>,
    /// The members in turn: one that gets a message goes to the end.
    members: VecDeque<Member>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    position: u64,
    attempts: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Out { delivery: u64, member: u64, connection: u64 },
    Back,
    Settled,
}

/// A subscription.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) connection: u64,
    /// The number of further messages that it may have unsettled.
    pub(crate) room: usize,
    pub(crate) messages: mpsc::Sender<Handed>,
}

/// A message on its way to a member.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) number: u64,
    pub(crate) delivery: u64,
    pub(crate) attempt: u32,
    pub(crate) stored: Stored,
}

impl Group {
    /// Creates a group that begins at this message, with a file if it has a name.
    pub(crate) fn begin(file: Option<Journal>, number: u64, position: u64) -> Self {
        let mut group = Self {
            file,
            low: number,
            next_position: position,
            window: VecDeque::new(),
            again: BTreeSet::new(),
            later: BinaryHeap::new(),
            members: VecDeque::new(),
        };
        group.note(Event::Began { number, position });
        group
    }

    /// Restores the group of a file; every unsettled message is redelivered. `end` is the number of
    /// the topic's next message. A file without a beginning is a new group.
    pub(crate) fn restore(path: &Path, journal: &mut Journal, end: u64) -> io::Result<Option<Self>> {
        let (mut began, mut settled, mut attempts) = (None, BTreeSet::new(), BTreeMap::new());
        let file = Journal::open(path, false, |_, record| match Event::decode(record) {
            Some(Event::Began { number, position }) => {
                began = Some((number, position));
                settled.clear();
                attempts.clear();
            }
            Some(Event::Tried { number, attempts: tried }) => drop(attempts.insert(number, tried)),
            Some(Event::Settled { number }) => drop((settled.insert(number), attempts.remove(&number))),
            None => {}
        })?;
        let Some((low, mut position)) = began else { return Ok(None) };
        if low > end || position > journal.end() {
            // After a crash of the machine, the journal may be shorter than this file says.
            return Ok(Some(Self::begin(Some(file), end, journal.end())));
        }
        let known = settled.last().max(attempts.keys().next_back()).copied();
        let mut window = VecDeque::new();
        while known.is_some_and(|known| low + window.len() as u64 <= known) {
            let number = low + window.len() as u64;
            let Some((_, next)) = journal.read(position)? else { break };
            let state = if settled.contains(&number) { State::Settled } else { State::Back };
            window.push_back(Slot { position, attempts: attempts.get(&number).copied().unwrap_or(0), state });
            position = next;
        }
        let back = window.iter().enumerate().filter(|(_, slot)| slot.state == State::Back);
        let again = back.map(|(index, _)| low + index as u64).collect();
        let (later, members) = (BinaryHeap::new(), VecDeque::new());
        let mut group = Self { file: Some(file), low, next_position: position, window, again, later, members };
        group.advance();
        Ok(Some(group))
    }

    pub(crate) fn join(&mut self, member: Member) {
        self.members.push_back(member);
    }

    pub(crate) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Returns `true` if there are members, or messages that are out with a handle.
    pub(crate) fn is_in_use(&self) -> bool {
        self.has_members() || self.window.iter().any(|slot| matches!(slot.state, State::Out { .. }))
    }

    /// Moves the group to another message; its members keep their places, but no messages.
    pub(crate) fn reposition(&mut self, number: u64, position: u64) {
        for slot in std::mem::take(&mut self.window) {
            self.make_room(slot.state);
        }
        self.again.clear();
        self.later.clear();
        (self.low, self.next_position) = (number, position);
        self.note(Event::Began { number, position });
    }

    /// Returns the time when the next delayed retry is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.later.peek().map(|Reverse((due, _))| *due)
    }

    /// Hands out messages while members have room, redeliveries first.
    pub(crate) fn hand_out(&mut self, journal: &mut Journal) -> io::Result<()> {
        while self.next_due().is_some_and(|due| due <= Instant::now()) {
            self.again.extend(self.later.pop().map(|Reverse((_, number))| number));
        }
        while let Some(turn) = self.members.iter().position(|member| member.room > 0) {
            let Some((number, stored)) = self.next_message(journal)? else { break };
            let Some(mut member) = self.members.remove(turn) else { break };
            let delivery = NEXT_DELIVERY.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = self.slot(number) else { break };
            slot.state = State::Out { delivery, member: member.id, connection: member.connection };
            slot.attempts = slot.attempts.saturating_add(1);
            let attempt = slot.attempts;
            // A member whose stream is gone gets no more; its `Leave` is on its way.
            if member.messages.try_send(Handed { number, delivery, attempt, stored }).is_err() {
                self.unsent(number, delivery);
                continue;
            }
            self.note(Event::Tried { number, attempts: attempt });
            member.room -= 1;
            self.members.push_back(member);
        }
        Ok(())
    }

    fn next_message(&mut self, journal: &mut Journal) -> io::Result<Option<(u64, Stored)>> {
        if let Some(number) = self.again.pop_first() {
            let Some(position) = self.slot(number).map(|slot| slot.position) else { return Ok(None) };
            return Ok(journal.read(position)?.map(|(record, _)| (number, decode(record))));
        }
        if self.window.len() == WINDOW {
            return Ok(None);
        }
        let Some((record, next)) = journal.read(self.next_position)? else { return Ok(None) };
        self.window.push_back(Slot { position: self.next_position, attempts: 0, state: State::Back });
        self.next_position = next;
        Ok(Some((self.low + self.window.len() as u64 - 1, decode(record))))
    }

    /// Settles a delivery; returns `false` if it is not out any more.
    pub(crate) fn settle(&mut self, number: u64, delivery: u64, disposition: Disposition) -> bool {
        let Some(state) = self.out(number, delivery) else { return false };
        self.make_room(state);
        match disposition {
            Disposition::Retry(delay) => self.bring_back(number, delay),
            _ => {
                if let Some(slot) = self.slot(number) {
                    slot.state = State::Settled;
                }
                self.note(Event::Settled { number });
                self.advance();
            }
        }
        true
    }

    /// Takes back a message that its member never saw; it does not count as an attempt.
    pub(crate) fn unsent(&mut self, number: u64, delivery: u64) {
        let Some(state) = self.out(number, delivery) else { return };
        self.make_room(state);
        let slot = self.slot(number);
        let attempts = slot.map_or(0, |slot| {
            slot.attempts = slot.attempts.saturating_sub(1);
            slot.attempts
        });
        self.note(Event::Tried { number, attempts });
        self.bring_back(number, Duration::ZERO);
    }

    /// Removes a subscription; messages that are out stay with their handles.
    pub(crate) fn leave(&mut self, member: u64) {
        self.members.retain(|other| other.id != member);
    }

    /// Removes a connection; the messages that it holds are redelivered.
    pub(crate) fn release(&mut self, gone: u64) {
        self.members.retain(|member| member.connection != gone);
        for (number, slot) in (self.low..).zip(&mut self.window) {
            if matches!(slot.state, State::Out { connection, .. } if connection == gone) {
                slot.state = State::Back;
                self.again.insert(number);
            }
        }
    }

    /// Writes the events, so that the next process finds them.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Journal::flush)
    }

    fn bring_back(&mut self, number: u64, delay: Duration) {
        let Some(slot) = self.slot(number) else { return };
        slot.state = State::Back;
        if delay.is_zero() {
            self.again.insert(number);
        } else {
            self.later.push(Reverse((Instant::now() + delay.min(FAR), number)));
        }
    }

    fn advance(&mut self) {
        while self.window.front().is_some_and(|slot| slot.state == State::Settled) {
            self.window.pop_front();
            self.low += 1;
        }
    }

    fn make_room(&mut self, state: State) {
        let State::Out { member, .. } = state else { return };
        self.members.iter_mut().filter(|other| other.id == member).for_each(|member| member.room += 1);
    }

    fn out(&mut self, number: u64, delivery: u64) -> Option<State> {
        let state = self.slot(number)?.state;
        matches!(state, State::Out { delivery: out, .. } if out == delivery).then_some(state)
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let index = usize::try_from(number.checked_sub(self.low)?).ok()?;
        self.window.get_mut(index)
    }

    fn note(&mut self, event: Event) {
        if let Some(file) = &mut self.file {
            file.append(&event.encode());
        }
    }
}
