//! Advice for contexts that are not valid.

use traced_broker::Dialect;

use super::tally::Tally;
use crate::context::{OrderedDialect, State};

/// Returns a line for each kind of defect that was found.
pub(super) fn lines(tally: &Tally) -> Vec<String> {
    let mut lines: Vec<String> =
        tally.all.states.keys().filter_map(|state| Some(format!("  → {}", advice(*state)?))).collect();
    lines.dedup();
    lines
}

fn advice(state: State) -> Option<String> {
    Some(match state {
        State::Valid => return None,
        State::Missing => "missing: the producer injects no context; start with the producers at the top".to_owned(),
        State::Malformed(_) => "malformed: each consumer begins a new trace".to_owned(),
        State::Duplicated { .. } => "duplicated: a component adds the header instead of replacing it".to_owned(),
        State::Dialect(OrderedDialect(Dialect::NatsServer)) => {
            "nats-server: renamed by the server; only this library reads it".to_owned()
        }
        State::Dialect(OrderedDialect(dialect)) => {
            format!("{dialect}: read by this library with .dialects([Dialect::{dialect:?}]), not by other consumers")
        }
        State::Foreign(system) => {
            format!("{system}: not read by this library; configure its producers to write traceparent, too")
        }
    })
}
