//! Properties of the readers of exported spans and of the drawings: a trace that was read can be
//! checked and drawn, and no text in it becomes a command of the terminal, markup or a script.

use traced_broker::verify::{
    self, Attributes, Event, Kind, Latencies, Link, Page, Picture, Span, SpanId, SpanRef, Status, Trace, TraceId,
    TraceReport, Traces, Value, Waterfall, answer, otlp,
};

/// The input is a file of OTLP/JSON.
pub fn otlp_file(input: &[u8]) {
    let lines: Vec<_> = otlp::Reader::new(input).collect();
    assert!(lines.len() <= input.split(|byte| *byte == b'\n').count(), "at most one result for each line");
    for error in lines.iter().filter_map(|line| line.as_ref().err()) {
        let _ = error.to_string();
    }
    let whole = otlp::read(input);
    assert_eq!(whole.is_ok(), lines.iter().all(Result::is_ok));
    drawn(&lines.into_iter().filter_map(Result::ok).flatten().collect());
}

/// The input is an answer of Tempo or Jaeger.
pub fn answers(input: &[u8]) {
    for read in [answer::tempo, answer::jaeger] {
        match read(input) {
            Ok(traces) => drawn(&traces),
            Err(error) => drop(error.to_string()),
        }
    }
}

/// The input is records of [`RECORD`] bytes, one for each span of a few traces.
pub fn drawings(input: &[u8]) {
    drawn(&input.chunks_exact(RECORD).take(64).map(span).collect());
}

/// Texts of foreign programs.
const TEXTS: [&str; 16] = [
    "send orders",
    "process orders",
    "orders:a",
    "orders",
    "",
    " ",
    "<script>alert(1)</script>",
    "\"><svg onload='x'>&amp;",
    "\u{1b}[31mred\u{7}\u{9b}0m",
    "a\r\nb\tc\u{0}",
    "\u{202e}\u{feff}\u{200b}",
    "\u{6ce8}\u{6587}\u{30b5}\u{30fc}\u{30d3}\u{30b9}\u{1f69a}",
    "e\u{301}\u{301}\u{301}\u{301}",
    "</title></style></script><!--",
    "]]>\u{fffe}\u{ffff}",
    "a-name-that-is-longer-than-every-column-of-a-drawing-however-wide-the-terminal-of-its-reader-may-be-made-today",
];

/// The bytes of one span.
const RECORD: usize = 14;

/// Times at which arithmetic may end.
const TIMES: [u64; 8] = [0, 1, 1_000, 1_000_000_000, 1_795_368_288_498_000_000, u64::MAX / 2, u64::MAX - 1, u64::MAX];

fn span(record: &[u8]) -> Span {
    let at = |place: usize| usize::from(record[place]);
    let text = |place: usize| TEXTS[at(place) % TEXTS.len()];
    let time =
        |place: usize| TIMES[at(place) % TIMES.len()].saturating_add(u64::from(record[place + 1]) << (at(place) / 8));
    let reference = |place: usize| SpanRef {
        trace_id: TraceId::new(u128::from(record[place] % 3) + 1),
        span_id: SpanId::new(u64::from(record[place] / 3 % 16)),
    };
    let own = reference(0);
    let mut span = Span::new(own.trace_id, own.span_id, text(1));
    let kinds = [Kind::Producer, Kind::Consumer, Kind::Client, Kind::Server, Kind::Internal, Kind::Unspecified];
    span.kind = kinds[at(2) % kinds.len()];
    span.service = text(3).into();
    span.parent = (at(4) % 4 > 0).then(|| reference(4).span_id);
    (span.start, span.end) = (time(5), time(7));
    span.status = [Status::Unset, Status::Ok, Status::Error(text(9).to_owned())][at(9) / 16 % 3].clone();
    let attributes = attributes(record[10], text(9));
    span.links =
        (0..at(11) % 3).map(|more| Link { target: reference(12 - more), attributes: attributes.clone() }).collect();
    span.events = (0..at(13) % 3)
        .map(|_| Event { time: time(12), name: text(13).to_owned(), attributes: attributes.clone() })
        .collect();
    span.attributes = attributes;
    span
}

fn attributes(kind: u8, text: &str) -> Attributes {
    let numbers = [0.0, -1.0, 0.25, f64::NAN, f64::INFINITY, 1e300, 1.8e19, 5e-324];
    let counts = [0, 1, 2, 1_000_000, i64::from(u32::MAX), i64::MAX, i64::MIN, -1];
    let operations = ["create", "send", "receive", "process", "settle", text, "", "publish"];
    let at = usize::from(kind);
    let all = [
        ("messaging.operation.type", Value::String(operations[at % 8].to_owned())),
        ("traced_broker.queue.duration", Value::Double(numbers[at / 8 % 8])),
        ("traced_broker.delivery.attempt", Value::Int(counts[at / 2 % 8])),
        ("messaging.batch.message_count", Value::Int(counts[at / 4 % 8])),
        ("messaging.destination.name", Value::String(text.to_owned())),
        ("messaging.consumer.group.name", Value::String(text.to_owned())),
        (text, Value::Bytes(text.to_owned())),
    ];
    all.into_iter().take(at % 9).collect()
}

/// Holds that the traces can be checked and drawn.
fn drawn(traces: &Traces) {
    let report = verify::check(traces);
    assert_eq!(report.whole() + report.broken(), traces.len());
    assert_eq!(report.is_whole(), report.findings().is_empty() && !traces.is_empty());
    let _ = report.to_string();
    let hops = traces.hops();
    let latencies = Latencies::of(&hops);
    assert!(latencies.len() <= hops.len() && latencies.quantile(0.99).is_some() != latencies.is_empty());
    for trace in traces.iter().take(3) {
        waterfalls(trace, traces, &report);
        let picture = Picture::new(trace).within(traces).report(&report);
        let pictures = [picture.to_string(), Picture::new(trace).max_rows(1).title("<\u{0}&").to_string()];
        pictures.iter().for_each(|svg| markup(svg));
        document(&Page::new(trace).within(traces).report(&report).remark(false, "<\u{0}&").to_string());
    }
}

/// Holds that the page has its own script and style only, and data that can be read.
fn document(html: &str) {
    let (head, script) = html.split_once("<script type=\"application/json\" id=\"data\">").expect("the data");
    let (data, rest) = script.split_once("</script>").expect("an end of the data");
    assert!(serde_json::from_str::<serde_json::Value>(data).is_ok());
    assert_eq!(rest.matches("<script>").count(), 1, "only the page's own script");
    let body = head.split_once("</style>").expect("a style").1;
    assert!(!body.contains("<script") && !body.contains("<style"));
    plain(body);
}

fn waterfalls(trace: &Trace, traces: &Traces, report: &TraceReport) {
    for width in [0, 97] {
        let drawing = Waterfall::new(trace).within(traces).report(report).width(width);
        let ascii = drawing.ascii(true).to_string();
        assert!(ascii.bytes().all(|byte| matches!(byte, b'\n' | 0x20..=0x7e)), "{ascii:?}");
        assert!(ascii.lines().all(|line| line.len() <= width.max(40)), "{ascii}");
        let text = drawing.max_rows(3).to_string();
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        let coloured = drawing.colour(true).to_string();
        let foreign = |rest: &str| !rest.starts_with('[') || rest.starts_with("[31mred");
        assert!(!coloured.split('\u{1b}').skip(1).any(foreign), "{coloured:?}");
    }
}

/// Elements of pictures.
const ELEMENTS: [&str; 12] =
    ["svg", "title", "desc", "style", "defs", "pattern", "marker", "path", "rect", "text", "g", "tspan"];

/// Holds that the text is elements of pictures, one within the other, with attributes in quotes.
fn markup(svg: &str) {
    plain(svg);
    let mut open = Vec::new();
    for part in svg.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("<{part}"));
        assert!(!text.contains('>') || open.last() == Some(&"style"), "{text:?}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{tag:?}");
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        assert!(ELEMENTS.contains(&name), "{tag:?}");
        let mut quoted = tag[name.len()..].split('"');
        let names: Vec<_> = quoted.by_ref().step_by(2).collect();
        let end = names.last().expect("at least one part");
        assert!(["", "/"].contains(end), "{tag:?}");
        for attribute in &names[..names.len() - 1] {
            let name = attribute.strip_prefix(' ').and_then(|name| name.strip_suffix('=')).unwrap_or("on");
            assert!(!name.starts_with("on") && !name.contains([' ', '\'', '=']), "{tag:?}");
        }
        if end.is_empty() {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

/// Holds that all characters are allowed in XML, and entities are whole.
fn plain(text: &str) {
    let is_bad = |c: char| (c.is_control() && c != '\n') || ['\u{fffe}', '\u{ffff}', '\u{202e}'].contains(&c);
    assert!(!text.chars().any(is_bad), "{text:?}");
    for rest in text.split('&').skip(1) {
        let entities = ["amp;", "lt;", "gt;", "quot;", "#39;"];
        assert!(entities.iter().any(|entity| rest.starts_with(entity)), "&{rest:.20}");
    }
}
