//! The counts of the inspected messages.

use std::collections::BTreeMap;
use std::time::Duration;

use traced_broker::Received;

use super::producer;
use crate::context::{CarriedContext, State};

/// Maximum number of producers that are counted separately; later ones are counted together.
const MAX_PRODUCERS: usize = 200;
/// Maximum number of examples of each state.
const MAX_EXAMPLES: usize = 2;

/// The name for all producers above the limit.
pub(super) const OTHERS: &str = "(others)";
/// The name for producers without a name.
pub(super) const UNNAMED: &str = "(does not say)";

/// The inspected messages.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sampled: u64,
    pub(super) time: Duration,
    pub(super) all: Counts,
    pub(super) remarks: BTreeMap<&'static str, u64>,
    pub(super) producers: BTreeMap<String, Counts>,
    pub(super) examples: Vec<(State, Received)>,
}

/// The number of messages, in total and in each state.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) messages: u64,
    pub(super) states: BTreeMap<State, u64>,
}

impl Counts {
    fn add(&mut self, state: State) {
        self.messages += 1;
        *self.states.entry(state).or_default() += 1;
    }

    fn valid(&self) -> u64 {
        self.states.get(&State::Valid).copied().unwrap_or_default()
    }

    pub(super) fn valid_percent(&self) -> f64 {
        percent(self.valid(), self.messages)
    }
}

impl Tally {
    pub(super) fn add(&mut self, message: &Received) {
        let carried = CarriedContext::read(message.headers(), message.payload());
        self.all.add(carried.state);
        self.sampled += u64::from(carried.span().is_some_and(|span| span.is_sampled()));
        for remark in &carried.remarks {
            *self.remarks.entry(remark).or_default() += 1;
        }
        let name = producer::of(message, &carried).unwrap_or_else(|| UNNAMED.to_owned());
        let is_known = self.producers.contains_key(&name) || self.producers.len() < MAX_PRODUCERS;
        let name = if is_known { name } else { OTHERS.to_owned() };
        self.producers.entry(name).or_default().add(carried.state);
        let known = self.examples.iter().filter(|(state, _)| *state == carried.state).count();
        if carried.state != State::Valid && known < MAX_EXAMPLES {
            self.examples.push((carried.state, message.clone()));
            self.examples.sort_by_key(|(state, _)| *state);
        }
    }

    /// Returns the share of sampled contexts among the readable ones.
    pub(super) fn sampled_percent(&self) -> Option<f64> {
        let readable = self.all.states.iter().filter(|(state, _)| matches!(state, State::Valid | State::Dialect(_)));
        let readable: u64 = readable.map(|(_, count)| count).sum();
        (readable > 0).then(|| percent(self.sampled, readable))
    }

    /// Returns the producers, ordered by the number of contexts that are not valid, highest first.
    pub(super) fn worst_first(&self) -> Vec<(&str, &Counts)> {
        let mut producers: Vec<_> = self.producers.iter().map(|(name, producer)| (name.as_str(), producer)).collect();
        producers
            .sort_by_key(|(_, producer)| std::cmp::Reverse((producer.messages - producer.valid(), producer.messages)));
        producers
    }
}

/// Returns the share of `part` in `whole` in percent.
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}
