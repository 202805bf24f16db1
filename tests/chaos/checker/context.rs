//! Contexts that belong to another message.

use super::ledger::Ledger;
use super::{Finding, Invariant};
use crate::recipe::Flaw;

pub(super) fn check(ledger: &Ledger<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for delivery in &ledger.deliveries {
        for flaw in delivery.what.flaws.iter().chain(delivery.flaws_after) {
            if let Flaw::Context(found) = flaw {
                let text = format!("{} got a message with the context {found}", delivery.what.group);
                findings.push(Finding::new(Invariant::I7, delivery.what.id, text));
            }
        }
    }
    findings
}
