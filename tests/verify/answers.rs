//! Answers of Tempo and Jaeger, valid and invalid.

use traced_broker::verify::answer::{self, AnswerError, MAX_ANSWER, MAX_OBJECTS};
use traced_broker::verify::{Kind, Span, SpanId, SpanRef, Status, Traces, check};

const TEMPO_V1: &str = include_str!("../fixtures/tempo-api-v1.json");
const TEMPO_V2: &str = include_str!("../fixtures/tempo-api-v2.json");
const JAEGER_V3: &str = include_str!("../fixtures/jaeger-api-v3.json");
const JAEGER_CLASSIC: &str = include_str!("../fixtures/jaeger-api-traces.json");

type Read = fn(&[u8]) -> Result<Traces, AnswerError>;

fn spans(traces: &Traces) -> &[Span] {
    assert_eq!(traces.len(), 1);
    traces.iter().next().unwrap().spans()
}

#[test]
fn every_interface_gives_the_same_trace_and_it_is_whole() {
    let answers: [(Read, &str); 4] = [
        (answer::tempo, TEMPO_V1),
        (answer::tempo, TEMPO_V2),
        (answer::jaeger, JAEGER_V3),
        (answer::jaeger, JAEGER_CLASSIC),
    ];
    for (read, text) in answers {
        let traces = read(text.as_bytes()).unwrap();
        let trace = traces.iter().next().unwrap();
        assert_eq!(trace.id().to_string(), "5b8efff798038103d269b633813fc60c");
        let [root, send, process] = spans(&traces) else { panic!("three spans: {traces:?}") };
        assert_eq!([root, send, process].map(|span| &*span.name), ["POST /orders", "send orders", "process orders"]);
        assert_eq!([root, send, process].map(|span| span.kind), [Kind::Server, Kind::Producer, Kind::Consumer]);
        assert_eq!([&*send.service, &*process.service], ["order-api", "fulfillment-worker"]);
        assert_eq!((root.parent, process.parent), (None, Some(send.span_id)));
        assert_eq!(send.span_id, SpanId::new(0x00f0_67aa_0ba9_02b2));
        assert_eq!(process.links.iter().map(|link| link.target).collect::<Vec<_>>(), [send.reference()]);
        assert_eq!(process.status, Status::Error("out of stock".into()));
        assert_eq!(process.attributes.int("messaging.kafka.offset"), Some(42));
        assert_eq!((send.attributes.len(), process.attributes.len()), (3, 3));
        assert_eq!(trace.hops()[0].queue.as_millis(), 833);
        let report = check(&traces);
        assert!(report.is_whole(), "{report}");
    }
    assert_eq!(
        spans(&answer::tempo(TEMPO_V1.as_bytes()).unwrap()),
        spans(&answer::tempo(TEMPO_V2.as_bytes()).unwrap())
    );
}

#[test]
fn times_of_the_older_jaeger_interface_are_microseconds() {
    let classic = answer::jaeger(JAEGER_CLASSIC.as_bytes()).unwrap();
    let exact = answer::jaeger(JAEGER_V3.as_bytes()).unwrap();
    for (classic, exact) in spans(&classic).iter().zip(spans(&exact)) {
        assert_eq!(classic.start, exact.start / 1_000 * 1_000);
        assert_eq!(classic.duration(), exact.duration());
    }
    // Half a microsecond is not zero.
    let short = JAEGER_CLASSIC.replace("\"duration\": 30000", "\"duration\": 0");
    let traces = answer::jaeger(short.as_bytes()).unwrap();
    assert!(check(&traces).is_whole());
    let endless = JAEGER_CLASSIC.replace("\"duration\": 30000", "\"duration\": 18446744073709551615");
    assert_eq!(spans(&answer::jaeger(endless.as_bytes()).unwrap())[2].end, u64::MAX);
}

/// References, tags and logs that the fixture lacks.
#[test]
fn the_older_jaeger_interface_is_read_in_full() {
    let text = r#"{"data":[{"traceID":"9b","processes":{"p1":{"serviceName":"worker"}},"spans":[{
        "traceID":"000000000000009b","spanID":"a","operationName":"process orders","processID":"p1",
        "startTime":1795368296626624,"duration":5,
        "references":[{"refType":"FOLLOWS_FROM","traceID":"7","spanID":"1"},
                      {"refType":"FOLLOWS_FROM","traceID":"9b","spanID":"2"},
                      {"refType":"CHILD_OF","traceID":"9b","spanID":"3"}],
        "tags":[{"key":"error","type":"bool","value":true},{"key":"wait","type":"float64","value":2},
                {"key":"big","type":"int64","value":"9007199254740993"},{"key":"raw","type":"binary","value":"AAE="},
                {"key":"odd","value":null}],
        "logs":[{"timestamp":1795368296626626,"fields":[{"key":"event","type":"string","value":"retry"},
                {"key":"attempt","type":"int64","value":2}]}]}]}],"errors":null}"#;
    let traces = answer::jaeger(text.as_bytes()).unwrap();
    let [span] = spans(&traces) else { panic!("one span") };
    assert_eq!(span.trace_id.to_string(), format!("{:0>32}", "9b"));
    assert_eq!(span.parent, Some(SpanId::new(3)));
    let link = |trace: u128, span| SpanRef {
        trace_id: traced_broker::verify::TraceId::new(trace),
        span_id: SpanId::new(span),
    };
    assert_eq!(span.links.iter().map(|link| link.target).collect::<Vec<_>>(), [link(7, 1), link(0x9b, 2)]);
    assert_eq!(span.status, Status::Error(String::new()));
    assert_eq!((span.attributes.double("wait"), span.attributes.int("wait")), (Some(2.0), None));
    assert_eq!(span.attributes.int("big"), Some(9_007_199_254_740_993));
    assert_eq!((&*span.events[0].name, span.events[0].time), ("retry", 1_795_368_296_626_626_000));
    assert_eq!((span.events[0].attributes.len(), span.events[0].attributes.int("attempt")), (1, Some(2)));
}

#[test]
fn the_newer_jaeger_interface_may_stream() {
    let traces = answer::jaeger(JAEGER_V3.as_bytes()).unwrap();
    let value: serde_json::Value = serde_json::from_str(JAEGER_V3).unwrap();
    let parts = value["result"]["resourceSpans"].as_array().unwrap();
    let stream: Vec<String> =
        parts.iter().map(|part| serde_json::json!({"result": {"resourceSpans": [part]}}).to_string()).collect();
    assert_eq!(spans(&answer::jaeger(stream.join("\n").as_bytes()).unwrap()), spans(&traces));
}

#[test]
fn hex_ids_of_tempo_are_read_too() {
    let hex = TEMPO_V2
        .replace("W47/95gDgQPSabYzgT/GDA==", "5B8EFFF798038103D269B633813FC60C")
        .replace("APBnqgupArE=", "00f067aa0ba902b1")
        .replace("APBnqgupArI=", "00f067aa0ba902b2");
    assert_eq!(spans(&answer::tempo(hex.as_bytes()).unwrap()), spans(&answer::tempo(TEMPO_V2.as_bytes()).unwrap()));
}

#[test]
fn what_is_no_trace_is_an_error_that_says_why() {
    let words = |read: Read, text: &str| read(text.as_bytes()).unwrap_err().to_string();
    for read in [answer::tempo as Read, answer::jaeger] {
        for html in ["<!doctype html><title>Grafana</title>", "trace not found", "[7]", "7"] {
            assert!(matches!(read(html.as_bytes()), Err(AnswerError::Malformed(_))), "{html}");
        }
        for other in ["{\"status\":\"ok\"}", "{}", "[]"] {
            assert!(matches!(read(other.as_bytes()), Err(AnswerError::Foreign)), "{other}");
        }
        // Neither ignored nor parsed input can exhaust the stack.
        let deep = format!("{{\"x\":{}", "[".repeat(1_000_000));
        assert!(matches!(read(deep.as_bytes()), Err(AnswerError::Truncated)));
        let value = "{\"arrayValue\":{\"values\":[".repeat(100_000);
        let resources = format!("[{{\"resource\":{{\"attributes\":[{{\"key\":\"a\",\"value\":{value}");
        let start = if read(TEMPO_V1.as_bytes()).is_ok() { "{\"batches\":" } else { "{\"result\":{\"resourceSpans\":" };
        assert!(matches!(read(format!("{start}{resources}").as_bytes()), Err(AnswerError::Malformed(_))));
    }
    assert!(matches!(answer::tempo(b""), Err(AnswerError::Truncated)));
    assert!(matches!(answer::jaeger(b" \n"), Err(AnswerError::Truncated)));
    assert!(words(answer::tempo, JAEGER_V3).contains("not in the format of this backend"));
    assert!(words(answer::jaeger, TEMPO_V2).contains("not in the format of this backend"));
    let partial = TEMPO_V2.replace("\"metrics\": {}", "\"status\": \"PARTIAL\", \"message\": \"too large\"");
    assert_eq!(words(answer::tempo, &partial), "the backend left spans out: too large");
    assert!(answer::tempo(partial.replace("PARTIAL", "COMPLETE").as_bytes()).is_ok());
    let newer = r#"{"error":{"httpCode":404,"message":"No traces found"}}"#;
    assert_eq!(words(answer::jaeger, newer), "the backend refuses with 404: No traces found");
    let older = r#"{"data":null,"errors":[{"code":404,"msg":"trace not found"}]}"#;
    assert!(matches!(answer::jaeger(older.as_bytes()), Err(AnswerError::Refused { code: 404, .. })));
    let nowhere = JAEGER_CLASSIC.replace("\"processID\": \"p2\"", "\"processID\": \"p9\"");
    assert!(words(answer::jaeger, &nowhere).contains("`process orders` belongs to process `p9`"));
    let unnamed = JAEGER_CLASSIC.replace("\"spanID\": \"00f067aa0ba902b1\"", "\"spanID\": \"\"");
    assert!(words(answer::jaeger, &unnamed).contains("`POST /orders` has no trace id"));
    let garbled = TEMPO_V1.replace("APBnqgupArE=", "APBnqgupArF=");
    assert!(matches!(answer::tempo(garbled.as_bytes()), Err(AnswerError::Malformed(_))));
}

/// An answer cut at any place is an error, never a shorter trace.
#[test]
fn a_cut_answer_is_never_a_trace() {
    for (read, text) in
        [(answer::tempo as Read, TEMPO_V1), (answer::jaeger, JAEGER_CLASSIC), (answer::jaeger, JAEGER_V3)]
    {
        let text = text.trim_end();
        for end in 1..text.len() {
            let cut = read(&text.as_bytes()[..end]);
            assert!(matches!(cut, Err(AnswerError::Truncated)), "{end}: {cut:?}");
        }
    }
}

#[test]
fn answers_are_bounded() {
    let long = "7".repeat(MAX_ANSWER + 1);
    let many = format!("{{\"batches\":[{}", "{},".repeat(MAX_OBJECTS));
    for read in [answer::tempo as Read, answer::jaeger] {
        assert!(matches!(read(long.as_bytes()), Err(AnswerError::TooLong(MAX_ANSWER))));
        assert!(matches!(read(many.as_bytes()), Err(AnswerError::TooMany(MAX_OBJECTS))));
    }
}
