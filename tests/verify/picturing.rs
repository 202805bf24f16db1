//! The picture for documents: well-formed, complete, to scale, and safe with any name.

use std::collections::BTreeSet;

use serde_json::json;
use traced_broker::verify::{Picture, Traces, check};

use crate::build::{JOB, Span, internal, process, send, server, span_id, traces};
use crate::markup::{Element, read};
use crate::scenes::{batch, dead_lettered, job, order, retried, unicode};

fn drawn(traces: &Traces) -> String {
    let report = check(traces);
    let mut all = traces.iter();
    let picture = Picture::new(all.next().unwrap()).within(traces).report(&report);
    all.fold(picture, Picture::and).to_string()
}

fn picture(spans: &[Span]) -> Vec<Element> {
    read(&drawn(&traces(spans))).unwrap()
}

fn classed<'e>(elements: &'e [Element], name: &str, class: &str) -> Vec<&'e Element> {
    elements.iter().filter(|element| element.name == name && element.has_class(class)).collect()
}

fn texts(elements: &[Element]) -> Vec<&str> {
    let shown = elements.iter().filter(|element| matches!(&*element.name, "text" | "tspan"));
    shown.map(|element| &*element.text).filter(|text| !text.is_empty()).collect()
}

fn left_right(element: &Element) -> (f64, f64) {
    (element.number("x"), element.number("x") + element.number("width"))
}

#[test]
fn every_span_is_there_with_its_parent_and_links() {
    for spans in [order(), retried(), dead_lettered(), batch(), unicode(), [order(), job()].concat()] {
        let elements = picture(&spans);
        let groups: Vec<&Element> = elements.iter().filter(|element| element.name == "g").collect();
        assert_eq!(groups.len(), spans.len());
        for span in &spans {
            let id = span.json["spanId"].as_str();
            let group = groups.iter().find(|group| group.get("data-id") == id).unwrap();
            assert_eq!(group.get("data-trace"), span.json["traceId"].as_str());
            assert_eq!(group.get("data-parent"), span.json["parentSpanId"].as_str());
            let links = span.json["links"].as_array().unwrap().iter();
            let links: Vec<String> = links
                .map(|link| format!("{}-{}", link["traceId"].as_str().unwrap(), link["spanId"].as_str().unwrap()))
                .collect();
            assert_eq!(group.get("data-links").unwrap(), links.join(" "));
        }
    }
}

#[test]
fn the_wait_in_the_queue_lies_between_send_and_process() {
    let elements = picture(&order());
    let waits = classed(&elements, "rect", "wait");
    assert_eq!(waits.len(), 2);
    // The axis has 48.2 ms; the first message waited 12.3 ms, up to 14.1 ms.
    let bars: Vec<(f64, f64)> = elements.iter().filter(|e| e.name == "rect" && e.depth == 2).map(left_right).collect();
    let (root, notification) = (bars[0], bars[5]);
    let scale = (notification.1 - root.0) / 48.2;
    let (left, right) = left_right(waits[0]);
    assert!((left - (root.0 + 1.8 * scale)).abs() < 0.2 && (right - (root.0 + 14.1 * scale)).abs() < 0.2);
    assert!((right - bars[2].0).abs() < 0.2, "it ends where processing begins");
    assert!((left - bars[1].1).abs() < 0.2, "and begins where the send ended");
    let texts = texts(&elements);
    for shown in ["in queue orders", "12.3 ms", "in queue notifications", "12.7 ms"] {
        assert!(texts.contains(&shown), "{shown} in {texts:?}");
    }
}

#[test]
fn links_are_arrows_but_for_those_to_the_parent() {
    let arrows = |spans: &[Span]| classed(&picture(spans), "path", "link").len();
    assert_eq!(arrows(&order()), 0, "each process span links its parent, and the tree shows that");
    assert_eq!(arrows(&dead_lettered()), 1);
    assert_eq!(arrows(&batch()), 8, "the send and the processing link each of four");
    assert_eq!(arrows(&[order(), job()].concat()), 1);
    // Visible arrows need no words; references that leave the picture do.
    let words = |traces: &Traces, picture: Picture<'_>| {
        let elements = read(&picture.within(traces).to_string()).unwrap();
        texts(&elements).iter().filter(|text| text.starts_with('↳') || text.starts_with('↰')).count()
    };
    let both = traces(&[order(), job()].concat());
    let [first, second] = [0, 1].map(|position| both.iter().nth(position).unwrap());
    assert_eq!(words(&both, Picture::new(first).and(second)), 0);
    assert_eq!(words(&both, Picture::new(first)), 1);
    assert_eq!(words(&both, Picture::new(second)), 1);
}

#[test]
fn failures_and_breaks_are_marked() {
    let elements = picture(&retried());
    assert_eq!(classed(&elements, "path", "cross").len(), 2);
    assert_eq!(classed(&elements, "rect", "again").len(), 2);
    assert_eq!(classed(&elements, "text", "good").len(), 1);
    assert!(texts(&elements).contains(&"✗ Unavailable: stock service timed out"));

    let open = order().swap_remove(6).set("endTimeUnixNano", json!("0")).links(99);
    let elements = picture(&crate::build::with(order(), open));
    assert_eq!(classed(&elements, "rect", "open").len(), 1);
    let texts = texts(&elements);
    for shown in ["✗ broken", "never ended", "✗ never finished", "✗ link target not exported"] {
        assert!(texts.contains(&shown), "{shown} in {texts:?}");
    }
    assert!(texts.iter().any(|text| text.starts_with("`process notifications` (notification-service) has no end")));
}

#[test]
fn it_can_be_read_without_being_seen() {
    let elements = picture(&retried());
    assert_eq!(elements[0].get("role"), Some("img"));
    let labels: Vec<&str> = elements[0].get("aria-labelledby").unwrap().split(' ').collect();
    let labelled: Vec<&Element> =
        labels.iter().map(|id| elements.iter().find(|element| element.get("id") == Some(id)).unwrap()).collect();
    assert_eq!((&*labelled[0].name, &*labelled[0].text), ("title", "POST /orders"));
    assert_eq!(&*labelled[1].name, "desc");
    let words = &labelled[1].text;
    assert!(words.starts_with("Trace of 6 spans, whole: POST /orders (order-api), 2.10 ms; "), "{words}");
    assert!(
        words.contains("retry of orders 50.0 ms; process orders (fulfillment-worker), attempt 2, 12.0 ms, failed; ")
    );
}

/// A viewer can display it from the file alone, in both colour schemes.
#[test]
fn it_needs_nothing_from_elsewhere_and_styles_all_it_uses() {
    let svg = drawn(&traces(&[order(), job()].concat()));
    let elements = read(&svg).unwrap();
    let style = &elements.iter().find(|element| element.name == "style").unwrap().text;
    assert!(style.contains("@media (prefers-color-scheme:dark)"));
    for element in &elements {
        assert!(element.name != "script" && element.name != "image" && element.name != "use", "{element:?}");
        for (name, value) in &element.attributes {
            assert!(!name.starts_with("on") && name != "href" && name != "style", "{element:?}");
            assert!(name == "xmlns" || !value.contains("://"), "{element:?}");
        }
        for class in element.get("class").unwrap_or_default().split(' ').filter(|class| !class.is_empty()) {
            let plain = ["traces", "plain"].contains(&class);
            assert!(
                plain || style.contains(&format!(".{class}{{")) || style.contains(&format!(".{class},")),
                "{class}"
            );
        }
    }
    let (light, dark) = style.split_once("@media").unwrap();
    let variables = |text: &str| -> BTreeSet<String> {
        text.split("--").skip(1).filter_map(|rest| rest.split_once(':')).map(|(name, _)| name.to_owned()).collect()
    };
    let (light, dark) = (variables(light), variables(dark.split_once("}}").unwrap().0));
    assert_eq!(light, dark, "each colour has its counterpart");
    for used in style.split("var(--").skip(1).map(|rest| rest.split_once(')').unwrap().0) {
        assert!(light.contains(used), "{used}");
    }
}

#[test]
fn a_name_is_text_whatever_it_holds() {
    const NAME: &str = "</text><script>alert('1')</script> & \"x\" ]]> &lt; \u{0}\u{1b}[31m\u{202e}\u{ffff}";
    let spans = [
        server("<svc onload=\"x\">", 1, NAME, (0, 2_000)).error("a<b>", "\"&'<\u{8}"),
        send("api", 2, NAME, (100, 900)).child_of(1).in_trace(crate::build::TRACE),
        process("worker", 3, NAME, 2, (1_000, 1_900)).unlinked(),
        internal("other", 4, NAME, (1_000, 1_900)).in_trace(JOB).links_to(JOB, 77, &[]),
    ];
    let traces = traces(&spans);
    let report = check(&traces);
    let svg = Picture::new(traces.iter().next().unwrap()).within(&traces).report(&report).title(NAME).to_string();
    let elements = read(&svg).unwrap();
    let group = elements.iter().find(|element| element.get("data-id") == Some(&span_id(1))).unwrap();
    let shown = "</text><script>alert('1')</script> & \"x\" ]]> &lt; \u{fffd}\u{fffd}[31m\u{fffd}";
    assert_eq!(group.get("data-span"), Some(shown));
    assert_eq!(group.get("data-service"), Some("<svc onload=\"x\">"));
    assert_eq!(elements.iter().find(|element| element.name == "title").unwrap().text, shown);
    assert!(elements.iter().all(|element| element.name != "script"));
}

#[test]
fn a_long_trace_ends_with_what_is_left_out() {
    let mut spans = vec![server("api", 1, "GET /", (0, 5_000))];
    spans.extend((2..=1_000).map(|id| internal("api", id, "row", (id, id + 1)).child_of(id - 1)));
    let traces = traces(&spans);
    let svg = Picture::new(traces.iter().next().unwrap()).max_rows(20).to_string();
    let elements = read(&svg).unwrap();
    assert_eq!(elements.iter().filter(|element| element.name == "g").count(), 20);
    assert!(texts(&elements).contains(&"980 more spans not shown"));
    assert!(texts(&elements).iter().filter(|text| **text == "row").count() == 19, "deep names are still there");
}
