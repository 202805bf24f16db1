//! The traces of the servers: fixtures, and variants of them.

use serde_json::{Value, json};

pub(crate) const ID: &str = "5b8efff798038103d269b633813fc60c";
pub(crate) const OTHER: &str = "9f86d081884c7d659a2feaa0c55ad015";
pub(crate) const TEMPO_V1: &str = include_str!("../fixtures/tempo-api-v1.json");
pub(crate) const TEMPO_V2: &str = include_str!("../fixtures/tempo-api-v2.json");
pub(crate) const JAEGER_V3: &str = include_str!("../fixtures/jaeger-api-v3.json");
pub(crate) const JAEGER_CLASSIC: &str = include_str!("../fixtures/jaeger-api-traces.json");

/// The path of the newer interface of Tempo.
pub(crate) const TEMPO: &str = "/api/v2/traces/";
/// The path of the newer interface of Jaeger.
pub(crate) const JAEGER: &str = "/api/v3/traces/";

/// The start of the Jaeger fixture in nanoseconds.
const EPOCH: u64 = 1_795_368_295_786_624_000;

/// Returns Jaeger's response with the first `count` of: `POST /orders`, `send orders`,
/// `process orders`.
pub(crate) fn first(count: usize) -> String {
    let mut answer: Value = serde_json::from_str(JAEGER_V3).unwrap();
    let resources = answer["result"]["resourceSpans"].as_array_mut().unwrap();
    resources.truncate(count.div_ceil(2));
    if count == 1 {
        resources[0]["scopeSpans"][0]["spans"].as_array_mut().unwrap().truncate(1);
    }
    answer.to_string()
}

/// Returns the whole trace with a changed process span.
pub(crate) fn with_process(change: impl FnOnce(&mut Value)) -> String {
    let mut answer: Value = serde_json::from_str(JAEGER_V3).unwrap();
    change(&mut answer["result"]["resourceSpans"][1]["scopeSpans"][0]["spans"][0]);
    answer.to_string()
}

/// Returns a separate trace with one span `run job`, which lasts one microsecond.
pub(crate) fn alone(trace: &str, service: &str, links: &Value) -> String {
    let span = json!({
        "traceId": trace, "spanId": "00f067aa0ba902c1", "name": "run job", "kind": 1, "links": links,
        "startTimeUnixNano": EPOCH.to_string(), "endTimeUnixNano": (EPOCH + 1_000).to_string(),
    });
    answer(service, &json!([span]))
}

/// Returns a trace of `count` spans, a root and its children, in Jaeger's newer format.
pub(crate) fn many(count: u64) -> String {
    let span = |index: u64| {
        let parent = if index == 0 { String::new() } else { format!("{:016x}", 1) };
        json!({
            "traceId": ID, "spanId": format!("{:016x}", index + 1), "parentSpanId": parent,
            "name": format!("step {index}"), "kind": 1,
            "startTimeUnixNano": (EPOCH + index).to_string(), "endTimeUnixNano": (EPOCH + index + 1_000).to_string(),
            "attributes": [{ "key": "code.function.name", "value": { "stringValue": "shop::orders::step" } }],
        })
    };
    answer("worker", &(0..count).map(span).collect())
}

fn answer(service: &str, spans: &Value) -> String {
    let attributes = json!([{ "key": "service.name", "value": { "stringValue": service } }]);
    let resource = json!({ "resource": { "attributes": attributes }, "scopeSpans": [{ "spans": spans }] });
    json!({ "result": { "resourceSpans": [resource] } }).to_string()
}
