//! The judgement on a scenario, from its record, the broker's topics and the exported spans.

use std::collections::{BTreeMap, BTreeSet};

use traced_broker::names::attribute;
use traced_broker::testing::simulation::World;
use traced_broker::verify::{Span, check};

use crate::ledger::{Event, Outcome};
use crate::orders::{Fate, Plan};
use crate::services::ARCHIVE;

/// The state of the broker and of the spans when all has stopped.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The order of each message of the topic `orders`, oldest first.
    pub(crate) stored: Vec<usize>,
    pub(crate) archived: Vec<usize>,
    pub(crate) buried: Vec<usize>,
    /// Number of process spans of the workers.
    pub(crate) processed: usize,
    /// Names of spans that never ended.
    pub(crate) open: Vec<String>,
    /// The findings of `verify`.
    pub(crate) broken: Vec<String>,
}

impl Seen {
    pub(crate) fn after(world: &World) -> Self {
        let orders = |topic: &str| -> Vec<usize> {
            let numbers = world.messages(topic).into_iter().map(|message| message.id?.parse().ok());
            numbers.map(|number| number.unwrap_or(usize::MAX)).collect()
        };
        let traces = world.capture().traces();
        let spans: Vec<&Span> = traces.iter().flat_map(|trace| trace.spans()).collect();
        let of_workers = |span: &&&Span| {
            let group = span.attributes.text(attribute::CONSUMER_GROUP_NAME);
            span.is_processing() && group == Some("workers")
        };
        Self {
            stored: orders("orders"),
            archived: orders(ARCHIVE),
            buried: orders("orders.dead"),
            processed: spans.iter().filter(of_workers).count(),
            open: spans.iter().filter(|span| span.end == 0).map(|span| span.name.to_string()).collect(),
            broken: check(&traces)
                .findings()
                .iter()
                .map(|finding| format!("{}: {}", finding.kind, finding.message))
                .collect(),
        }
    }
}

/// Returns everything that is wrong, each in a sentence.
pub(crate) fn judge(plan: &Plan, events: &[Event], seen: &Seen) -> Vec<String> {
    let mut findings: Vec<String> = events.iter().filter_map(found).collect();
    findings.extend(outcomes(events, seen));
    findings.extend(handled(plan, events, seen));
    findings.extend(settled_once(events));
    findings.extend(in_order(plan, events, seen));
    findings.extend(spans(events, seen));
    findings
}

fn found(event: &Event) -> Option<String> {
    if let Event::Found(what) = event { Some(what.clone()) } else { None }
}

fn published(events: &[Event]) -> impl Iterator<Item = (usize, Outcome)> {
    events.iter().filter_map(|event| match event {
        Event::Published { order, outcome } => Some((*order, *outcome)),
        _ => None,
    })
}

/// A confirmed order is stored, and one that was not sent is not.
fn outcomes(events: &[Event], seen: &Seen) -> Vec<String> {
    let times = |order: usize| seen.stored.iter().filter(|stored| **stored == order).count();
    let wrong = |(order, outcome)| match (outcome, times(order)) {
        (Outcome::Confirmed, 0) => Some(format!("order {order} was confirmed and is not stored")),
        (Outcome::NotSent, 1..) => Some(format!("order {order} was not sent and is stored")),
        _ => None,
    };
    published(events).filter_map(wrong).collect()
}

/// Every stored order is handled, archived, and buried only where it was rejected.
fn handled(plan: &Plan, events: &[Event], seen: &Seen) -> Vec<String> {
    let done: BTreeSet<usize> = events
        .iter()
        .filter_map(|event| match event {
            Event::Ended { group: "workers", order, is_ok: true, .. } => Some(*order),
            _ => None,
        })
        .collect();
    let mut findings = Vec::new();
    for order in seen.stored.iter().copied().collect::<BTreeSet<_>>() {
        if !done.contains(&order) {
            findings.push(format!("order {order} is stored and was never handled well"));
        }
        if !seen.archived.contains(&order) {
            findings.push(format!("order {order} is stored and the bridge has not copied it"));
        }
    }
    let may_be_buried = |order: usize| match plan.orders.get(order).map(|order| order.fate) {
        Some(Fate::Rejected) => true,
        // Attempts can be used up by publishes that fail for as long as the network does.
        Some(_) => !plan.endless,
        None => false,
    };
    let wrongly = seen.buried.iter().filter(|order| !may_be_buried(**order));
    findings.extend(wrongly.map(|order| format!("order {order} is a dead letter and was not rejected")));
    findings
}

/// An order whose acknowledgement was confirmed does not come again.
fn settled_once(events: &[Event]) -> Vec<String> {
    let mut settled = BTreeSet::new();
    let mut findings = Vec::new();
    for event in events {
        if let Event::Settled { group, order, offset } = event
            && !settled.insert((*group, *offset))
        {
            findings.push(format!("order {order} was settled twice in {group}"));
        }
    }
    findings
}

/// Orders are stored in the order of their publishes, copied in that order, and of one key begin in
/// that order.
fn in_order(plan: &Plan, events: &[Event], seen: &Seen) -> Vec<String> {
    let mut findings = Vec::new();
    let stored = firsts(seen.stored.iter().copied());
    if !stored.is_sorted() {
        findings.push(format!("orders are stored in the order {stored:?}"));
    }
    let copied = firsts(events.iter().filter_map(|event| match event {
        Event::Copied { order } => Some(*order),
        _ => None,
    }));
    if !copied.is_sorted() && !events.contains(&Event::NoArchive) {
        findings.push(format!("copies start in the order {copied:?}"));
    }
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    let mut begun = BTreeSet::new();
    for event in events {
        let Event::Began { order, offset, key, is_lost, attempt, .. } = event else { continue };
        if *is_lost {
            findings.push(format!("order {order} began at attempt {attempt} when its delivery was lost"));
        }
        if !begun.insert(*offset) {
            continue;
        }
        let before = last.insert(key, *offset);
        if plan.keeps_order() && before.is_some_and(|before| before > *offset) {
            findings.push(format!("order {order} began after a later one of its key"));
        }
    }
    findings
}

/// Returns the orders without repeats, in the order in which each was first seen.
fn firsts(orders: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    orders.filter(|order| seen.insert(*order)).collect()
}

/// Every attempt has one process span, every span ends, and all traces are whole.
fn spans(events: &[Event], seen: &Seen) -> Vec<String> {
    let begun = events.iter().filter(|event| matches!(event, Event::Began { .. })).count();
    let mut findings: Vec<String> = seen.open.iter().map(|name| format!("the span `{name}` never ends")).collect();
    if begun != seen.processed {
        findings.push(format!("{begun} attempts have {} process spans", seen.processed));
    }
    findings.extend(seen.broken.iter().cloned());
    findings
}
