//! Proof that the verdict notices: the spans or books of a real run are tampered with.

use axum::body::Bytes;
use clap::Parser as _;
use traced_broker::verify::{Span, SpanId, TraceId, Traces};

use crate::args::Args;
use crate::client;
use crate::ledger::{Account, Books};
use crate::shop::Shop;
use crate::telemetry::Telemetry;
use crate::verdict::Verdict;

const PLAIN: &str = "ORD-48211";
const FLAKY: &str = "ORD-48252";
const HOPELESS: &str = "ORD-48313";

/// The books and spans of a run.
struct Evidence {
    books: Books,
    traces: Traces,
}

/// Runs the system over an order that is plain, one that is retried, one that is dead-lettered and
/// one that is refused.
async fn run(broker: &str) -> Evidence {
    let args = Args::parse_from(["orders", "--broker", broker]);
    let wanted = |line: &[u8]| [PLAIN, FLAKY, HOPELESS].iter().any(|id| line[7..].starts_with(id.as_bytes()));
    let mut orders: Vec<_> = args.orders().unwrap().into_iter().filter(|(_, line)| wanted(line)).collect();
    orders.push((0, Bytes::from_static(b"{}")));

    let mut telemetry = Telemetry::new(&args).unwrap();
    let shop = Shop::open(&args, &mut telemetry).await.unwrap();
    let refused = client::post_all(shop.address.unwrap(), orders, &shop.run.ledger).await.unwrap();
    assert_eq!(refused.len(), 1, "{refused:?}");
    let books = shop.close().await;
    Evidence { books, traces: telemetry.shut_down().await.unwrap().traces }
}

impl Evidence {
    /// Returns the verdict after a change of the spans; those with the result `false` are removed.
    fn with(&self, mut tamper: impl FnMut(&mut Span) -> bool) -> Verdict {
        let before: Vec<Span> = self.traces.iter().flat_map(|trace| trace.spans()).cloned().collect();
        let mut after = before.clone();
        after.retain_mut(|span| tamper(span));
        assert_ne!(before, after, "no span was changed");
        Verdict::reach(&self.books, &after.into_iter().collect())
    }

    /// Returns the first span of this name in the trace of an order.
    fn first(&self, order: &str, name: &str) -> &Span {
        let trace = self.traces.get(self.books.accounts[order].request.unwrap().trace_id).unwrap();
        trace.spans().iter().find(|span| span.name == name).unwrap()
    }
}

#[tokio::test]
async fn an_untouched_run_holds() {
    let Evidence { books, traces } = run("memory://untouched").await;
    let verdict = Verdict::reach(&books, &traces);
    assert!(verdict.problems.is_empty(), "{:#?}", verdict.problems);
    // Three orders, the refused one, the job.
    assert_eq!((verdict.traces, verdict.broken.len(), verdict.unaccounted), (5, 0, 0));
    assert_eq!((books.accounts[FLAKY].attempts, books.accounts[HOPELESS].attempts), (3, 4));
}

#[tokio::test]
async fn every_break_is_noticed() {
    let run = run("memory://breaks").await;
    let remove: fn(&mut Span) -> bool = |_| false;
    let unlink: fn(&mut Span) -> bool = |span| {
        span.links.clear();
        true
    };
    let orphan: fn(&mut Span) -> bool = |span| {
        span.parent = None;
        true
    };
    let stray: fn(&mut Span) -> bool = |span| {
        span.trace_id = TraceId::new(7);
        true
    };
    for (name, tears) in [
        ("POST /orders", &[remove, stray][..]),
        ("send orders", &[remove, orphan, stray]),
        ("process orders", &[remove, unlink, orphan, stray]),
        ("send notifications", &[remove, orphan, stray]),
        ("process notifications", &[remove, unlink, orphan, stray]),
        ("send orders.dead", &[remove, unlink, orphan, stray]),
        ("process orders.dead", &[remove, unlink, orphan, stray]),
        ("enqueue daily.reconciliation", &[remove]),
        ("job daily.reconciliation", &[remove, unlink]),
    ] {
        for (index, tear) in tears.iter().enumerate() {
            let verdict = run.with(|span| span.name != name || tear(span));
            assert!(!verdict.broken.is_empty() && !verdict.problems.is_empty(), "{name}, tear {index}");
        }
    }
    let job = |span: &Span| span.name == "job daily.reconciliation" || span.name == "compare books";
    assert_eq!(run.with(|span| !job(span)).problems.len(), 1, "the whole trace of the job");
    let plain = run.first(PLAIN, "POST /orders").trace_id;
    assert!(!run.with(|span| span.trace_id != plain).broken.is_empty(), "a whole trace");
    // The first of three attempts, with all that it did.
    let first = run.first(FLAKY, "process orders").span_id;
    let verdict = run.with(|span| span.span_id != first && span.parent != Some(first));
    assert!(verdict.problems[0].contains("3 attempts, but 2 spans"), "{:?}", verdict.problems);
}

#[tokio::test]
async fn orders_without_an_end_are_noticed() {
    let Evidence { books, traces } = run("memory://ends").await;
    let forget: [(&str, fn(&mut Account)); 3] = [
        (PLAIN, |account| account.fulfilled = false),
        (PLAIN, |account| account.notified = false),
        (HOPELESS, |account| account.dead_lettered = false),
    ];
    for (order, forget) in forget {
        let mut books = books.clone();
        forget(books.accounts.get_mut(order).unwrap());
        let verdict = Verdict::reach(&books, &traces);
        assert_eq!((verdict.unaccounted, verdict.broken.len()), (1, 0), "{:?}", verdict.problems);
        assert!(!verdict.problems.is_empty());
    }
    let failed = Books { failed: 1, ..books };
    assert!(!Verdict::reach(&failed, &traces).problems.is_empty());
}

#[tokio::test]
async fn only_a_callers_span_may_be_missing() {
    let mut run = run("memory://callers").await;
    let request = run.first(PLAIN, "POST /orders").clone();
    let called = |span: &mut Span| {
        if span.span_id == request.span_id {
            span.parent = Some(SpanId::new(7));
        }
        true
    };
    assert!(!run.with(called).problems.is_empty(), "a parent that was not exported");
    run.books.callers.insert(request.trace_id);
    assert!(run.with(called).problems.is_empty());
    let verdict = run.with(|span| span.name != "send orders");
    assert!(!verdict.problems.is_empty(), "a span of ours in the trace of a caller");
}
