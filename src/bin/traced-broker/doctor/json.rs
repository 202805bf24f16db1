//! The result as JSON.

use serde_json::{Map, Value, json};
use traced_broker::Received;

use super::tally::{Counts, Tally};
use crate::context::State;
use crate::message;

pub(super) fn tally(tally: &Tally, title: &str, least: Option<f64>, payloads: bool) -> Value {
    let producers = tally.worst_first().into_iter().map(|(name, producer)| self::producer(name, producer));
    let examples = tally.examples.iter().map(|(state, message)| example(*state, message, payloads));
    json!({
        "place": title,
        "messages": tally.all.messages,
        "seconds": tally.time.as_secs_f64(),
        "valid_percent": tally.all.valid_percent(),
        "min_valid_percent": least,
        "sampled_percent": tally.sampled_percent(),
        "contexts": contexts(&tally.all),
        "remarks": tally.remarks.iter().map(|(remark, count)| ((*remark).to_owned(), json!(count))).collect::<Map<_, _>>(),
        "producers": producers.collect::<Vec<_>>(),
        "examples": examples.collect::<Vec<_>>(),
    })
}

fn contexts(counts: &Counts) -> Value {
    let all = counts.states.iter();
    all.map(|(state, count)| json!({ "state": state.kind(), "detail": state.detail(), "messages": count })).collect()
}

fn producer(name: &str, producer: &Counts) -> Value {
    json!({
        "producer": name,
        "messages": producer.messages,
        "valid_percent": producer.valid_percent(),
        "contexts": contexts(producer),
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
