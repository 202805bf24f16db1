//! The state of a group in a topic: messages that are settled, out with a member, or to be
//! redelivered.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use traced_broker::driver::{Disposition, Tenure};

use crate::inbox::Inbox;
use crate::journal::Journal;
use crate::record::{Event, Stored, decode, nanoseconds};

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
    /// The tenures of the messages that are out, by connection.
    tenures: HashMap<u64, Tenure>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    position: u64,
    /// Number of times the message was handed out.
    deliveries: u32,
    /// Number of retries that were asked for.
    retries: u32,
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
    pub(crate) inbox: Arc<Inbox>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.inbox.end();
    }
}

/// A message on its way to a member.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) number: u64,
    pub(crate) delivery: u64,
    pub(crate) attempt: u32,
    pub(crate) deliveries: u32,
    pub(crate) tenure: Tenure,
    pub(crate) stored: Stored,
}

/// The state of a group as its file records it.
#[derive(Debug, Default)]
struct Recorded {
    began: Option<(u64, u64)>,
    settled: BTreeSet<u64>,
    deliveries: BTreeMap<u64, u32>,
    retries: BTreeMap<u64, u32>,
    due: BTreeMap<u64, u64>,
}

impl Recorded {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Began { number, position } => *self = Self { began: Some((number, position)), ..Self::default() },
            Event::Handed { number, deliveries } => {
                self.deliveries.insert(number, deliveries);
                self.due.remove(&number);
            }
            Event::Retried { number, retries } => drop(self.retries.insert(number, retries)),
            Event::Due { number, time } => drop(self.due.insert(number, time)),
            Event::Settled { number } => {
                self.settled.insert(number);
            }
        }
    }

    /// Returns the newest message that the group knows.
    fn newest(&self) -> Option<u64> {
        self.settled.last().max(self.deliveries.keys().next_back()).copied()
    }

    fn slot(&self, number: u64, position: u64) -> Slot {
        let count = |counts: &BTreeMap<u64, u32>| counts.get(&number).copied().unwrap_or(0);
        let state = if self.settled.contains(&number) { State::Settled } else { State::Back };
        Slot { position, deliveries: count(&self.deliveries), retries: count(&self.retries), state }
    }
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
            tenures: HashMap::new(),
        };
        group.note(Event::Began { number, position });
        group
    }

    /// Restores the group of a file; every unsettled message is redelivered. `end` is the number of
    /// the topic's next message. A file without a beginning is a new group.
    pub(crate) fn restore(path: &Path, journal: &mut Journal, end: u64) -> io::Result<Option<Self>> {
        let mut recorded = Recorded::default();
        let visit = |_, record: &[u8]| Event::decode(record).into_iter().for_each(|event| recorded.apply(event));
        let file = Journal::open(path, false, visit)?;
        let Some((low, position)) = recorded.began else { return Ok(None) };
        if low > end || position > journal.end() {
            // After a crash of the machine, the journal may be shorter than this file says.
            return Ok(Some(Self::begin(Some(file), end, journal.end())));
        }
        let mut group = Self {
            file: Some(file),
            low,
            next_position: position,
            window: VecDeque::new(),
            again: BTreeSet::new(),
            later: BinaryHeap::new(),
            members: VecDeque::new(),
            tenures: HashMap::new(),
        };
        while recorded.newest().is_some_and(|newest| low + group.window.len() as u64 <= newest) {
            let number = low + group.window.len() as u64;
            let Some((_, next)) = journal.read(group.next_position)? else { break };
            let slot = recorded.slot(number, group.next_position);
            group.window.push_back(slot);
            group.next_position = next;
            if slot.state == State::Back {
                let due = recorded.due.get(&number).map(|due| UNIX_EPOCH + Duration::from_nanos(*due));
                let delay = due.and_then(|due| due.duration_since(SystemTime::now()).ok());
                group.bring_back(number, delay.unwrap_or_default());
            }
        }
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

    /// Returns the number of the oldest unsettled message.
    pub(crate) fn low(&self) -> u64 {
        self.low
    }

    /// Moves the group to another message. Its members keep their places, but no messages: those
    /// that were not yielded are forgotten, and the handles of the others settle nothing.
    pub(crate) fn reposition(&mut self, number: u64, position: u64) {
        self.members.iter().for_each(|member| drop(member.inbox.take_back()));
        for slot in std::mem::take(&mut self.window) {
            self.make_room(slot.state);
        }
        self.tenures.drain().for_each(|(_, tenure)| tenure.end());
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
            let tenure = self.tenures.entry(member.connection).or_default().clone();
            let Some(slot) = self.slot(number) else { break };
            slot.state = State::Out { delivery, member: member.id, connection: member.connection };
            slot.deliveries = slot.deliveries.saturating_add(1);
            let (deliveries, attempt) = (slot.deliveries, slot.retries.saturating_add(1));
            self.note(Event::Handed { number, deliveries });
            member.inbox.put(Handed { number, delivery, attempt, deliveries, tenure, stored });
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
        self.window.push_back(Slot { position: self.next_position, deliveries: 0, retries: 0, state: State::Back });
        self.next_position = next;
        Ok(Some((self.low + self.window.len() as u64 - 1, decode(record))))
    }

    /// Settles a delivery; returns `false` if it is not out any more.
    pub(crate) fn settle(&mut self, number: u64, delivery: u64, disposition: Disposition) -> bool {
        let Some(state) = self.out(number, delivery) else { return false };
        self.make_room(state);
        match disposition {
            Disposition::GiveBack => self.bring_back(number, Duration::ZERO),
            Disposition::Retry(delay) => self.retry(number, delay),
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

    /// Counts an attempt, and brings the message back when it is due, also in the next process.
    fn retry(&mut self, number: u64, delay: Duration) {
        let Some(slot) = self.slot(number) else { return };
        slot.retries = slot.retries.saturating_add(1);
        let retries = slot.retries;
        self.note(Event::Retried { number, retries });
        if !delay.is_zero() {
            let time = nanoseconds(SystemTime::now() + delay.min(FAR));
            self.note(Event::Due { number, time });
        }
        self.bring_back(number, delay);
    }

    /// Removes a subscription. Messages that it has not yielded go back, as if they had not been
    /// handed out; those that it has stay with their handles.
    pub(crate) fn leave(&mut self, member: u64) {
        let Some(index) = self.members.iter().position(|other| other.id == member) else { return };
        let Some(member) = self.members.remove(index) else { return };
        for handed in member.inbox.take_back() {
            self.unsent(&handed);
        }
    }

    fn unsent(&mut self, handed: &Handed) {
        let number = handed.number;
        let Some(slot) = self.slot(number) else { return };
        slot.deliveries = slot.deliveries.saturating_sub(1);
        let deliveries = slot.deliveries;
        self.note(Event::Handed { number, deliveries });
        self.bring_back(number, Duration::ZERO);
    }

    /// Removes a connection; the messages that it holds are redelivered.
    pub(crate) fn release(&mut self, gone: u64) {
        let members: Vec<u64> =
            self.members.iter().filter(|member| member.connection == gone).map(|member| member.id).collect();
        members.into_iter().for_each(|member| self.leave(member));
        for (number, slot) in (self.low..).zip(&mut self.window) {
            if matches!(slot.state, State::Out { connection, .. } if connection == gone) {
                slot.state = State::Back;
                self.again.insert(number);
            }
        }
        self.tenures.remove(&gone).iter().for_each(Tenure::end);
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

impl Drop for Group {
    /// Tells the messages that are out that they cannot be settled any more.
    fn drop(&mut self) {
        self.tenures.values().for_each(Tenure::end);
    }
}
