//! Loss, phantoms and duplicates.

use std::collections::HashSet;

use super::ledger::{Answer, Ledger};
use super::{Finding, Invariant, Rules};
use crate::history::{Outcome, Record, Verdict};
use crate::recipe::{Flaw, Id};

/// The numbers of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) attempted: usize,
    pub(crate) confirmed: usize,
    pub(crate) not_sent: usize,
    /// The other publishes, and those of them that were delivered.
    pub(crate) unknown: usize,
    pub(crate) unknown_seen: usize,
    pub(crate) not_sent_seen: usize,
    /// Confirmed messages that a group did not get, or that were never settled; all groups
    /// together.
    pub(crate) lost: usize,
    pub(crate) crossed: usize,
    /// Deliveries beyond the first and those that were asked for, all groups together.
    pub(crate) duplicates: usize,
    /// Maximum number of deliveries of one message to one group.
    pub(crate) most_deliveries: usize,
}

impl Figures {
    /// Adds the numbers of another run.
    pub(crate) fn add(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.confirmed += other.confirmed;
        self.not_sent += other.not_sent;
        self.unknown += other.unknown;
        self.unknown_seen += other.unknown_seen;
        self.not_sent_seen += other.not_sent_seen;
        self.lost += other.lost;
        self.crossed += other.crossed;
        self.duplicates += other.duplicates;
        self.most_deliveries = self.most_deliveries.max(other.most_deliveries);
    }
}

pub(super) fn check(ledger: &Ledger<'_>, rules: &Rules) -> Vec<Finding> {
    let mut findings = lost(ledger, rules);
    findings.extend(lost_letters(ledger, rules));
    findings.extend(phantoms(ledger));
    findings.extend(too_many(ledger, rules));
    findings
}

/// Returns the breaks that more time could mend: messages that are not delivered or settled yet.
pub(crate) fn outstanding(history: &[Record], rules: &Rules) -> usize {
    let ledger = Ledger::new(history);
    let unanswered = ledger.publishes.values().filter(|publish| publish.answer.is_none()).count();
    let unsettled = super::settling::unsettled(&ledger, rules).len();
    lost(&ledger, rules).len() + lost_letters(&ledger, rules).len() + unsettled + unanswered
}

/// Returns the first time of publishing from which loss is judged.
pub(super) fn judged_from(ledger: &Ledger<'_>, rules: &Rules) -> u64 {
    let deleted = rules.lost_with_deletion.zip(ledger.last_deletion());
    deleted.map_or(0, |(after, at)| at + u64::try_from(after.as_micros()).unwrap_or(u64::MAX))
}

fn lost(ledger: &Ledger<'_>, rules: &Rules) -> Vec<Finding> {
    let from = judged_from(ledger, rules);
    let mut findings = Vec::new();
    for (id, publish) in &ledger.publishes {
        if publish.answer != Some(Answer::Confirmed) || publish.at < from {
            continue;
        }
        for group in &rules.groups {
            if !ledger.of_message.contains_key(&(&**group, *id)) {
                let text = format!("{id} was confirmed and not delivered to {group}");
                findings.push(Finding::new(Invariant::I1, *id, text));
            }
        }
    }
    findings
}

fn lost_letters(ledger: &Ledger<'_>, rules: &Rules) -> Vec<Finding> {
    let from = judged_from(ledger, rules);
    let rejected = ledger.deliveries.iter().filter(|delivery| {
        let is_settled = matches!(delivery.settled, Some((_, Outcome::Settled)));
        delivery.asked == Some(Verdict::Reject) && is_settled
    });
    let rejected: HashSet<Id> = rejected.filter_map(|delivery| delivery.what.id).collect();
    let mut lost: Vec<Id> = rejected
        .into_iter()
        .filter(|id| ledger.publishes.get(id).is_some_and(|publish| publish.at >= from))
        .filter(|id| !ledger.of_message.contains_key(&(&*rules.dead, *id)))
        .collect();
    lost.sort();
    let text = |id: &Id| format!("{id} was rejected, and its dead letter was not delivered");
    lost.iter().map(|id| Finding::new(Invariant::I1, *id, text(id))).collect()
}

fn phantoms(ledger: &Ledger<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for delivery in &ledger.deliveries {
        let group = &delivery.what.group;
        let Some(id) = delivery.what.id else {
            let text = format!("{group} got a payload that is damaged or of another run");
            findings.push(Finding::new(Invariant::I2, None, text));
            continue;
        };
        match ledger.publishes.get(&id).map(|publish| publish.answer) {
            None => {
                let text = format!("{group} got {id}, which was never published");
                findings.push(Finding::new(Invariant::I2, id, text));
            }
            Some(Some(Answer::NotSent)) => {
                let text = format!("{group} got {id}, which was certainly not sent");
                findings.push(Finding::new(Invariant::I3, id, text));
            }
            Some(_) => {}
        }
        for flaw in delivery.what.flaws.iter().filter(|flaw| !matches!(flaw, Flaw::Context(_))) {
            let text = format!("{group} got {id} with another {flaw:?}");
            findings.push(Finding::new(Invariant::I2, id, text));
        }
    }
    findings
}

/// Returns the number of deliveries of a message to a group, and of those that were asked for.
fn counts(ledger: &Ledger<'_>, indices: &[usize]) -> (usize, usize) {
    let asked = |index: &&usize| matches!(ledger.deliveries[**index].asked, Some(Verdict::Retry | Verdict::Drop));
    (indices.len(), indices.iter().filter(asked).count())
}

fn too_many(ledger: &Ledger<'_>, rules: &Rules) -> Vec<Finding> {
    let faults = ledger.faults();
    let mut findings = Vec::new();
    for ((group, id), indices) in &ledger.of_message {
        let (deliveries, asked) = counts(ledger, indices);
        // Each of the groups may have written a dead letter.
        let letters = if *group == rules.dead { rules.groups.len() - 1 } else { 0 };
        if deliveries > 1 + asked + letters + faults * (letters + 1) + rules.spare_deliveries {
            let text =
                format!("{group} got {id} {deliveries} times, with {asked} retries asked for and {faults} faults");
            findings.push(Finding::new(Invariant::I12, *id, text));
        }
    }
    findings.sort_by_key(|finding| finding.id);
    findings
}

pub(super) fn figures(ledger: &Ledger<'_>, rules: &Rules) -> Figures {
    let mut figures = Figures { attempted: ledger.publishes.len(), ..Figures::default() };
    let seen = |id: Id| rules.groups.iter().any(|group| ledger.of_message.contains_key(&(&**group, id)));
    for (id, publish) in &ledger.publishes {
        match publish.answer {
            Some(Answer::Confirmed) => figures.confirmed += 1,
            Some(Answer::NotSent) => {
                figures.not_sent += 1;
                figures.not_sent_seen += usize::from(seen(*id));
            }
            Some(Answer::Unknown) | None => {
                figures.unknown += 1;
                figures.unknown_seen += usize::from(seen(*id));
            }
        }
    }
    figures.lost = lost(ledger, rules).len() + super::settling::unsettled(ledger, rules).len();
    figures.crossed = super::context::check(ledger).len();
    for ((group, _), indices) in &ledger.of_message {
        if *group != rules.dead {
            let (deliveries, asked) = counts(ledger, indices);
            figures.duplicates += deliveries.saturating_sub(1 + asked);
            figures.most_deliveries = figures.most_deliveries.max(deliveries);
        }
    }
    figures
}
