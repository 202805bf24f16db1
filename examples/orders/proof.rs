//! Proof that the verdict notices: real runs whose exported spans, or books, are tampered with afterwards.

use axum::body::Bytes;
use serde_json::Value;
use traced_broker::verify::{Traces, otlp};

use crate::books::Books;
use crate::client;
use crate::shop::{Plan, Shop};
use crate::telemetry::Telemetry;
use crate::verdict::Verdict;

const PLAIN: &str = "ORD-48211";
const FLAKY: &str = "ORD-48252";
const HOPELESS: &str = "ORD-48313";

/// What a run left behind.
struct Remains {
    books: Books,
    /// Export requests, as they are in the file.
    requests: Vec<Value>,
}

/// Runs the whole system over a plain order, one that is retried, one that is dead-lettered and one that is refused.
async fn run(broker: &str) -> Remains {
    let orders = include_bytes!("orders.jsonl").split(|byte| *byte == b'\n').enumerate();
    let wanted = |line: &[u8]| {
        [PLAIN, FLAKY, HOPELESS].iter().any(|id| line.starts_with(format!("{{\"id\":\"{id}\"").as_bytes()))
    };
    let mut orders: Vec<_> =
        orders.filter(|(_, line)| wanted(line)).map(|(index, line)| (index + 1, Bytes::from_static(line))).collect();
    orders.push((0, Bytes::from_static(b"{}")));
    assert_eq!(orders.len(), 4);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spans.jsonl");
    let mut telemetry = Telemetry::new(Some(&path), None, None).unwrap();
    let shop = Shop::open(&Plan::whole(broker), &mut telemetry).await.unwrap();
    let posted = client::post_all(shop.address().unwrap(), orders, shop.ledger()).await.unwrap();
    assert_eq!((posted.refused.len(), posted.failed.len()), (1, 0), "{posted:?}");
    let books = shop.close().await;
    telemetry.shut_down().await.unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    Remains { books, requests: text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() }
}

impl Remains {
    fn verdict(&self) -> Verdict {
        Verdict::reach(&self.books, &traces(&self.requests))
    }

    /// The verdict once the spans have been gone through, keeping those for which `keep` says so.
    fn verdict_with(&self, mut keep: impl FnMut(&mut Value) -> bool) -> Verdict {
        let mut requests = self.requests.clone();
        let mut touched = 0;
        for spans in requests.iter_mut().flat_map(span_lists) {
            let before = spans.clone();
            spans.retain_mut(&mut keep);
            touched += usize::from(*spans != before);
        }
        assert!(touched > 0, "nothing was tampered with");
        Verdict::reach(&self.books, &traces(&requests))
    }

    fn trace_of(&self, order: &str) -> String {
        self.books.accounts[order].trace_id.to_string()
    }
}

fn traces(requests: &[Value]) -> Traces {
    let text: String = requests.iter().map(|request| format!("{request}\n")).collect();
    otlp::read(text.as_bytes()).unwrap()
}

fn span_lists(request: &mut Value) -> impl Iterator<Item = &mut Vec<Value>> {
    let resources = request["resourceSpans"].as_array_mut().unwrap().iter_mut();
    let scopes = resources.flat_map(|resource| resource["scopeSpans"].as_array_mut().unwrap());
    scopes.map(|scope| scope["spans"].as_array_mut().unwrap())
}

#[track_caller]
fn assert_broken(verdict: &Verdict, why: &str) {
    assert!(!verdict.holds(), "{why}: not noticed");
    assert!(!verdict.broken.is_empty(), "{why}: {:?}", verdict.problems);
}

#[tokio::test]
async fn an_untouched_run_holds() {
    let remains = run("memory://untouched").await;
    let verdict = remains.verdict();
    assert!(verdict.holds(), "{:#?}", verdict.problems);
    // Three orders, the refused one, the job.
    assert_eq!((verdict.traces, verdict.broken.len(), verdict.unaccounted), (5, 0, 0));
    let tally = remains.books.tally;
    assert_eq!((tally.accepted, tally.refused, tally.fulfilled, tally.notified), (3, 1, 2, 2));
    assert_eq!((tally.retried, tally.dead_lettered, tally.settled), (2, 1, 3));
    assert_eq!(remains.books.accounts[FLAKY].attempts, 3);
    assert_eq!(remains.books.accounts[HOPELESS].attempts, 4);
}

#[tokio::test]
async fn a_span_that_is_missing_is_noticed() {
    let remains = run("memory://missing-spans").await;
    for name in [
        "POST /orders",
        "send orders",
        "process orders",
        "send notifications",
        "process notifications",
        "send orders.dead",
        "process orders.dead",
        "enqueue daily.reconciliation",
    ] {
        assert_broken(&remains.verdict_with(|span| span["name"] != name), name);
    }
    let job = ["job daily.reconciliation", "compare books"];
    let verdict = remains.verdict_with(|span| job.iter().all(|name| span["name"] != *name));
    assert!(!verdict.holds(), "the job's whole trace");
}

#[tokio::test]
async fn a_missing_attempt_is_noticed_though_nothing_hangs_in_the_air() {
    let remains = run("memory://missing-attempt").await;
    let trace = remains.trace_of(FLAKY);
    let is_first = |span: &Value| {
        let attributes = span["attributes"].as_array().unwrap();
        let attempt = attributes.iter().find(|attribute| attribute["key"] == "traced_broker.delivery.attempt");
        span["traceId"] == trace && attempt.is_some_and(|attempt| attempt["value"]["intValue"] == "1")
    };
    let mut first = None;
    for request in remains.requests.clone().iter_mut() {
        for span in span_lists(request).flatten().filter(|span| is_first(span) && span["name"] == "process orders") {
            first = Some(span["spanId"].clone());
        }
    }
    let first = first.unwrap();
    let verdict = remains.verdict_with(|span| span["spanId"] != first && span["parentSpanId"] != first);
    assert_broken(&verdict, "the first of three attempts");
    assert!(verdict.problems[0].contains("3 attempts, but 2 spans"), "{:?}", verdict.problems);
}

#[tokio::test]
async fn a_whole_trace_that_is_missing_is_noticed() {
    let remains = run("memory://missing-trace").await;
    let trace = remains.trace_of(PLAIN);
    // The job links the first order, which need not be this one.
    let verdict = remains.verdict_with(|span| span["traceId"] != trace);
    assert_broken(&verdict, "a trace of which nothing was exported");
    assert_eq!(verdict.traces, 5);
}

#[tokio::test]
async fn a_hop_that_is_torn_is_noticed() {
    let remains = run("memory://torn-hops").await;
    for name in ["process orders", "process notifications", "process orders.dead", "send orders.dead"] {
        let verdict = remains.verdict_with(|span| {
            if span["name"] == name {
                span["links"] = Value::Array(Vec::new());
            }
            true
        });
        assert_broken(&verdict, &format!("no links on {name}"));
    }
    for name in ["send orders", "process orders", "send notifications", "process notifications", "process orders.dead"]
    {
        let verdict = remains.verdict_with(|span| {
            if span["name"] == name {
                span["parentSpanId"] = Value::from("");
            }
            true
        });
        assert_broken(&verdict, &format!("no parent on {name}"));
        let verdict = remains.verdict_with(|span| {
            if span["name"] == name {
                span["traceId"] = Value::from("0123456789abcdef0123456789abcdef");
            }
            true
        });
        assert_broken(&verdict, &format!("another trace id on {name}"));
    }
    let verdict = remains.verdict_with(|span| {
        if span["name"] == "job daily.reconciliation" {
            span["links"] = Value::Array(Vec::new());
        }
        true
    });
    assert_broken(&verdict, "no link on the job");
}

#[tokio::test]
async fn an_order_whose_end_is_unknown_is_noticed() {
    let remains = run("memory://unknown-ends").await;
    for (order, forget) in [
        (PLAIN, (|account| account.fulfilled = false) as fn(&mut crate::ledger::Account)),
        (PLAIN, |account| account.notified = false),
        (HOPELESS, |account| account.dead_lettered = false),
    ] {
        let mut books = remains.books.clone();
        forget(books.accounts.get_mut(order).unwrap());
        let verdict = Verdict::reach(&books, &traces(&remains.requests));
        assert!(!verdict.holds());
        assert_eq!((verdict.unaccounted, verdict.broken.len()), (1, 0), "{:?}", verdict.problems);
    }
    let mut books = remains.books.clone();
    books.tally.failed = 1;
    assert!(!Verdict::reach(&books, &traces(&remains.requests)).holds());
}

#[tokio::test]
async fn only_a_callers_own_span_may_be_missing() {
    let mut remains = run("memory://callers").await;
    let trace = remains.trace_of(PLAIN);
    let called = |span: &mut Value| {
        if span["traceId"] == trace && span["name"] == "POST /orders" {
            span["parentSpanId"] = Value::from("00f067aa0ba902b7");
        }
        true
    };
    assert_broken(&remains.verdict_with(called), "a parent that nobody exported");
    let refused = |span: &mut Value| {
        let known = remains.books.accounts.values().any(|account| span["traceId"] == account.trace_id.to_string());
        if !known && span["name"] == "POST /orders" {
            span["parentSpanId"] = Value::from("00f067aa0ba902b7");
        }
        true
    };
    assert_broken(&remains.verdict_with(refused), "the same for an order that was refused");
    remains.books.callers.insert(trace.parse().unwrap());
    assert!(remains.verdict_with(called).holds());
    assert_broken(&remains.verdict_with(|span| span["name"] != "send orders"), "a span of ours in a caller's trace");
}
