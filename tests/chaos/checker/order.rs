//! Order by key.

use std::collections::HashMap;

use super::ledger::{Answer, Ledger};
use super::{Finding, Invariant, Rules};
use crate::recipe::Id;

/// Finds confirmed messages that came for the first time after a later one of their producer and
/// key.
///
/// The order of a message of unknown outcome is not promised: it may have been stored late, from a
/// connection that was given up. Where a broker promises no order of messages that it had handed
/// out before, one that says so of itself is excused; it excuses no other.
pub(super) fn check(ledger: &Ledger<'_>, rules: &Rules) -> Vec<Finding> {
    let Some(group) = &rules.ordered else { return Vec::new() };
    let from = super::delivery::judged_from(ledger, rules);
    let mut latest: HashMap<(u32, &str), Id> = HashMap::new();
    let mut findings = Vec::new();
    for (index, delivery) in ledger.deliveries.iter().enumerate() {
        let Some(id) = delivery.what.id.filter(|_| delivery.what.group == *group) else { continue };
        let is_first = ledger.of_message[&(&**group, id)][0] == index;
        let Some(publish) = ledger.publishes.get(&id).filter(|_| is_first) else { continue };
        if publish.answer != Some(Answer::Confirmed) || publish.at < from {
            continue;
        }
        let before = latest.entry((id.0, publish.key)).or_insert(id);
        let was_delivered = delivery.what.deliveries.is_some_and(|deliveries| deliveries > 1);
        if *before > id {
            if rules.redelivered_may_be_late && was_delivered {
                continue;
            }
            let text = format!("{id} of {} came to {group} after {before}", publish.key);
            findings.push(Finding::new(Invariant::I6, id, text));
        } else {
            *before = id;
        }
    }
    findings
}
