//! Any exported spans can be read and drawn without a panic or an overflowing line.

use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;
use traced_broker::verify::{
    Attributes, Kind, Link, Page, Picture, Span, SpanId, SpanRef, Status, TraceId, Traces, Value, Waterfall, check,
};

use crate::markup::read;
use crate::paging::elements_of;

/// Returns the width of a text whose characters were picked from ranges of known width.
fn columns(text: &str) -> usize {
    let one = |c: char| match c {
        '\u{300}'..='\u{36f}' => 0,
        '一'..='鿿' | '가'..='힣' | '\u{1f680}'..='\u{1f6c0}' => 2,
        _ => 1,
    };
    text.chars().map(one).sum()
}

fn name() -> impl Strategy<Value = String> {
    let letter = prop_oneof![
        6 => proptest::char::range(' ', '~'),
        2 => proptest::char::range('а', 'я'),
        2 => proptest::char::range('一', '龥'),
        1 => proptest::char::range('\u{300}', '\u{36f}'),
        1 => proptest::char::range('\u{1f680}', '\u{1f6c0}'),
        1 => prop::sample::select("\u{1b}\n\t\r\0\u{9b}\u{202e}\u{200b}\u{feff}…".chars().collect::<Vec<_>>()),
    ];
    prop::collection::vec(letter, 0..60).prop_map(|letters| letters.into_iter().collect())
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => Just(0),
        1 => Just(u64::MAX),
        1 => any::<u64>(),
        6 => 1_000_000_000..1_000_100_000_u64,
        3 => 1_795_368_288_498_000_000..1_795_368_299_498_000_000_u64,
    ]
}

fn reference() -> impl Strategy<Value = SpanRef> {
    (0..3_u128, 0..12_u64)
        .prop_map(|(trace, span)| SpanRef { trace_id: TraceId::new(trace), span_id: SpanId::new(span) })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let text = |text: &str| Value::String(text.to_owned());
    let operation =
        prop::sample::select(vec!["send", "create", "process", "receive", "settle", "dance"]).prop_map(text);
    let topic = prop_oneof![name(), Just("orders".to_owned()), Just("orders:dead".to_owned())].prop_map(Value::String);
    let seconds = prop_oneof![any::<f64>(), 0.0..0.1_f64, Just(f64::NAN), Just(-1.0), Just(f64::MAX)];
    let optional = |name: &'static str, value: BoxedStrategy<Value>| {
        prop::option::of(value).prop_map(move |value| value.map(|value| (name, value)))
    };
    (
        optional("messaging.operation.type", operation.boxed()),
        optional("messaging.destination.name", topic.boxed()),
        optional("traced_broker.queue.duration", seconds.prop_map(Value::Double).boxed()),
        optional("traced_broker.delivery.attempt", any::<i64>().prop_map(Value::Int).boxed()),
        optional("messaging.batch.message_count", any::<i64>().prop_map(Value::Int).boxed()),
        optional("error.type", name().prop_map(Value::String).boxed()),
    )
        .prop_map(|(a, b, c, d, e, f)| [a, b, c, d, e, f].into_iter().flatten().collect())
}

const KINDS: &[Kind] = &[Kind::Unspecified, Kind::Internal, Kind::Server, Kind::Client, Kind::Producer, Kind::Consumer];

prop_compose! {
    fn span()(
        at in reference(),
        parent in prop::option::of(0..12_u64),
        links in prop::collection::vec((reference(), attributes()), 0..8),
        kind in prop::sample::select(KINDS),
        (name, service, message) in (name(), name(), prop::option::of(name())),
        (start, end) in (time(), time()),
        attributes in attributes(),
        dropped_links in prop_oneof![4 => Just(0), 1 => any::<u32>()],
    ) -> Span {
        let mut span = Span::new(at.trace_id, at.span_id, name);
        span.parent = parent.map(SpanId::new);
        span.links = links.into_iter().map(|(target, attributes)| Link { target, attributes }).collect();
        span.dropped_links = dropped_links;
        span.kind = kind;
        span.service = service.into();
        span.start = start;
        span.end = end;
        span.status = message.map_or(Status::Unset, Status::Error);
        span.attributes = attributes;
        span
    }
}

proptest! {
    // Without optimisation the default generator takes three times as long as the tested code.
    #![proptest_config(ProptestConfig {
        rng_algorithm: RngAlgorithm::XorShift,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_line_is_too_long(
        spans in prop::collection::vec(span(), 1..24),
        width in 0..200_usize,
        ascii in any::<bool>(),
        checked in any::<bool>(),
    ) {
        let traces: Traces = spans.into_iter().collect();
        let report = check(&traces);
        for finding in report.findings() {
            let trace = traces.get(finding.trace);
            prop_assert!(trace.is_some_and(|trace| trace.span(finding.span).is_some()));
        }
        for trace in &traces {
            let mut waterfall = Waterfall::new(trace).within(&traces).width(width).ascii(ascii);
            if checked {
                waterfall = waterfall.report(&report);
            }
            let picture = waterfall.to_string();
            for line in picture.lines() {
                prop_assert!(columns(line) <= width.max(40), "{} columns in {line:?}", columns(line));
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
                prop_assert!(!ascii || line.is_ascii(), "{line:?}");
            }
            prop_assert!(!picture.contains("not shown") || checked);
            let _ = waterfall.colour(true).to_string();
        }
    }

    #[test]
    fn every_picture_is_well_formed_and_within_its_page(
        spans in prop::collection::vec(span(), 1..24),
        title in name(),
        checked in any::<bool>(),
    ) {
        let traces: Traces = spans.into_iter().collect();
        let report = check(&traces);
        let mut all = traces.iter();
        let first = all.next();
        let mut picture = all.fold(Picture::new(first.unwrap()).within(&traces).title(&title), Picture::and);
        if checked {
            picture = picture.report(&report);
        }
        let elements = read(&picture.to_string()).map_err(TestCaseError::fail)?;
        let (width, height) = (elements[0].number("width"), elements[0].number("height"));
        for element in elements.iter().filter(|element| element.name == "rect" || element.name == "text") {
            let (x, y) = (element.get("x").map_or(0.0, |x| x.parse().unwrap()), element.get("y").map_or(0.0, |y| y.parse().unwrap()));
            prop_assert!((0.0..=width).contains(&x) && (0.0..=height).contains(&y), "{element:?}");
            if element.name == "rect" {
                prop_assert!(x + element.number("width") <= width && element.number("width") > 0.0, "{element:?}");
            }
        }
        let drawn = traces.iter().map(|trace| trace.spans().len()).sum::<usize>();
        prop_assert_eq!(elements.iter().filter(|element| element.name == "g").count(), drawn);
    }

    #[test]
    fn every_page_is_well_formed_and_has_one_script(
        spans in prop::collection::vec(span(), 1..24),
        title in name(),
        checked in any::<bool>(),
    ) {
        let traces: Traces = spans.into_iter().collect();
        let report = check(&traces);
        let trace = traces.iter().next().unwrap();
        let mut page = Page::new(trace).within(&traces).title(&title);
        if checked {
            page = page.report(&report);
        }
        let page = page.to_string();
        prop_assert_eq!(page.matches("</script").count(), 2);
        let elements = elements_of(&page).map_err(TestCaseError::fail)?;
        let shown = elements.iter().filter(|element| element.has_class("row") && element.has_class("span")).count();
        prop_assert!(shown >= trace.spans().len());
    }
}
