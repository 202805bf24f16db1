//! What can be done about a context that is not valid.

use traced_broker::Dialect;

use super::tally::Tally;
use crate::context::{Dialected, State};

/// One line for each kind of trouble that was seen.
pub(super) fn lines(tally: &Tally) -> Vec<String> {
    let mut lines: Vec<String> =
        tally.states.keys().filter_map(|state| Some(format!("  → {}", advice(*state)?))).collect();
    lines.dedup();
    lines
}

fn advice(state: State) -> Option<String> {
    Some(match state {
        State::Valid => return None,
        State::Missing => "missing: nobody injects a context there; begin with the producers at the top".to_owned(),
        State::Malformed(_) => "malformed: whoever receives it begins a new trace".to_owned(),
        State::Duplicated { .. } => "duplicated: something adds a header where it should replace it".to_owned(),
        State::Dialect(Dialected(Dialect::NatsServer)) => {
            "nats-server: renamed by the server; this library reads it, others do not".to_owned()
        }
        State::Dialect(Dialected(dialect)) => {
            format!("{dialect}: read by this library with .dialects([Dialect::{dialect:?}]), not by others")
        }
        State::Foreign(system) => format!("{system}: not read here; have its producers write traceparent too"),
    })
}
