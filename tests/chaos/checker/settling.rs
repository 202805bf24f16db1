//! Settlements: what is unsettled comes again, and what is settled does not.

use super::delivery::judged_from;
use super::ledger::Ledger;
use super::{Finding, Invariant, Rules};
use crate::history::{Event, Verdict};
use crate::recipe::Id;

pub(super) fn check(ledger: &Ledger<'_>, rules: &Rules) -> Vec<Finding> {
    let mut findings = unsettled(ledger, rules);
    if rules.settles_for_good {
        findings.extend(came_again(ledger, rules));
    }
    findings.extend(left_over(ledger));
    findings
}

/// Returns the messages that had to come again, and did not.
pub(super) fn unsettled(ledger: &Ledger<'_>, rules: &Rules) -> Vec<Finding> {
    let from = judged_from(ledger, rules);
    let mut findings = Vec::new();
    for ((group, id), indices) in &ledger.of_message {
        let Some(last) = indices.last().map(|index| &ledger.deliveries[*index]) else { continue };
        if !last.must_come_again() || ledger.publishes.get(id).is_some_and(|publish| publish.at < from) {
            continue;
        }
        // A message that ends its processes becomes a dead letter without being rejected.
        let is_buried = ledger.deliveries_of(&rules.dead, *id).any(|letter| letter.at > last.at);
        if *group == rules.dead || !is_buried {
            let asked = last.asked.map_or("nothing".to_owned(), |verdict| format!("{verdict:?}"));
            let text = format!("{id} did not come again to {group}, which had asked for {asked}");
            findings.push(Finding::new(Invariant::I4, *id, text));
        }
    }
    findings.sort_by_key(|finding| finding.id);
    findings
}

fn came_again(ledger: &Ledger<'_>, rules: &Rules) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ((group, id), indices) in &ledger.of_message {
        // Each group that rejected the message has its own dead letter.
        let copies = if *group == rules.dead { rejections(ledger, rules, *id).max(1) } else { 1 };
        let mut done = Vec::new();
        for delivery in indices.iter().map(|index| &ledger.deliveries[*index]) {
            if done.get(copies - 1).is_some_and(|done| delivery.at > *done) {
                let text = format!("{id} came again to {group} after its settlement was confirmed");
                findings.push(Finding::new(Invariant::I5, *id, text));
            }
            done.extend(delivery.done_at());
        }
    }
    findings.sort_by_key(|finding| finding.id);
    findings
}

/// Returns the number of groups that rejected a message.
fn rejections(ledger: &Ledger<'_>, rules: &Rules, id: Id) -> usize {
    let has_rejected =
        |group: &&String| ledger.deliveries_of(group, id).any(|delivery| delivery.asked == Some(Verdict::Reject));
    rules.groups.iter().filter(has_rejected).count()
}

fn left_over(ledger: &Ledger<'_>) -> Vec<Finding> {
    let text = |event: &Event| match event {
        Event::Closed { member, error: Some(error) } => {
            Some((Invariant::I13, format!("{member} did not close: {error}")))
        }
        Event::Pending { group, count: count @ 1.. } => {
            Some((Invariant::I13, format!("{count} messages of {group} are unsettled after closing")))
        }
        Event::Stuck { what } => Some((Invariant::I11, what.clone())),
        _ => None,
    };
    let found = ledger.rest.iter().filter_map(|record| text(&record.event));
    found.map(|(invariant, text)| Finding::new(invariant, None, text)).collect()
}
