//! Tests that run in parallel see only their own spans.

use std::collections::HashSet;
use std::sync::Arc;

use opentelemetry::global;
use opentelemetry::trace::Tracer;
use tokio::sync::Barrier;
use traced_broker::testing::{Capture, TestBed};
use traced_broker::verify::SpanRef;
use traced_broker::{HandlerError, Message, Received, Subscription, TracedBroker, TracedBrokerExt};

use crate::shop;

fn ids(capture: &Capture) -> HashSet<SpanRef> {
    capture.traces().iter().flat_map(|trace| trace.spans()).map(|span| span.reference()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beds_beside_each_other_share_nothing() {
    const BEDS: usize = 16;
    let together = Arc::new(Barrier::new(BEDS));
    let runs = (0..BEDS).map(|number| {
        let together = Arc::clone(&together);
        tokio::spawn(async move {
            let bed = TestBed::new();
            shop::open(&bed).await;
            // From here on all tests work at once, so that their spans are in flight together.
            together.wait().await;
            for _ in 0..=number {
                shop::order(&bed, "plain").await;
            }
            shop::order(&bed, "flaky").await;
            bed.settled().await.unwrap();
            assert_eq!(bed.capture().traces_named("POST /orders").len(), number + 2);
            assert_eq!(bed.capture().traces().len(), number + 2, "no trace but those");
            assert_eq!(bed.messages("orders").len(), number + 2);
            bed.capture().assert_whole();
            bed
        })
    });
    let mut seen = HashSet::new();
    for run in futures_util::future::join_all(runs).await {
        let own = ids(run.unwrap().capture());
        assert!(own.iter().all(|id| seen.insert(*id)), "a span is in one capture only");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn global_tracers_beside_each_other_reach_their_own_capture() {
    const CAPTURES: usize = 16;
    let together = Arc::new(Barrier::new(CAPTURES));
    let runs = (0..CAPTURES).map(|number| {
        let together = Arc::clone(&together);
        tokio::spawn(async move {
            let capture = Capture::new();
            let name = format!("work {number}");
            for _ in 0..20 {
                together.wait().await;
                capture.scope(async { global::tracer("app").in_span(name.clone(), |_| ()) }).await;
            }
            let traces = capture.traces();
            assert_eq!(traces.len(), 20);
            assert!(traces.iter().all(|trace| trace.spans().len() == 1 && trace.spans()[0].name == name));
        })
    });
    for run in futures_util::future::join_all(runs).await {
        run.unwrap();
    }
}

#[tokio::test]
async fn a_bed_is_gone_with_its_test() {
    let url = {
        let bed = TestBed::new().without_reader("orders");
        shop::order(&bed, "plain").await;
        bed.settled().await.unwrap();
        assert_eq!(bed.messages("orders").len(), 1);
        bed.url()
    };
    let late = traced_broker::connect(&url).await.unwrap();
    let none = |_: Received| async { Err::<(), _>(HandlerError::reject("there is nothing to read")) };
    let soon = tokio::time::sleep(std::time::Duration::from_millis(20));
    let report = late.consume(Subscription::new("orders").group("late"), none).run_until(soon).await.unwrap();
    assert_eq!(report.attempts(), 0);
    late.publish("orders", Message::new("of no capture")).await.unwrap();
}
