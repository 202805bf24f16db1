//! The list of known breaks.

use crate::checker::{Finding, Invariant};
use crate::known::{KNOWN, Known, judge};
use crate::scenario::{Broker, Scenario};

const LIST: &[Known] = &[
    Known {
        scenario: Scenario::Cuts,
        broker: Broker::Nats,
        invariant: Invariant::I6,
        finding: "B3",
        is_rare: false,
        why: "shows always",
    },
    Known {
        scenario: Scenario::Cuts,
        broker: Broker::Nats,
        invariant: Invariant::I10,
        finding: "B0",
        is_rare: true,
        why: "shows now and then",
    },
];

fn found(invariant: Invariant) -> Finding {
    Finding { invariant, id: None, text: String::new() }
}

#[test]
fn a_known_break_is_expected() {
    let judgement = judge(LIST, Scenario::Cuts, Broker::Nats, vec![found(Invariant::I6), found(Invariant::I6)]);
    assert!(judgement.is_as_expected());
    assert_eq!(judgement.known, [(&LIST[0], 2)]);
    let rare = judge(LIST, Scenario::Cuts, Broker::Nats, vec![found(Invariant::I6), found(Invariant::I10)]);
    assert!(rare.is_as_expected());
}

#[test]
fn any_other_break_is_not() {
    let judgement = judge(LIST, Scenario::Cuts, Broker::Nats, vec![found(Invariant::I6), found(Invariant::I1)]);
    assert!(!judgement.is_as_expected());
    assert_eq!(judgement.unexpected, [found(Invariant::I1)]);
    // It is known elsewhere.
    for (scenario, broker) in [(Scenario::Kill, Broker::Nats), (Scenario::Cuts, Broker::Redis)] {
        assert!(!judge(LIST, scenario, broker, vec![found(Invariant::I6)]).is_as_expected());
    }
}

#[test]
fn a_known_break_that_does_not_show_fails_unless_it_is_rare() {
    let judgement = judge(LIST, Scenario::Cuts, Broker::Nats, Vec::new());
    assert!(!judgement.is_as_expected());
    assert_eq!(judgement.missing, [&LIST[0]]);
}

#[test]
fn every_known_break_can_happen() {
    for known in KNOWN {
        assert!(known.scenario.is_for(known.broker), "{known:?}");
        assert!(!known.finding.is_empty() && !known.why.is_empty());
    }
}
