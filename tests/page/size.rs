//! Long traces.

use serde_json::Value;

use crate::browser::run;
use crate::build::{Span, internal, process, send, server};
use crate::page;

/// Returns a request that sends this many messages, each processed with one step.
fn fan_out(messages: u64) -> Vec<Span> {
    let mut spans = vec![server("api", 1, "POST /import", (0, messages * 100))];
    for message in 0..messages {
        let (id, at) = (2 + 3 * message, message * 90);
        spans.push(send("api", id, "rows", (at, at + 20)).child_of(1));
        spans.push(process("worker", id + 1, "rows", id, (at + 500, at + 900)).queued(0.000_48));
        spans.push(internal("worker", id + 2, "store row", (at + 600, at + 800)).child_of(id + 1));
    }
    spans
}

/// Returns this many spans, each the child of the one before.
fn chain(spans: u64) -> Vec<Span> {
    let first = vec![server("api", 1, "deep", (0, 1_000_000))];
    let rest = (2..=spans).map(|id| internal("api", id, "deeper", (id, 1_000_000 - id)).child_of(id - 1));
    first.into_iter().chain(rest).collect()
}

/// Uses the page in every way, and measures the times. Reading a row's position forces the browser
/// to lay out the page.
const USE: &str = r"
    const times = {};
    const timed = (what, does) => {
        const before = performance.now();
        does();
        row().getBoundingClientRect();
        times[what] = performance.now() - before;
    };
    times.opened = performance.now();
    timed('moves', () => { for (let i = 0; i < 50; i++) { press('ArrowDown'); row().getBoundingClientRect(); } });
    timed('end', () => press('End'));
    timed('fold', () => press('e'));
    timed('unfold', () => press('e'));
    timed('zoom', () => press('+'));
    timed('search', () => {
        const field = document.querySelector('#search');
        field.value = 'deeper';
        field.dispatchEvent(new Event('input'));
    });
    return { rows: rows().length, times };";

/// Asserts a maximum number of milliseconds for each use, on two busy processors without
/// acceleration. A tenth is usual.
fn is_usable(seen: &Value, rows: usize) {
    assert_eq!(seen["rows"], rows);
    let times = seen["times"].as_object().unwrap();
    for (what, limit) in [
        ("opened", 10_000.0),
        ("moves", 5_000.0),
        ("end", 2_000.0),
        ("fold", 2_000.0),
        ("unfold", 2_000.0),
        ("zoom", 2_000.0),
        ("search", 2_000.0),
    ] {
        assert!(times[what].as_f64().unwrap() < limit, "{what} takes too long: {times:?}");
    }
    println!("{times:?}");
}

#[test]
fn five_thousand_spans_stay_usable() {
    let spans = fan_out(1_666);
    // One additional row for each message: its wait.
    is_usable(&run(&page(&spans), USE), spans.len() + 1_666);
}

#[test]
fn five_thousand_levels_stay_usable() {
    is_usable(&run(&page(&chain(5_000)), USE), 5_000);
}
