//! Reading OTLP/JSON into spans.

use std::io::{BufReader, Read};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Wire, Status as WireStatus};
use traced_broker::verify::otlp::{self, ReadErrorKind, Reader};
use traced_broker::verify::{Kind, SpanId, Status, TraceId, Value};

use crate::build::{EPOCH, TRACE, file, traces};
use crate::scenes;

/// A span with every field, as the Collector's file exporter writes it.
const FULL: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"worker"}}]},"schemaUrl":"https://opentelemetry.io/schemas/1.42.0","scopeSpans":[{"scope":{"name":"traced-broker","attributes":[]},"spans":[{"traceId":"4BF92f3577b34da6a3ce929d0e0e4736","spanId":"00f067aa0ba902b7","traceState":"a=b","parentSpanId":"00f067aa0ba902b6","flags":769,"name":"process orders","kind":5,"startTimeUnixNano":"1795368288498000001","endTimeUnixNano":1795368288510000002,"attributes":[{"key":"messaging.kafka.offset","value":{"intValue":"42"}},{"key":"messaging.destination.partition.id","value":{"stringValue":"7"}},{"key":"n","value":{"intValue":-3}},{"key":"traced_broker.queue.duration","value":{"doubleValue":0.5}},{"key":"inf","value":{"doubleValue":"Infinity"}},{"key":"t","value":{"boolValue":true}},{"key":"l","value":{"arrayValue":{"values":[{"stringValue":"x"},{"intValue":1}]}}},{"key":"m","value":{"kvlistValue":{"values":[{"key":"k","value":{"boolValue":false}}]}}},{"key":"b","value":{"bytesValue":"AAE="}},{"key":"e","value":{}},{"key":"new","value":{"futureValue":[1,{}]}}],"droppedAttributesCount":1,"events":[{"timeUnixNano":"1795368288500000000","name":"exception","attributes":[{"key":"exception.message","value":{"stringValue":"out of stock"}}]}],"links":[{"traceId":"4bf92f3577b34da6a3ce929d0e0e4736","spanId":"00f067aa0ba902b6","attributes":[{"key":"a","value":{"stringValue":"b"}}]}],"droppedLinksCount":2,"status":{"message":"out of stock","code":2},"aFieldOfTheFuture":{"x":[null]}}]}]}]}"#;

#[test]
fn every_field_of_the_format() {
    let traces = otlp::read(FULL.as_bytes()).unwrap();
    let trace = traces.get(TRACE.parse().unwrap()).unwrap();
    let span = &trace.spans()[0];
    assert_eq!(span.span_id, SpanId::new(0x00f0_67aa_0ba9_02b7));
    assert_eq!(span.parent, Some(SpanId::new(0x00f0_67aa_0ba9_02b6)));
    assert_eq!((&*span.name, &*span.service, span.kind), ("process orders", "worker", Kind::Consumer));
    assert_eq!((span.start, span.end), (1_795_368_288_498_000_001, 1_795_368_288_510_000_002));
    assert_eq!(span.status, Status::Error("out of stock".into()));
    assert_eq!(span.dropped_links, 2);
    assert_eq!(span.links[0].target.span_id, SpanId::new(0x00f0_67aa_0ba9_02b6));
    assert_eq!(span.links[0].attributes.text("a"), Some("b"));
    assert_eq!(span.events[0].time, 1_795_368_288_500_000_000);
    assert_eq!(span.events[0].attributes.text("exception.message"), Some("out of stock"));
    let attributes = &span.attributes;
    assert_eq!(attributes.len(), 11);
    assert_eq!((attributes.int("messaging.kafka.offset"), attributes.int("n")), (Some(42), Some(-3)));
    assert_eq!(attributes.double("traced_broker.queue.duration"), Some(0.5));
    assert_eq!(attributes.get("inf"), Some(&Value::Double(f64::INFINITY)));
    assert_eq!(attributes.get("t"), Some(&Value::Bool(true)));
    assert_eq!(attributes.get("l").unwrap().to_string(), "[x, 1]");
    assert_eq!(attributes.get("m").unwrap().to_string(), "{k: false}");
    assert_eq!(attributes.get("b"), Some(&Value::Bytes("AAE=".into())));
    assert_eq!((attributes.get("e"), attributes.get("new")), (Some(&Value::Empty), Some(&Value::Empty)));
}

/// Protobuf's own writers use the names of enumerations, and may write null for unset fields.
#[test]
fn what_other_writers_do() {
    let line = r#"{"resourceSpans":[{"resource":null,"scopeSpans":[{"spans":[
        {"traceId":"4bf92f3577b34da6a3ce929d0e0e4736","spanId":"00f067aa0ba902b7","parentSpanId":"0000000000000000",
         "kind":"SPAN_KIND_SERVER","status":{"code":"STATUS_CODE_ERROR"},"links":null,"name":null,"endTimeUnixNano":null}
    ]},{"spans":null}]}]}"#;
    let traces = otlp::read(line.replace('\n', " ").as_bytes()).unwrap();
    let span = &traces.iter().next().unwrap().spans()[0];
    assert_eq!((span.kind, &span.status, span.parent), (Kind::Server, &Status::Error(String::new()), None));
    assert_eq!((&*span.service, &*span.name, span.start, span.end), ("unknown_service", "", 0, 0));
}

/// Returns a request with one span, built from the protocol crate's types.
fn foreign_request(trace: u128, id: u64, parent: u64) -> ExportTraceServiceRequest {
    let text = |key: &str, text: &str| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(text.into())) }),
        ..KeyValue::default()
    };
    let trace_id = trace.to_be_bytes().to_vec();
    let parent_span_id = parent.to_be_bytes().to_vec();
    let link = Link { trace_id: trace_id.clone(), span_id: parent_span_id.clone(), ..Link::default() };
    let event = Event { time_unix_nano: EPOCH + 1, name: "enqueued".into(), ..Event::default() };
    let wire = Wire {
        trace_id,
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id,
        name: "send orders".into(),
        kind: 4,
        start_time_unix_nano: EPOCH,
        end_time_unix_nano: EPOCH + 5,
        attributes: vec![text("messaging.operation.type", "send")],
        events: vec![event],
        links: vec![link],
        dropped_links_count: 3,
        status: Some(WireStatus { code: 2, message: "queue full".into() }),
        ..Wire::default()
    };
    let resource = Resource { attributes: vec![text("service.name", "order-api")], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![wire], ..ScopeSpans::default() }];
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

/// The request is written by foreign code.
#[test]
fn reads_what_the_protocol_crate_writes() {
    let (trace, id, parent) = (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 7, 6);
    let request = foreign_request(trace, id, parent);
    let traces = otlp::read(serde_json::to_string(&request).unwrap().as_bytes()).unwrap();
    let span = &traces.get(TraceId::new(trace)).unwrap().spans()[0];
    assert_eq!((span.span_id, span.parent), (SpanId::new(id), Some(SpanId::new(parent))));
    assert_eq!((&*span.name, &*span.service, span.kind), ("send orders", "order-api", Kind::Producer));
    assert_eq!((span.start, span.end, span.dropped_links), (EPOCH, EPOCH + 5, 3));
    assert_eq!(span.attributes.text("messaging.operation.type"), Some("send"));
    assert_eq!((&*span.events[0].name, span.events[0].time), ("enqueued", EPOCH + 1));
    assert_eq!(span.links[0].target.span_id, SpanId::new(parent));
    assert_eq!(span.status, Status::Error("queue full".into()));
}

#[test]
fn a_bad_line_is_named_and_the_next_one_is_read() {
    let good = file(&scenes::order()[..1]);
    let bad_id = good.replace("4bf92f3577b34da6a3ce929d0e0e4736", "4bf92f3577b34da6");
    let no_id = good.replace("0000000000000001", "");
    let text = format!("{good}\n  \nnonsense\n{bad_id}{no_id}{good}{}", &good[..40]);
    let results: Vec<_> = Reader::new(text.as_bytes()).collect();
    assert_eq!(results.len(), 6);
    assert_eq!(results[0].as_ref().unwrap(), results[4].as_ref().unwrap());
    let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    let lines: Vec<_> = errors.iter().map(|error| error.line()).collect();
    assert_eq!(lines, [4, 5, 6, 8]);
    assert!(matches!(errors[0].kind(), ReadErrorKind::Malformed(_)));
    assert!(matches!(errors[1].kind(), ReadErrorKind::Malformed(cause) if cause.to_string().contains("32 hex digits")));
    assert!(matches!(errors[2].kind(), ReadErrorKind::MissingId(name) if name == "POST /orders"));
    assert!(matches!(errors[3].kind(), ReadErrorKind::Truncated));
    assert_eq!(errors[3].to_string(), "line 8: ends in the middle of a value: cut off, or still being written");
    assert_eq!(otlp::read(text.as_bytes()).unwrap_err().line(), 4);
}

#[test]
fn a_line_beyond_the_limit_is_refused_and_passed_over() {
    let (short, long) = (file(&scenes::order()[..1]), file(&scenes::order()[1..2]));
    let limit = short.trim_end().len();
    assert!(long.len() > limit + 1);
    let text = format!("{short}{long}{short}");
    // A small buffer, so that the long line is skipped in several steps.
    let input = BufReader::with_capacity(16, text.as_bytes());
    let results: Vec<_> = Reader::new(input).max_line(limit).collect();
    assert_eq!(results.len(), 3);
    assert!(results[0].is_ok() && results[2].is_ok());
    let error = results[1].as_ref().unwrap_err();
    assert!(error.line() == 2 && matches!(error.kind(), ReadErrorKind::TooLong(most) if *most == limit));
}

#[test]
fn a_failing_input_ends_the_reading() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("disk gone"))
        }
    }
    let results: Vec<_> = Reader::new(BufReader::new(Broken)).take(3).collect();
    assert_eq!(results.len(), 1);
    assert!(matches!(results[0].as_ref().unwrap_err().kind(), ReadErrorKind::Io(_)));
}

#[test]
fn spans_exported_twice_count_once() {
    let order = scenes::order();
    let traces = traces(&[order.clone(), order].concat());
    assert_eq!((traces.len(), traces.iter().next().unwrap().spans().len()), (1, 9));
}
