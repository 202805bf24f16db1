//! A history sorted by messages and deliveries.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Delivered, Event, Outcome, Record, Verdict};
use crate::recipe::{Flaw, Id};

/// The answer to a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Confirmed,
    NotSent,
    Unknown,
}

/// A publish.
#[derive(Debug)]
pub(super) struct Publish<'a> {
    pub(super) at: u64,
    pub(super) key: &'a str,
    /// `None` if it never ended.
    pub(super) answer: Option<Answer>,
}

/// A delivery with everything that was noted about it.
#[derive(Debug)]
pub(super) struct Delivery<'a> {
    pub(super) at: u64,
    pub(super) what: &'a Delivered,
    /// The flaws that were seen at the end of the work.
    pub(super) flaws_after: &'a [Flaw],
    pub(super) is_handled: bool,
    pub(super) asked: Option<Verdict>,
    /// Time and answer.
    pub(super) settled: Option<(u64, &'a Outcome)>,
    pub(super) spans_ended: usize,
}

impl Delivery<'_> {
    /// Returns `true` if the message has to come again after this delivery.
    pub(super) fn must_come_again(&self) -> bool {
        match (self.asked, self.settled) {
            (None | Some(Verdict::Retry | Verdict::Drop), _) => true,
            (Some(Verdict::Ack | Verdict::Reject), Some((_, Outcome::Failed(_)))) => true,
            // It is settled, or the answer was lost: then it may be settled or not.
            (Some(Verdict::Ack | Verdict::Reject), _) => false,
        }
    }

    /// Returns the time at which the broker confirmed that the message is done.
    pub(super) fn done_at(&self) -> Option<u64> {
        let is_last = matches!(self.asked, Some(Verdict::Ack | Verdict::Reject));
        self.settled.filter(|(_, outcome)| is_last && **outcome == Outcome::Settled).map(|(at, _)| at)
    }
}

/// The events by their subjects.
#[derive(Debug, Default)]
pub(super) struct Ledger<'a> {
    pub(super) publishes: BTreeMap<Id, Publish<'a>>,
    /// In the order of the history.
    pub(super) deliveries: Vec<Delivery<'a>>,
    /// Indices of the deliveries of a message to a group, in their order.
    pub(super) of_message: HashMap<(&'a str, Id), Vec<usize>>,
    /// Names of deliveries that occur twice.
    pub(super) repeated: Vec<&'a str>,
    /// Events about deliveries that never were.
    pub(super) orphans: Vec<&'a str>,
    /// Everything else.
    pub(super) rest: Vec<&'a Record>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(history: &'a [Record]) -> Self {
        let mut ledger = Self::default();
        let mut names: HashMap<&str, usize> = HashMap::new();
        // A process writes its events in order, but those of two processes may be mixed.
        let mut sorted: Vec<&Record> = history.iter().collect();
        sorted.sort_by_key(|record| record.at);
        for record in &sorted {
            match &record.event {
                Event::Attempted { id, key } => {
                    ledger.publishes.insert(*id, Publish { at: record.at, key, answer: None });
                }
                Event::Confirmed { id } => ledger.answer(*id, Answer::Confirmed),
                Event::NotSent { id, .. } => ledger.answer(*id, Answer::NotSent),
                Event::Unknown { id, .. } => ledger.answer(*id, Answer::Unknown),
                Event::Delivered(what) => ledger.deliver(record.at, what, &mut names),
                event => ledger.note(record, event, &names),
            }
        }
        ledger
    }

    fn answer(&mut self, id: Id, answer: Answer) {
        if let Some(publish) = self.publishes.get_mut(&id) {
            publish.answer = Some(answer);
        }
    }

    fn deliver(&mut self, at: u64, what: &'a Delivered, names: &mut HashMap<&'a str, usize>) {
        let index = self.deliveries.len();
        if names.insert(&what.delivery, index).is_some() {
            self.repeated.push(&what.delivery);
        }
        if let Some(id) = what.id {
            self.of_message.entry((&what.group, id)).or_default().push(index);
        }
        let (flaws_after, is_handled, asked, settled) = (&[][..], false, None, None);
        self.deliveries.push(Delivery { at, what, flaws_after, is_handled, asked, settled, spans_ended: 0 });
    }

    fn note(&mut self, record: &'a Record, event: &'a Event, names: &HashMap<&'a str, usize>) {
        let (Event::Handled { delivery, .. }
        | Event::Asked { delivery, .. }
        | Event::Settled { delivery, .. }
        | Event::SpanEnded { delivery }) = event
        else {
            self.rest.push(record);
            return;
        };
        let Some(found) = names.get(&**delivery).and_then(|index| self.deliveries.get_mut(*index)) else {
            self.orphans.push(delivery);
            return;
        };
        match event {
            Event::Handled { flaws, .. } => (found.is_handled, found.flaws_after) = (true, flaws),
            Event::Asked { verdict, .. } => found.asked = Some(*verdict),
            Event::Settled { outcome, .. } => found.settled = Some((record.at, outcome)),
            _ => found.spans_ended += 1,
        }
    }

    /// Returns the deliveries of a message to a group.
    pub(super) fn deliveries_of(&self, group: &'a str, id: Id) -> impl Iterator<Item = &Delivery<'a>> {
        let indices = self.of_message.get(&(group, id)).map(Vec::as_slice).unwrap_or_default();
        indices.iter().map(|index| &self.deliveries[*index])
    }

    /// Returns the time of the last deletion by an operator.
    pub(super) fn last_deletion(&self) -> Option<u64> {
        let deleted = self.rest.iter().filter(|record| matches!(record.event, Event::Deleted { .. }));
        deleted.map(|record| record.at).max()
    }

    /// Returns `true` if the process was killed.
    pub(super) fn has_died(&self, member: &str) -> bool {
        self.rest.iter().any(|record| matches!(&record.event, Event::Died { member: dead } if dead == member))
    }

    /// Returns the number of faults.
    pub(super) fn faults(&self) -> usize {
        self.rest.iter().filter(|record| matches!(record.event, Event::Fault { .. } | Event::Died { .. })).count()
    }
}
