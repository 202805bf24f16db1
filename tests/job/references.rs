//! References: their contents, and their text and JSON forms, which can be read back.

use std::time::{Duration, SystemTime};
use traced_broker::names::header;

use futures_util::StreamExt;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use proptest::collection::vec;
use proptest::prelude::*;
use traced_broker::adapters::memory::Memory;
use traced_broker::{Message, Subscription, TraceReference, Traced, TracedBroker, w3c};

use super::exported::{Exported, same};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";

fn context(traceparent: &str, tracestate: &str) -> Context {
    w3c::decode(Some(traceparent.as_bytes()), Some(tracestate.as_bytes()), None, &Context::new()).context
}

fn headers(context: &Context) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    w3c::encode_context(context, |name, value| headers.push((name, String::from_utf8(value.to_vec()).unwrap())));
    headers
}

#[test]
fn keeps_the_span_the_flags_and_the_tracestate_and_no_baggage() {
    // A key that OpenTelemetry's own type refuses, and the random flag that its tracer drops.
    let received =
        context(PARENT, "0vendor=a;b,ot=th:c;rv:9b8233f7e3a151").with_baggage([KeyValue::new("customer", "7")]);
    let reference = TraceReference::of_context(&received).unwrap();
    assert_eq!(reference.traceparent().to_string(), PARENT);
    assert_eq!(reference.tracestate(), Some("0vendor=a;b,ot=th:c;rv:9b8233f7e3a151"));
    assert!(reference.age() < Duration::from_secs(60) && reference.made_at() <= SystemTime::now());

    let again: TraceReference = reference.to_string().parse().unwrap();
    let state = "0vendor=a;b,ot=th:c;rv:9b8233f7e3a151".to_owned();
    assert_eq!(headers(&again.context()), [("traceparent", PARENT.to_owned()), ("tracestate", state)]);
    assert!(again.span_context().is_remote());
}

#[test]
fn is_written_as_one_line_and_as_json() {
    let text = format!("{PARENT};1795368288498;asked%20by%20J%C3%BCrgen%3B%2050%25;rojo=1;2,congo=t 3");
    let reference: TraceReference = text.parse().unwrap();
    assert_eq!(reference.to_string(), text);
    assert_eq!(reference.note(), Some("asked by Jürgen; 50%"));
    assert_eq!(reference.tracestate(), Some("rojo=1;2,congo=t 3"));
    assert_eq!(reference.made_at(), SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_368_288_498));

    let json = serde_json::to_value(&reference).unwrap();
    let expected = serde_json::json!({
        "traceparent": PARENT, "made_at_ms": 1_795_368_288_498_u64, "note": "asked by Jürgen; 50%",
        "tracestate": "rojo=1;2,congo=t 3",
    });
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_value::<TraceReference>(json).unwrap(), reference);

    let bare = format!("{PARENT};1795368288498");
    assert_eq!(bare.len(), 69, "as documented");
    let reference: TraceReference = bare.parse().unwrap();
    assert_eq!((reference.to_string(), reference.note(), reference.tracestate()), (bare, None, None));
    let json = serde_json::to_string(&reference).unwrap();
    assert_eq!(json, format!(r#"{{"traceparent":"{PARENT}","made_at_ms":1795368288498}}"#));
}

#[test]
fn cuts_a_note_between_characters() {
    let reference = TraceReference::of_context(&context(PARENT, "")).unwrap();
    let kept = |note: &str| reference.clone().with_note(note).note().map(str::to_owned);
    assert_eq!(kept(&"x".repeat(200)), Some("x".repeat(TraceReference::MAX_NOTE)));
    assert_eq!(kept(&"x".repeat(TraceReference::MAX_NOTE)), Some("x".repeat(TraceReference::MAX_NOTE)));
    // 43 characters of three bytes are 129 bytes: the last one would be cut in half.
    assert_eq!(kept(&"€".repeat(43)), Some("€".repeat(42)));
    assert_eq!(kept(""), None);
}

#[test]
fn shortens_a_tracestate_by_whole_members_large_ones_first() {
    let member = |key: usize, len: usize| format!("k{key:02}={}", "v".repeat(len));
    let state = |members: &[String]| {
        let reference = TraceReference::of_context(&context(PARENT, &members.join(","))).unwrap();
        reference.tracestate().unwrap_or_default().to_owned()
    };
    let full: Vec<String> = (0..4).map(|key| member(key, 123)).collect();
    assert_eq!(full.join(",").len(), 511);
    assert_eq!(state(&full), full.join(","), "nothing is lost within the limit");

    let large_first: Vec<String> = [member(9, 200)].into_iter().chain(full.clone()).collect();
    assert_eq!(state(&large_first), full.join(","));
    let small: Vec<String> = (0..20).map(|key| member(key, 50)).collect();
    assert_eq!(state(&small), small[..9].join(","), "the most recent stay, in order");
    let long = [member(1, 256), member(2, 256)];
    assert_eq!(state(&long), "");
}

/// The longest reference can be read, and is exactly as long as the constant.
#[test]
fn fits_the_length_that_is_promised() {
    let members: Vec<String> =
        (0..4).map(|key| format!("k{key}={}", "v".repeat(if key == 0 { 125 } else { 124 }))).collect();
    let (note, state) = ("%01".repeat(TraceReference::MAX_NOTE), members.join(","));
    assert_eq!(state.len(), TraceReference::MAX_TRACESTATE);
    let longest = format!("{PARENT};253402300799999;{note};{state}");
    assert_eq!(longest.len(), TraceReference::MAX_LEN);
    assert_eq!(longest.parse::<TraceReference>().unwrap().to_string(), longest);
}

/// A user-defined propagator with a header that is not a W3C header.
#[derive(Debug)]
struct OwnHeader;

impl TextMapPropagator for OwnHeader {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        for (_, value) in headers(context).into_iter().filter(|(name, _)| *name == header::TRACEPARENT) {
            injector.set("x-own", value);
        }
    }

    fn extract_with_context(&self, base: &Context, extractor: &dyn Extractor) -> Context {
        w3c::decode(extractor.get("x-own").map(str::as_bytes), None, None, base).context
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&[])
    }
}

#[tokio::test]
async fn refers_to_who_sent_a_message() {
    let exported = Exported::new();
    let broker = Traced::new(std::sync::Arc::new(Memory::new())).with_tracer_provider(&exported.provider);
    for own in [false, true] {
        let broker = if own { broker.clone().with_propagator(OwnHeader) } else { broker.clone() };
        let topic = if own { "own" } else { "w3c" };
        let mut deliveries = broker.subscribe(Subscription::new(topic).group("g")).await.unwrap();
        broker.publish(topic, Message::new("x")).await.unwrap();
        let delivery = deliveries.next().await.unwrap().unwrap();

        let send = exported.one(&format!("send {topic}")).span_context;
        let of_delivery = TraceReference::of_delivery(&delivery).unwrap();
        assert!(same(&of_delivery.span_context(), &send));
        let of_message = TraceReference::of_received(delivery.message()).unwrap();
        assert_eq!(of_message.traceparent(), of_delivery.traceparent());

        // Within the handler, the process span is the innermost.
        let mut current = None;
        let handler = async |_| {
            current = TraceReference::current();
            Ok(())
        };
        delivery.process(handler).await.unwrap();
        let process = exported.one(&format!("process {topic}")).span_context;
        assert!(same(&current.unwrap().span_context(), &process));
    }
}

#[test]
fn there_is_none_without_a_span() {
    assert_eq!(TraceReference::current(), None);
    assert_eq!(TraceReference::of_context(&Context::new()), None);
    let exported = Exported::new();
    let _current = exported.root("request").attach();
    assert!(same(&TraceReference::current().unwrap().span_context(), Context::current().span().span_context()));
}

fn member() -> impl Strategy<Value = String> {
    ("[a-z0-9][a-z0-9_*/@-]{0,60}", "[!-+\\--<>-~]{1,60}").prop_map(|(key, value)| format!("{key}={value}"))
}

proptest! {
    #[test]
    fn text_and_json_give_back_the_same(
        (trace, span, flags) in (1_u128.., 1_u64.., 0_u8..4),
        members in vec(member(), 0..34),
        note in any::<String>(),
    ) {
        let parent = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
        let reference = TraceReference::of_context(&context(&parent, &members.join(","))).unwrap().with_note(note);
        prop_assert_eq!(reference.traceparent().to_string(), parent);
        let text = reference.to_string();
        prop_assert!(text.len() <= TraceReference::MAX_LEN);
        prop_assert!(text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{}", text);
        prop_assert_eq!(&text.parse::<TraceReference>().unwrap(), &reference);
        let json = serde_json::to_string(&reference).unwrap();
        prop_assert_eq!(serde_json::from_str::<TraceReference>(&json).unwrap(), reference);
    }
}
