//! The scenes of the guide, one picture each.

use std::time::Duration;

use traced_broker::propagation::TrustBoundary;
use traced_broker::testing::TestBed;
use traced_broker::verify::FindingKind;
use traced_broker::{
    HandlerError, Job, Message, Received, Start, Subscription, TracePolicy, TraceReference, TracedBroker,
    TracedBrokerExt,
};

use crate::picture::{hold, hold_broken};
use crate::shop::{consumer, orders, reader, request, shipments, work, worker};

#[tokio::test]
async fn one_order_is_one_trace() {
    let bed = TestBed::new();
    request(&bed, "POST /orders", "orders", Message::new("plain")).await;
    reader(&bed, "desk", shipments()).await;
    worker(&bed, orders()).await;
    bed.settled().await.unwrap();
    bed.trace("POST /orders").hops(["orders", "shipments"]);
    hold(&bed, "parent", "Parent: one trace from the request to the last consumer");
}

#[tokio::test]
async fn a_link_begins_a_trace_of_its_own() {
    let bed = TestBed::new();
    request(&bed, "POST /orders", "orders", Message::new("plain")).await;
    reader(&bed, "desk", shipments()).await;
    worker(&bed, orders().trace_policy(TracePolicy::Link)).await;
    bed.settled().await.unwrap();
    bed.trace("POST /orders").hops([]).follow("process orders").hops(["orders", "shipments"]);
    hold(&bed, "link", "Link: processing is a trace of its own that points back");
}

#[tokio::test]
async fn what_ignores_the_context_is_broken() {
    let bed = TestBed::new().without_reader("shipments");
    request(&bed, "POST /orders", "orders", Message::new("plain")).await;
    worker(&bed, orders().trace_policy(TracePolicy::Ignore)).await;
    bed.settled().await.unwrap();
    let report = hold_broken(&bed, "broken", "Broken: nothing ties the two halves together");
    assert_eq!(report.findings().iter().map(|finding| finding.kind).collect::<Vec<_>>(), [FindingKind::NoContext]);
}

#[tokio::test]
async fn a_retry_is_a_span_of_the_same_trace() {
    let bed = TestBed::new().without_reader("shipments");
    worker(&bed, orders()).await;
    request(&bed, "POST /orders", "orders", Message::new("flaky")).await;
    bed.settled().await.unwrap();
    bed.trace("POST /orders").hops(["orders"]).attempts("orders", 2);
    hold(&bed, "retry", "A retry: the first attempt fails, the second succeeds");
}

#[tokio::test]
async fn a_dead_letter_carries_the_context_of_its_message() {
    let bed = TestBed::new();
    worker(&bed, orders()).await;
    request(&bed, "POST /orders", "orders", Message::new("hopeless")).await;
    bed.settled().await.unwrap();
    reader(&bed, "dead-letter-desk", Subscription::new("orders.dead").group("desks")).await;
    bed.settled().await.unwrap();
    bed.trace("POST /orders").attempts("orders", 3).dead_lettered("orders.dead");
    hold(&bed, "dead-letter", "A dead letter: given up after three attempts, read by somebody else");
}

#[tokio::test]
async fn a_delayed_message_is_linked() {
    let bed = TestBed::new();
    reader(&bed, "reminder", Subscription::new("reminders").group("reminders")).await;
    let api = bed.broker("api");
    let handle = async {
        work(1).await;
        // Created here because its delay counts from now on, and a machine may be busy.
        let reminder = Message::new("your order").delay(Duration::from_millis(60));
        api.publish("reminders", reminder).await.unwrap();
        work(1).await;
    };
    bed.in_root_span("api", "POST /orders", handle).await;
    bed.settled().await.unwrap();
    bed.trace("POST /orders").hops([]).linked("process reminders");
    hold(&bed, "delayed", "A delayed message: the work begins a trace of its own");
}

#[tokio::test]
async fn a_job_links_those_who_asked_for_it() {
    let bed = TestBed::new();
    let mut column = Vec::new();
    for name in ["POST /reports/north", "POST /reports/south"] {
        let asked = async {
            work(2).await;
            TraceReference::current().unwrap().to_string()
        };
        column.push(bed.in_root_span("api", name, asked).await);
    }
    work(3).await;
    let references = column.iter().map(|reference| reference.parse().unwrap());
    let report = Job::new("nightly report").trigger("schedule").references(references);
    // Runs without a message or a request: only the stored references tie it to the traces above.
    let report = report.with_tracer_provider(&bed.capture().provider("reporter"));
    let write = async {
        work(3).await;
        Ok::<_, HandlerError>(())
    };
    report.run(write).await.unwrap();
    hold(&bed, "job", "A job: begun by the clock, linked to those who asked for it");
}

#[tokio::test]
async fn a_batch_links_every_message() {
    let bed = TestBed::new();
    for _ in 0..3 {
        request(&bed, "POST /rows", "rows", Message::new("row")).await;
    }
    let loader = bed.broker("loader");
    let load = async |_: Vec<Received>| {
        work(3).await;
        Ok::<_, HandlerError>(Vec::new())
    };
    tokio::select! {
        _ = loader.consume_batch(Subscription::new("rows").group("loaders"), load).size(3).run() => unreachable!(),
        settled = bed.settled() => settled.unwrap(),
    }
    hold(&bed, "batch", "A batch: one processing, three senders");
}

#[tokio::test]
async fn messages_that_are_published_together_have_a_context_each() {
    let bed = TestBed::new();
    let api = bed.broker("api");
    let rows = vec![Message::new("1"), Message::new("2")];
    let publish = async {
        work(1).await;
        api.publish_batch("rows", rows).await.into_iter().for_each(|result| drop(result.unwrap()));
    };
    bed.in_root_span("api", "POST /upload", publish).await;
    reader(&bed, "loader", Subscription::new("rows").group("loaders")).await;
    bed.settled().await.unwrap();
    hold(&bed, "publish-batch", "Published together: each message has a context of its own");
}

#[tokio::test]
async fn a_replay_is_linked() {
    let bed = TestBed::new();
    let audit = Subscription::new("orders").group("audit");
    let broker = bed.broker("audit");
    let read = |_: Received| async {
        work(2).await;
        Ok::<_, HandlerError>(())
    };
    let consumer = broker.consume(audit.clone(), read).subscribed().await.unwrap();
    tokio::spawn(consumer.run());
    request(&bed, "POST /orders", "orders", Message::new("plain")).await;
    bed.settled().await.unwrap();
    work(5).await;
    broker.reposition(&audit, Start::Earliest).await.unwrap();
    bed.settled().await.unwrap();
    bed.trace("POST /orders").hops(["orders"]).linked("process orders");
    hold(&bed, "replay", "A replay: what is done again points back and does not join in");
}

#[tokio::test]
async fn a_trust_boundary_links_what_comes_from_outside() {
    let bed = TestBed::new();
    let partner = bed.broker("partner");
    let handle = async {
        work(1).await;
        partner.publish("partners.orders", Message::new("plain")).await.unwrap();
    };
    bed.in_root_span("partner", "checkout", handle).await;
    work(2).await;
    let broker = bed.broker("intake");
    let accept = move |_: Received| {
        let broker = broker.clone();
        async move {
            work(2).await;
            broker.publish("orders", Message::new("plain")).await?;
            Ok(())
        }
    };
    let inbound = Subscription::new("partners.orders").group("intake").trust_boundary(TrustBoundary::new());
    consumer(&bed, "intake", inbound, accept).await;
    reader(&bed, "worker", orders()).await;
    bed.settled().await.unwrap();
    bed.trace("process partners.orders").hops(["partners.orders", "orders"]).links_to("checkout");
    hold(&bed, "boundary", "A trust boundary: our trace begins at the line");
}
