//! What was seen, counted.

use std::collections::BTreeMap;
use std::time::Duration;

use traced_broker::Received;

use super::producer;
use crate::context::{Carried, State};

/// How many producers are told apart; those that come later count together.
const MOST_PRODUCERS: usize = 200;
/// How many examples there are of each kind.
const MOST_EXAMPLES: usize = 2;

/// What is shown for those that cannot be told apart.
pub(super) const OTHERS: &str = "(others)";
/// What is shown for those that do not say.
pub(super) const UNNAMED: &str = "(does not say)";

/// The messages that were looked at.
#[derive(Debug, Default)]
pub(super) struct Tally {
    messages: u64,
    sampled: u64,
    pub(super) time: Duration,
    pub(super) states: BTreeMap<State, u64>,
    pub(super) remarks: BTreeMap<&'static str, u64>,
    pub(super) producers: BTreeMap<String, Producer>,
    pub(super) examples: Vec<(State, Received)>,
}

/// The messages of one producer.
#[derive(Debug, Default)]
pub(super) struct Producer {
    pub(super) messages: u64,
    pub(super) states: BTreeMap<State, u64>,
}

impl Producer {
    pub(super) fn valid_percent(&self) -> f64 {
        share(self.states.get(&State::Valid).copied().unwrap_or_default(), self.messages)
    }
}

impl Tally {
    pub(super) fn add(&mut self, message: &Received) {
        let carried = Carried::read(message.headers(), message.payload());
        self.messages += 1;
        self.sampled += u64::from(carried.span().is_some_and(|span| span.is_sampled()));
        *self.states.entry(carried.state).or_default() += 1;
        for remark in &carried.remarks {
            *self.remarks.entry(remark).or_default() += 1;
        }
        let name = producer::of(message, &carried).unwrap_or_else(|| UNNAMED.to_owned());
        let is_known = self.producers.contains_key(&name) || self.producers.len() < MOST_PRODUCERS;
        let name = if is_known { name } else { OTHERS.to_owned() };
        let producer = self.producers.entry(name).or_default();
        producer.messages += 1;
        *producer.states.entry(carried.state).or_default() += 1;
        let known = self.examples.iter().filter(|(state, _)| *state == carried.state).count();
        if carried.state != State::Valid && known < MOST_EXAMPLES {
            self.examples.push((carried.state, message.clone()));
            self.examples.sort_by_key(|(state, _)| *state);
        }
    }

    pub(super) fn took(&mut self, time: Duration) {
        self.time = time;
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    pub(super) fn valid_percent(&self) -> f64 {
        share(self.states.get(&State::Valid).copied().unwrap_or_default(), self.messages)
    }

    /// The share of sampled contexts among those that could be read.
    pub(super) fn sampled_percent(&self) -> Option<f64> {
        let readable = self.states.iter().filter(|(state, _)| matches!(state, State::Valid | State::Dialect(_)));
        let readable: u64 = readable.map(|(_, count)| count).sum();
        (readable > 0).then(|| share(self.sampled, readable))
    }

    /// The producers, those with the most contexts that are not valid first.
    pub(super) fn worst_first(&self) -> Vec<(&str, &Producer)> {
        let mut producers: Vec<_> = self.producers.iter().map(|(name, producer)| (name.as_str(), producer)).collect();
        let bad =
            |producer: &Producer| producer.messages - producer.states.get(&State::Valid).copied().unwrap_or_default();
        producers.sort_by_key(|(_, producer)| std::cmp::Reverse((bad(producer), producer.messages)));
        producers
    }
}

/// In percent.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}
