//! Broken traces are recognized, and the place of the break is shown.

use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use crate::command::verify;
use crate::server::Server;
use crate::traces::{ID, JAEGER, JAEGER_V3, first, with_process};

const AFTER_SEND: &str = "✗ broken after `send orders` of order-api (span 00f067aa0ba902b2)";

async fn jaeger(text: String) -> Server {
    Server::at(JAEGER, text).await
}

/// The message was sent, but the trace has no span that processed it.
#[tokio::test]
async fn a_message_that_nobody_continued() {
    let server = jaeger(first(2)).await;
    let arguments = [
        "--trace-id",
        ID,
        "--jaeger",
        &server.url,
        "--expect",
        "process orders",
        "--expect",
        "service=notification-service",
    ];
    let outcome = verify(&arguments).await.ends_with(1);
    outcome.prints(&[
        AFTER_SEND,
        "missing: `process orders`",
        "missing: a span of notification-service",
        "wrote no context header",
        "dropped at the broker",
        "did not extract",
        "sampled away",
        "exporter dropped",
        "not arrived yet",
    ]);
    let outcome = verify(&[&arguments[..], &["--json"]].concat()).await.ends_with(1);
    let result: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(result["verdict"], "broken");
    assert_eq!(result["breaks"].as_array().unwrap().len(), 1);
    let at = &result["breaks"][0];
    assert_eq!(
        at["last_good"],
        json!({ "name": "send orders", "service": "order-api", "span_id": "00f067aa0ba902b2" })
    );
    let causes = ["no_header", "header_dropped", "not_extracted", "sampled_away", "exporter_dropped", "not_arrived"];
    assert_eq!(at["causes"], json!(causes));
}

#[tokio::test]
async fn a_report_for_the_build_server_has_the_failure() {
    let server = jaeger(first(2)).await;
    let junit = tempfile::NamedTempFile::new().unwrap();
    let file = junit.path().to_str().unwrap();
    let outcome =
        verify(&["--trace-id", ID, "--jaeger", &server.url, "--expect", "process <orders>", "--junit", file]).await;
    outcome.ends_with(1);
    let xml = std::fs::read_to_string(junit.path()).unwrap();
    assert!(xml.contains("failures=\"1\" errors=\"0\""), "{xml}");
    assert!(xml.contains("expected `process &lt;orders&gt;`, found 0"), "{xml}");
}

#[tokio::test]
async fn nothing_was_sent() {
    let server = jaeger(first(1)).await;
    let outcome = verify(&["--trace-id", ID, "--jaeger", &server.url, "--expect", "process orders"]).await.ends_with(1);
    outcome.prints(&["✗ broken after `POST /orders` of order-api", "the service did not send it"]);
}

/// The expected message is missing because the message before it was not processed.
#[tokio::test]
async fn the_hop_before_the_one_that_is_expected() {
    let server = jaeger(first(2)).await;
    let asked = ["--trace-id", ID, "--jaeger", &server.url, "--expect", "process notifications"];
    let outcome = verify(&asked).await.ends_with(1);
    outcome.prints(&[AFTER_SEND, "missing: `process notifications`", "did not extract the context"]);
}

/// An unread message is not the break if the trace continued after it.
#[tokio::test]
async fn the_last_hop_was_not_reached() {
    let mut answer: Value = serde_json::from_str(JAEGER_V3).unwrap();
    let spans = answer["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array_mut().unwrap();
    let mut audit = spans[1].clone();
    (audit["spanId"], audit["name"]) = (json!("00f067aa0ba902b9"), json!("send audit"));
    for attribute in audit["attributes"].as_array_mut().unwrap() {
        if attribute["key"] == "messaging.destination.name" {
            attribute["value"] = json!({ "stringValue": "audit" });
        }
    }
    spans.push(audit);
    let server = jaeger(answer.to_string()).await;
    let asked = ["--trace-id", ID, "--jaeger", &server.url, "--expect", "process notifications"];
    let outcome = verify(&asked).await.ends_with(1);
    outcome.prints(&["✗ broken after `process orders`", "the service did not send it"]);
}

#[tokio::test]
async fn the_send_failed() {
    let mut answer: Value = serde_json::from_str(&first(2)).unwrap();
    answer["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["status"] = json!({ "code": 2 });
    let server = jaeger(answer.to_string()).await;
    let outcome = verify(&["--trace-id", ID, "--jaeger", &server.url, "--expect", "process orders"]).await.ends_with(1);
    outcome.prints(&[AFTER_SEND, "likely:  the send failed"]).never_shows("did not extract");
}

#[tokio::test]
async fn too_few_of_a_kind() {
    let server = jaeger(JAEGER_V3.to_owned()).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{"expect":[{"span":"process orders","kind":"consumer","count":2}]}"#).unwrap();
    let file = file.path().to_str().unwrap();
    let outcome = verify(&["--trace-id", ID, "--jaeger", &server.url, "--expectations", file]).await.ends_with(1);
    outcome.prints(&["missing: `process orders` (consumer), 2 times: found 1"]);
}

/// The process span is in the trace, but its parent is not.
#[tokio::test]
async fn a_context_of_no_span() {
    let changed = with_process(|span| {
        span["parentSpanId"] = json!("00000000000000aa");
        span["links"] = json!([]);
    });
    let server = jaeger(changed).await;
    let outcome = verify(&["--trace-id", ID, "--jaeger", &server.url]).await.ends_with(1);
    outcome.prints(&["parent not exported", AFTER_SEND, "context of a span that it never exported"]);
}

/// The spans of the handler are in the trace, but the process span is not; so the context did
/// arrive.
#[tokio::test]
async fn a_process_span_that_was_lost() {
    let changed = with_process(|span| {
        (span["name"], span["kind"]) = (json!("reserve stock"), json!(1));
        span["parentSpanId"] = json!("00000000000000aa");
        span["links"] = json!([]);
    });
    // The sender continued with other work, which is not the break.
    let mut answer: Value = serde_json::from_str(&changed).unwrap();
    let spans = answer["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array_mut().unwrap();
    let mut later = spans[0].clone();
    (later["spanId"], later["parentSpanId"]) = (json!("00f067aa0ba902b9"), spans[0]["spanId"].clone());
    (later["name"], later["startTimeUnixNano"]) = (json!("enqueue job"), json!("1795368295794624718"));
    spans.push(later);
    let server = jaeger(answer.to_string()).await;
    let outcome = verify(&["--trace-id", ID, "--jaeger", &server.url, "--expect", "process orders"]).await.ends_with(1);
    let outcome =
        outcome.prints(&[AFTER_SEND, "the parent of `reserve stock`", "missing: `process orders`", "sampled away"]);
    assert_eq!(outcome.out.matches("✗ broken after").count(), 1, "{outcome:#?}");
    outcome.never_shows("did not extract");
}

#[tokio::test]
async fn a_message_without_a_context() {
    let changed = with_process(|span| {
        span["parentSpanId"] = json!("");
        span["links"] = json!([]);
    });
    let server = jaeger(changed).await;
    let outcome = verify(&["--trace-id", ID, "--jaeger", &server.url]).await.ends_with(1);
    outcome.prints(&["no context in the message", AFTER_SEND, "wrote no context header", "did not extract"]);
}

/// A finding without a break is reported, too.
#[tokio::test]
async fn a_process_span_without_length() {
    let changed = with_process(|span| span["endTimeUnixNano"] = span["startTimeUnixNano"].clone());
    let server = jaeger(changed).await;
    let outcome = verify(&["--trace-id", ID, "--jaeger", &server.url]).await.ends_with(1);
    outcome.prints(&["process span without length", "✗ broken: see the findings above"]).never_shows("✓ whole");
}

#[tokio::test]
async fn a_message_that_waited_too_long() {
    let server = jaeger(JAEGER_V3.to_owned()).await;
    let arguments = |most| ["--trace-id", ID, "--jaeger", &server.url, "--max-queue-latency", most].map(str::to_owned);
    for (most, code) in [("832ms", 1), ("833ms", 0)] {
        let arguments = arguments(most);
        let arguments: Vec<&str> = arguments.iter().map(|text| &**text).collect();
        let outcome = verify(&arguments).await.ends_with(code);
        assert_eq!(
            outcome.out.contains("✗ too slow: the message of `process orders` of fulfillment-worker waited 833 ms"),
            code == 1
        );
        assert_eq!(outcome.out.contains("✓ whole"), code == 0);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{"max_queue_latency":"0.5s"}"#).unwrap();
    let file = file.path().to_str().unwrap();
    verify(&["--trace-id", ID, "--jaeger", &server.url, "--expectations", file])
        .await
        .ends_with(1)
        .prints(&["more than 500 ms"]);
}

/// The sampling decision in the response determines the cause.
#[tokio::test]
async fn a_trace_that_was_not_sampled() {
    let value = format!("00-{ID}-00f067aa0ba902b1-00");
    let shop = Server::start(move |_| ([("traceresponse", value.clone())], "").into_response()).await;
    let server = jaeger(first(2)).await;
    let request = format!("GET {}", shop.url);
    let outcome =
        verify(&["--request", &request, "--jaeger", &server.url, "--expect", "process orders"]).await.ends_with(1);
    outcome.prints(&[AFTER_SEND, "likely:  the span was sampled away"]).never_shows("did not extract");
}

/// Names are untrusted and must not control the terminal.
#[tokio::test]
async fn names_do_not_reach_the_terminal_as_they_are() {
    let evil = "send orders\u{1b}]0;owned\u{7}\n\u{202e}";
    let mut answer: Value = serde_json::from_str(&first(2)).unwrap();
    answer["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["name"] = json!(evil);
    let server = jaeger(answer.to_string()).await;
    let outcome = verify(&["--trace-id", ID, "--jaeger", &server.url, "--expect", "process orders"]).await.ends_with(1);
    outcome.prints(&["send orders�]0;owned"]).never_shows("\u{1b}").never_shows("\u{7}").never_shows("\u{202e}");
}

/// An unsent message is a consequence of the break before it.
#[tokio::test]
async fn what_comes_after_a_break_is_told_with_it() {
    let server = jaeger(first(2)).await;
    for expected in [["process notifications", "process orders"], ["process orders", "process notifications"]] {
        let arguments =
            ["--trace-id", ID, "--jaeger", &server.url, "--json", "--expect", expected[0], "--expect", expected[1]];
        let outcome = verify(&arguments).await.ends_with(1);
        let result: Value = serde_json::from_str(&outcome.out).unwrap();
        let breaks = result["breaks"].as_array().unwrap();
        assert_eq!(breaks.len(), 1, "{result:#}");
        assert_eq!(breaks[0]["last_good"]["name"], "send orders");
        assert_eq!(breaks[0]["missing"], json!(["`process orders`", "`process notifications`"]));
        assert_eq!(breaks[0]["causes"][0], "no_header");
    }
}

/// The worker's spans were lost; the spans of the next service show that the context did arrive.
#[tokio::test]
async fn a_service_whose_spans_were_lost_did_get_the_context() {
    let mut answer: Value = serde_json::from_str(JAEGER_V3).unwrap();
    let resource = &mut answer["result"]["resourceSpans"][1];
    resource["resource"]["attributes"] =
        json!([{ "key": "service.name", "value": { "stringValue": "notification-service" } }]);
    let process = &mut resource["scopeSpans"][0]["spans"][0];
    process["name"] = json!("process notifications");
    process["parentSpanId"] = json!("00f067aa0ba902ff");
    process["links"] = json!([]);
    for attribute in process["attributes"].as_array_mut().unwrap() {
        if attribute["key"] == "messaging.destination.name" {
            attribute["value"] = json!({ "stringValue": "notifications" });
        }
    }
    let server = jaeger(answer.to_string()).await;
    let outcome = verify(&["--trace-id", ID, "--jaeger", &server.url, "--json", "--expect", "process orders"]).await;
    let result: Value = serde_json::from_str(&outcome.ends_with(1).out).unwrap();
    let breaks = result["breaks"].as_array().unwrap();
    assert_eq!(breaks.len(), 1, "{result:#}");
    assert_eq!(breaks[0]["last_good"]["name"], "send orders");
    assert_eq!(breaks[0]["causes"], json!(["sampled_away", "exporter_dropped", "not_arrived"]));
}

/// Returns the break for an unprocessed message if Jaeger finds `found` in a search for
/// `process orders`.
async fn searched(found: Value) -> Value {
    let server = Server::start(move |came| match came.path.as_str() {
        path if path.starts_with(JAEGER) => crate::server::json(first(2)),
        "/api/services" => crate::server::json(r#"{"data":["order-api","fulfillment-worker"]}"#),
        "/api/traces" => crate::server::json(found.to_string()),
        _ => crate::server::nothing(),
    });
    let server = server.await;
    let outcome = verify(&["--trace-id", ID, "--jaeger", &server.url, "--json", "--expect", "process orders"]).await;
    let result: Value = serde_json::from_str(&outcome.ends_with(1).out).unwrap();
    assert_eq!(result["breaks"].as_array().unwrap().len(), 1, "{result:#}");
    result["breaks"][0].clone()
}

/// Returns a trace of Jaeger's older interface, processed a day after the message was sent.
fn processed(references: &Value, topic: &str) -> Value {
    json!({ "data": [{
        "traceID": "0af7651916cd43dd8448eb211c80319c",
        "processes": { "p1": { "serviceName": "fulfillment-worker", "tags": [] } },
        "spans": [{
            "traceID": "0af7651916cd43dd8448eb211c80319c", "spanID": "b7ad6b7169203331", "processID": "p1",
            "operationName": "process orders", "startTime": 1_795_454_695_786_624_u64, "duration": 5, "references": references,
            "logs": [], "tags": [
                { "key": "span.kind", "type": "string", "value": "consumer" },
                { "key": "messaging.operation.type", "type": "string", "value": "process" },
                { "key": "messaging.destination.name", "type": "string", "value": topic },
            ],
        }],
    }] })
}

const LOST: [&str; 3] = ["no_header", "header_dropped", "not_extracted"];
const ABSENT_FIRST: [&str; 6] =
    ["sampled_away", "exporter_dropped", "not_arrived", "no_header", "header_dropped", "not_extracted"];

#[tokio::test]
async fn a_message_that_began_a_trace_of_its_own_lost_its_context() {
    let at = searched(processed(&json!([]), "orders")).await;
    assert_eq!(at["causes"], json!(LOST));
    let stray = json!({
        "trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331", "name": "process orders",
        "service": "fulfillment-worker"
    });
    assert_eq!(at["stray"], stray);
}

#[tokio::test]
async fn where_nothing_began_a_trace_it_is_rather_the_spans_that_are_lost() {
    let parent =
        json!([{ "refType": "CHILD_OF", "traceID": "0af7651916cd43dd8448eb211c80319c", "spanID": "00f067aa0ba902b7" }]);
    for found in [json!({ "data": [] }), processed(&parent, "orders"), processed(&json!([]), "returns")] {
        let at = searched(found).await;
        assert_eq!((&at["causes"], &at["stray"]), (&json!(ABSENT_FIRST), &Value::Null));
    }
    // An invalid response to the search does not change the causes.
    let at = searched(json!("what?")).await;
    assert_eq!((at["causes"][0].as_str(), at["causes"].as_array().unwrap().len()), (Some("no_header"), 6));
}
