//! The breaks that are known, and the verdict on a run.
//!
//! A run fails if it breaks in another way. It also fails if a known break does not show: whoever
//! mends it removes it here.

use crate::checker::{Finding, Invariant};
use crate::scenario::{Broker, Scenario};

/// A break that shows today.
#[derive(Debug, PartialEq)]
pub(crate) struct Known {
    pub(crate) scenario: Scenario,
    pub(crate) broker: Broker,
    pub(crate) invariant: Invariant,
    /// The number of the finding.
    pub(crate) finding: &'static str,
    /// `true` if it shows in some runs only.
    pub(crate) is_rare: bool,
    pub(crate) why: &'static str,
}

/// All of them.
pub(crate) const KNOWN: &[Known] = &[Known {
    scenario: Scenario::Cuts,
    broker: Broker::Nats,
    invariant: Invariant::I6,
    finding: "B3",
    is_rare: true,
    why: "in hundreds of cuts within a minute on a starved machine, messages on the wire may come late",
}];

/// The findings of a run, held against the known breaks.
#[derive(Debug, Default)]
pub(crate) struct Judgement<'a> {
    pub(crate) unexpected: Vec<Finding>,
    /// Known breaks with the number of their findings.
    pub(crate) known: Vec<(&'a Known, usize)>,
    /// Known breaks that did not show.
    pub(crate) missing: Vec<&'a Known>,
}

impl Judgement<'_> {
    /// Returns `true` if the run went as it goes today.
    pub(crate) fn is_as_expected(&self) -> bool {
        self.unexpected.is_empty() && self.missing.is_empty()
    }
}

/// Holds the findings of a run against a list of known breaks.
pub(crate) fn judge(known: &[Known], scenario: Scenario, broker: Broker, findings: Vec<Finding>) -> Judgement<'_> {
    let here: Vec<&Known> = known.iter().filter(|known| known.scenario == scenario && known.broker == broker).collect();
    let mut judgement = Judgement::default();
    for known in &here {
        match findings.iter().filter(|finding| finding.invariant == known.invariant).count() {
            0 if known.is_rare => {}
            0 => judgement.missing.push(known),
            count => judgement.known.push((known, count)),
        }
    }
    let is_known = |finding: &Finding| here.iter().any(|known| known.invariant == finding.invariant);
    judgement.unexpected = findings.into_iter().filter(|finding| !is_known(finding)).collect();
    judgement
}
