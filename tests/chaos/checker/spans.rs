//! Process spans: one for each attempt, each ended.

use super::ledger::Ledger;
use super::{Finding, Invariant};
use crate::history::Event;

pub(super) fn check(ledger: &Ledger<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in &ledger.repeated {
        findings.push(Finding::new(Invariant::I8, None, format!("two attempts share the span {name}")));
    }
    for name in &ledger.orphans {
        findings.push(Finding::new(Invariant::I8, None, format!("the delivery {name} has an end and no beginning")));
    }
    let mut with_spans = Vec::new();
    for record in &ledger.rest {
        if let Event::Spans { member, started, ended } = &record.event {
            with_spans.push(member);
            if started != ended {
                let text = format!("{member} started {started} spans and ended {ended}");
                findings.push(Finding::new(Invariant::I8, None, text));
            }
        }
    }
    let in_runtime = |delivery: &&super::ledger::Delivery<'_>| is_span(&delivery.what.delivery);
    for delivery in ledger.deliveries.iter().filter(in_runtime) {
        let member = &delivery.what.member;
        if delivery.spans_ended != 1 && with_spans.contains(&member) && !ledger.has_died(member) {
            let text = format!("the span {} ended {} times", delivery.what.delivery, delivery.spans_ended);
            findings.push(Finding::new(Invariant::I8, delivery.what.id, text));
        }
    }
    findings
}

/// Returns `true` if a delivery is named after its span.
fn is_span(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
