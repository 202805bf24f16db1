//! The waterfall, compared with reviewed pictures.
//!
//! After an intended change, rewrite them with `UPDATE_SNAPSHOTS=1 cargo test --test verify` and
//! look at them.

use std::path::Path;

use serde_json::json;
use traced_broker::verify::{Trace, Traces, Waterfall, check};

use crate::build::{Span, internal, process, send, server, traces, with, without};
use crate::scenes::{batch, dead_lettered, job, order, retried, unicode};

#[track_caller]
fn compare(name: &str, picture: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify/pictures").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, format!("{picture}\n")).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(picture, kept.trim_end_matches('\n'), "{} differs; now it is\n{picture}", path.display());
}

/// Draws all traces of a scene, one below the other, each with its findings.
fn picture(spans: &[Span], style: impl Fn(Waterfall<'_>) -> Waterfall<'_>) -> String {
    let traces = traces(spans);
    let report = check(&traces);
    let one = |trace: &Trace| style(Waterfall::new(trace).within(&traces).report(&report)).to_string();
    traces.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

/// Returns an order with every defect that a picture can show.
fn broken() -> Vec<Span> {
    let open = order().swap_remove(6).set("endTimeUnixNano", json!("0")).links(99);
    let spans = with(without(order(), 2), open);
    let spans = with(spans, process("fulfillment-worker", 3, "orders", 2, (14_100, 14_100)).queued(0.0123));
    with(spans, internal("fulfillment-worker", 4, "reserve stock", (18_300, 14_300)).child_of(3))
}

#[test]
fn an_order_at_three_widths() {
    for width in [80, 100, 140] {
        compare(&format!("order-{width}.txt"), &picture(&order(), |waterfall| waterfall.width(width)));
    }
}

#[test]
fn retries_with_the_wait_between_them() {
    for width in [80, 100, 140] {
        compare(&format!("retried-{width}.txt"), &picture(&retried(), |waterfall| waterfall.width(width)));
    }
}

#[test]
fn other_scenes() {
    let scenes = [
        ("dead-letter", dead_lettered()),
        ("job", [order(), job()].concat()),
        ("batch", batch()),
        ("unicode", unicode()),
        ("broken", broken()),
    ];
    for (name, spans) in scenes {
        for width in [80, 100] {
            compare(&format!("{name}-{width}.txt"), &picture(&spans, |waterfall| waterfall.width(width)));
        }
    }
}

#[test]
fn in_ascii() {
    for (name, spans) in [("job", [order(), job()].concat()), ("unicode", unicode())] {
        let picture = picture(&spans, |waterfall| waterfall.width(80).ascii(true));
        assert!(picture.is_ascii());
        compare(&format!("{name}-ascii-80.txt"), &picture);
    }
}

#[test]
fn colours_change_nothing_else() {
    for spans in [order(), retried(), dead_lettered(), unicode(), broken()] {
        let plain = picture(&spans, |waterfall| waterfall);
        let coloured = picture(&spans, |waterfall| waterfall.colour(true));
        let mut stripped = String::new();
        let mut parts = coloured.split('\u{1b}');
        stripped.push_str(parts.next().unwrap());
        for part in parts {
            stripped.push_str(part.split_once('m').unwrap().1);
        }
        assert_eq!(stripped, plain);
    }
    let coloured = picture(&retried(), |waterfall| waterfall.colour(true));
    let line = |text: &str| coloured.lines().find(|line| line.contains(text)).unwrap();
    assert!(line("in queue orders").contains("\u{1b}[33min queue orders"), "waiting is yellow");
    assert!(line("Unavailable").contains("\u{1b}[31m✗ Unavailable"), "errors are red");
    assert!(
        line("attempt 1").contains("\u{1b}[36m") || line("attempt 1").contains("\u{1b}[32m"),
        "services have colours"
    );
}

#[test]
fn without_other_traces_nothing_is_claimed_about_them() {
    let traces = traces(&job());
    let trace = traces.iter().next().unwrap();
    let alone = Waterfall::new(trace).to_string();
    assert!(alone.contains("↳ linked to 0000000000000003, trace 4bf92f3577b34da6a3ce929d0e0e4736"), "{alone}");
    let within = Waterfall::new(trace).within(&traces).to_string();
    assert!(within.contains("↳ linked to 0000000000000003, not exported, trace 4bf9"), "{within}");
}

#[test]
fn a_long_wait_before_the_trace_is_cut_not_squeezed() {
    let mut spans = vec![send("api", 2, "orders", (0, 100))];
    let later = process("worker", 3, "orders", 2, (3_600_000_000, 3_600_500_000)).set("parentSpanId", json!(""));
    spans.push(later.in_trace("0000000000000000000000000000abcd"));
    let picture = picture(&spans, |waterfall| waterfall);
    assert!(picture.contains("in queue orders  ~1h 00m  ‹\n"), "{picture}");
}

#[test]
fn a_long_trace_ends_with_what_is_left_out() {
    let mut spans = vec![server("api", 1, "GET /", (0, 5_000))];
    spans.extend((2..=1_000).map(|id| internal("api", id, "row", (id, id + 1)).child_of(id - 1)));
    let traces: Traces = traces(&spans);
    let trace = traces.iter().next().unwrap();
    let picture = Waterfall::new(trace).width(80).max_rows(20).to_string();
    assert!(picture.ends_with("\n980 more spans not shown"), "{picture}");
    assert_eq!(picture.lines().count(), 4 + 20 + 1);
    // Names are still visible deep in the tree.
    assert!(picture.lines().filter(|line| line.contains("└ row")).count() == 19, "{picture}");
}
