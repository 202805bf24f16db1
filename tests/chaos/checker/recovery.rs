//! Progress after a fault.

use std::time::Duration;

use super::ledger::{Answer, Ledger};
use super::{Finding, Invariant, Rules};
use crate::history::Event;

/// Time without a new message, in microseconds, after which a group counts as silent. A group of
/// dead letters has few messages, and waits a second or two for each on a busy machine.
const SILENCE: u64 = 5_000_000;

/// The end of a fault.
#[derive(Debug)]
pub(super) struct Healing {
    /// Time after which every group got one new message after the other, until one that was
    /// published after the healing; `None` if that was not seen before the next fault or the end of
    /// the traffic. Working off what a long fault left behind is progress.
    pub(super) took: Option<Duration>,
    /// Time from the healing to the next fault or the end of the traffic.
    watched: Duration,
}

pub(super) fn measure(ledger: &Ledger<'_>, rules: &Rules) -> Vec<Healing> {
    let healed: Vec<u64> = times(ledger, |event| matches!(event, Event::Healed));
    let ends =
        times(ledger, |event| matches!(event, Event::Fault { .. } | Event::Deleted { .. } | Event::TrafficEnded));
    let last = ledger.deliveries.last().map_or(0, |delivery| delivery.at);
    let healings = healed.iter().map(|at| {
        let until = ends.iter().copied().find(|end| end > at).unwrap_or(last);
        let took = rules.groups.iter().map(|group| resumed(ledger, group, *at));
        // All of the groups, or none.
        let took = took.collect::<Option<Vec<u64>>>().and_then(|times| times.into_iter().max());
        let took = took.map(|time| Duration::from_micros(time - at));
        let watched = Duration::from_micros(until.saturating_sub(*at));
        // Later than the traffic, it is part of the drain: still progress.
        let next_fault = ends.iter().copied().find(|end| end > at && *end != traffic_end(ledger));
        let limit = next_fault.map(|fault| Duration::from_micros(fault - at));
        Healing { took: took.filter(|took| limit.is_none_or(|limit| *took <= limit)), watched }
    });
    healings.collect()
}

pub(super) fn check(ledger: &Ledger<'_>, rules: &Rules) -> Vec<Finding> {
    let limit = rules.recovery;
    let late = |healing: &Healing| match healing.took {
        Some(took) => took > limit,
        None => healing.watched > limit,
    };
    let text = |healing: &Healing| match healing.took {
        Some(took) => format!("progress took {took:.1?} after a fault, the limit is {limit:.1?}"),
        None => format!("no progress within {:.1?} after a fault", healing.watched),
    };
    let measured = measure(ledger, rules);
    measured
        .iter()
        .filter(|healing| late(healing))
        .map(|healing| Finding::new(Invariant::I10, None, text(healing)))
        .collect()
}

/// Returns the end of the last silence of a group before it first got a message that was published
/// after this time; `None` if it got none.
fn resumed(ledger: &Ledger<'_>, group: &str, after: u64) -> Option<u64> {
    let mut last = after;
    let mut resumed = None;
    for (index, delivery) in ledger.deliveries.iter().enumerate() {
        let Some(id) = delivery.what.id.filter(|_| delivery.what.group == group && delivery.at > after) else {
            continue;
        };
        // A message that only comes again shows no progress.
        if ledger.of_message.get(&(group, id)).and_then(|all| all.first()) != Some(&index) {
            continue;
        }
        if resumed.is_none() || delivery.at - last > SILENCE {
            resumed = Some(delivery.at);
        }
        last = delivery.at;
        let publish = ledger.publishes.get(&id);
        if publish.is_some_and(|publish| publish.at > after && publish.answer == Some(Answer::Confirmed)) {
            return resumed;
        }
    }
    None
}

fn times(ledger: &Ledger<'_>, wanted: impl Fn(&Event) -> bool) -> Vec<u64> {
    ledger.rest.iter().filter(|record| wanted(&record.event)).map(|record| record.at).collect()
}

fn traffic_end(ledger: &Ledger<'_>) -> u64 {
    times(ledger, |event| matches!(event, Event::TrafficEnded)).pop().unwrap_or(u64::MAX)
}
