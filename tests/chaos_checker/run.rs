//! A history that breaks nothing, to plant breaks in.

use std::time::Duration;

use crate::checker::{Finding, Invariant, Rules, check};
use crate::history::{Delivered, Event, Outcome, Record, Verdict};
use crate::recipe::{Flaw, Id};

pub(crate) const MEMBER: &str = "consumers";
const MILLISECOND: u64 = 1_000;

/// The rules of a broker that confirms settlements, without a deletion.
pub(crate) fn rules() -> Rules {
    Rules {
        groups: vec!["ordered".to_owned(), "plain".to_owned()],
        ordered: Some("ordered".to_owned()),
        redelivered_may_be_late: false,
        dead: "dead".to_owned(),
        settles_for_good: true,
        lost_with_deletion: None,
        secret: Some("hush".to_owned()),
        recovery: Duration::from_secs(10),
        spare_deliveries: 0,
    }
}

/// A history under construction; each event is a millisecond after the last one.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) records: Vec<Record>,
    now: u64,
    deliveries: u64,
}

impl Run {
    /// Returns a run of eight messages on two keys that both groups handle.
    pub(crate) fn clean() -> Self {
        let mut run = Self::default();
        for number in 0..8 {
            run.publish(number);
        }
        for number in 0..8 {
            run.deliver("ordered", number, Verdict::Ack);
            run.deliver("plain", number, Verdict::Ack);
        }
        run
    }

    pub(crate) fn note(&mut self, event: Event) {
        self.now += MILLISECOND;
        self.records.push(Record { at: self.now, event });
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += u64::try_from(time.as_micros()).unwrap();
    }

    pub(crate) fn attempt(&mut self, number: u32) {
        self.note(Event::Attempted { id: Id(0, number), key: format!("key-{}", number % 2) });
    }

    pub(crate) fn publish(&mut self, number: u32) {
        self.attempt(number);
        self.note(Event::Confirmed { id: Id(0, number) });
    }

    /// Adds a delivery with nothing after it, and returns its name.
    pub(crate) fn hand_out(&mut self, group: &str, number: u32, flaws: Vec<Flaw>) -> String {
        self.hand_out_again(group, number, 1, flaws)
    }

    /// Adds a delivery that the broker counts with this number, and returns its name.
    pub(crate) fn hand_out_again(&mut self, group: &str, number: u32, deliveries: u32, flaws: Vec<Flaw>) -> String {
        self.deliveries += 1;
        let delivery = format!("{:016x}", self.deliveries);
        let (group, member, id) = (group.to_owned(), MEMBER.to_owned(), Some(Id(0, number)));
        self.note(Event::Delivered(Delivered {
            group,
            member,
            delivery: delivery.clone(),
            id,
            attempt: 1,
            deliveries: Some(deliveries),
            place: String::new(),
            flaws,
        }));
        delivery
    }

    /// Adds a delivery that is settled.
    pub(crate) fn deliver(&mut self, group: &str, number: u32, verdict: Verdict) {
        let delivery = self.hand_out(group, number, Vec::new());
        self.settle(&delivery, verdict, Outcome::Settled);
    }

    pub(crate) fn settle(&mut self, delivery: &str, verdict: Verdict, outcome: Outcome) {
        self.note(Event::Asked { delivery: delivery.to_owned(), verdict });
        self.note(Event::Settled { delivery: delivery.to_owned(), outcome });
        self.note(Event::SpanEnded { delivery: delivery.to_owned() });
    }

    /// Removes the deliveries of a message to a group, with everything about them.
    pub(crate) fn forget(&mut self, group: &str, number: u32) {
        let names = self.records.iter().filter_map(|record| match &record.event {
            Event::Delivered(what) if what.group == group && what.id == Some(Id(0, number)) => {
                Some(what.delivery.clone())
            }
            _ => None,
        });
        let names: Vec<String> = names.collect();
        self.records.retain(|record| match &record.event {
            Event::Delivered(what) => !names.contains(&what.delivery),
            Event::Asked { delivery, .. } | Event::Settled { delivery, .. } | Event::SpanEnded { delivery } => {
                !names.contains(delivery)
            }
            _ => true,
        });
    }

    pub(crate) fn findings(&self) -> Vec<Finding> {
        check(&self.records, &rules())
    }

    /// Asserts that only this invariant is broken, by this message.
    #[track_caller]
    pub(crate) fn breaks(&self, invariant: Invariant, number: impl Into<Option<u32>>) {
        let findings = self.findings();
        let id = number.into().map(|number| Id(0, number));
        assert!(!findings.is_empty(), "nothing is found");
        for finding in &findings {
            assert_eq!((finding.invariant, finding.id), (invariant, id), "{findings:?}");
        }
    }
}
