//! Where a group stands in a topic: what is settled, what is out and with whom, what comes again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use traced_broker::driver::Disposition;

use crate::journal::Journal;
use crate::record::{Event, Stored, decode};

/// How far a group runs ahead of its oldest unsettled message, in messages: the bound of its memory.
const WINDOW: usize = 65_536;
/// From this size in bytes on, the file of a group is written anew, with what matters only.
const COMPACT_AT: u64 = 4 << 20;
/// As good as never, and within the range of the clock.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The number of a delivery: no two of this process have the same, so that a stale handle settles nothing.
static NEXT_DELIVERY: AtomicU64 = AtomicU64::new(1);

/// A group, or a reader without one, which keeps no file.
#[derive(Debug)]
pub(crate) struct Group {
    file: Option<(PathBuf, Journal)>,
    /// The oldest unsettled message, and where the one behind the window lies.
    low: u64,
    next_position: u64,
    window: VecDeque<Slot>,
    again: BTreeSet<u64>,
    later: BinaryHeap<Reverse<(Instant, u64)>>,
    /// In turn: whoever got a message goes to the end.
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
    /// How many more it may have unsettled.
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
    /// A group that begins at this message, with a file if it has a name.
    pub(crate) fn begin(path: Option<PathBuf>, number: u64, position: u64) -> io::Result<Self> {
        let began = Event::Began { number, position }.encode();
        let file = path.map(|path| Journal::replace(&path, [began].into_iter()).map(|file| (path, file)));
        Ok(Self {
            file: file.transpose()?,
            low: number,
            next_position: position,
            window: VecDeque::new(),
            again: BTreeSet::new(),
            later: BinaryHeap::new(),
            members: VecDeque::new(),
        })
    }

    /// The group of that file: all that was not settled comes again. `end` is the number of the topic's next message.
    pub(crate) fn restore(path: &Path, journal: &mut Journal, end: u64) -> io::Result<Option<Self>> {
        let (mut began, mut settled, mut attempts) = (None, BTreeSet::new(), BTreeMap::new());
        let file = Journal::open(path, false, |_, record| match Event::decode(record) {
            Some(Event::Began { number, position }) => began = Some((number, position)),
            Some(Event::Tried { number, attempts: tried }) => drop(attempts.insert(number, tried)),
            Some(Event::Settled { number }) => drop((settled.insert(number), attempts.remove(&number))),
            None => {}
        })?;
        let Some((low, mut position)) = began else { return Ok(None) };
        if low > end || position > journal.end() {
            // The machine crashed, and of the journal less is left than of this file.
            return Self::begin(Some(path.to_owned()), end, journal.end()).map(Some);
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
        let file = Some((path.to_owned(), file));
        let (later, members) = (BinaryHeap::new(), VecDeque::new());
        let mut group = Self { file, low, next_position: position, window, again, later, members };
        group.advance();
        Ok(Some(group))
    }

    pub(crate) fn join(&mut self, member: Member) {
        self.members.push_back(member);
    }

    pub(crate) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Whether somebody holds a message, be its subscription gone or not.
    pub(crate) fn is_in_use(&self) -> bool {
        self.has_members() || self.window.iter().any(|slot| matches!(slot.state, State::Out { .. }))
    }

    /// Begins anew elsewhere with the same members, who hold nothing any more.
    pub(crate) fn reposition(&mut self, number: u64, position: u64) -> io::Result<()> {
        let fresh = Self::begin(self.file.as_ref().map(|(path, _)| path.clone()), number, position)?;
        let old = std::mem::replace(self, fresh);
        self.members = old.members;
        old.window.iter().for_each(|slot| self.make_room(slot.state));
        Ok(())
    }

    /// When there is something to hand out without being told.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.later.peek().map(|Reverse((due, _))| *due)
    }

    /// Hands out what there is, as far as members have room: what comes again first.
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
            // A member whose stream is gone stays away; that it leaves is on its way.
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

    /// Settles a delivery; false when it is not out any more.
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

    /// Takes back what its member never saw: that was no attempt.
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

    /// A subscription is gone; what is out stays with its handles.
    pub(crate) fn leave(&mut self, member: u64) {
        self.members.retain(|other| other.id != member);
    }

    /// A connection is gone: what it holds comes again.
    pub(crate) fn release(&mut self, gone: u64) {
        self.members.retain(|member| member.connection != gone);
        for (number, slot) in (self.low..).zip(&mut self.window) {
            if matches!(slot.state, State::Out { connection, .. } if connection == gone) {
                slot.state = State::Back;
                self.again.insert(number);
            }
        }
    }

    /// Writes what happened, so that another process finds it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        file.flush()?;
        if file.end() > COMPACT_AT {
            let position = self.window.front().map_or(self.next_position, |slot| slot.position);
            let began = Event::Began { number: self.low, position };
            let known = self.window.iter().zip(self.low..).map(|(slot, number)| match slot.state {
                State::Settled => Event::Settled { number },
                _ => Event::Tried { number, attempts: slot.attempts },
            });
            *file = Journal::replace(path, std::iter::once(began).chain(known).map(Event::encode))?;
        }
        Ok(())
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
        if let Some((_, file)) = &mut self.file {
            file.append(&event.encode());
        }
    }
}
