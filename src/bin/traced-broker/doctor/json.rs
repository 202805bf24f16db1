//! The result for programs.

use serde_json::{Map, Value, json};
use traced_broker::Received;

use super::tally::{Producer, Tally};
use crate::context::State;
use crate::message;

pub(super) fn tally(tally: &Tally, place: &str, least: Option<f64>, payloads: bool) -> Value {
    let producers = tally.worst_first().into_iter().map(|(name, producer)| self::producer(name, producer));
    let examples = tally.examples.iter().map(|(state, message)| example(*state, message, payloads));
    json!({
        "place": place,
        "messages": tally.messages(),
        "seconds": tally.time.as_secs_f64(),
        "valid_percent": tally.valid_percent(),
        "min_valid_percent": least,
        "sampled_percent": tally.sampled_percent(),
        "contexts": tally.states.iter().map(|(state, count)| counted(*state, *count)).collect::<Vec<_>>(),
        "remarks": tally.remarks.iter().map(|(remark, count)| ((*remark).to_owned(), json!(count))).collect::<Map<_, _>>(),
        "producers": producers.collect::<Vec<_>>(),
        "examples": examples.collect::<Vec<_>>(),
    })
}

fn counted(state: State, count: u64) -> Value {
    json!({ "state": state.kind(), "detail": state.detail(), "messages": count })
}

fn producer(name: &str, producer: &Producer) -> Value {
    json!({
        "producer": name,
        "messages": producer.messages,
        "valid_percent": producer.valid_percent(),
        "contexts": producer.states.iter().map(|(state, count)| counted(*state, *count)).collect::<Vec<_>>(),
    })
}

fn example(state: State, message: &Received, payloads: bool) -> Value {
    let mut object = json!({
        "state": state.kind(),
        "detail": state.detail(),
        "partition": message.partition(),
        "offset": message.offset(),
        "id": message.id(),
        "headers": message::header_map(message.headers()),
    });
    if payloads {
        object["payload"] = message::payload_value(message);
    }
    object
}
