//! The test suite: each test has its own service, and all tests run in parallel.
//!
//! While the clock is paused, the seconds between attempts take no time.

use std::time::Duration;

use traced_broker::Settlement::{Acknowledged, Rejected, Retried};
use traced_broker::testing::TestBed;
use traced_broker::{Message, TracedBroker as _};

use crate::bank::Bank;
use crate::service::{Order, Service};

/// Starts the service on its own broker.
async fn bed() -> TestBed {
    let bed = TestBed::new();
    Service::start(&bed.broker("biller"), &bed.broker("mailer"), Bank::default()).await.unwrap();
    bed
}

/// Sends an order, and waits until all work is done.
async fn order(bed: &TestBed, id: &str, card: &str) {
    let order = Order { id: id.to_owned(), card: card.to_owned() };
    let message = Message::json(&order).unwrap().key(id);
    let shop = bed.broker("shop");
    bed.in_root_span("shop", format!("POST /orders/{id}"), shop.publish("orders", message)).await.unwrap();
    bed.settled().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_order_is_one_trace_from_the_shop_to_the_mail() {
    let bed = bed().await;
    order(&bed, "A-1", "4242").await;
    bed.trace("POST /orders/A-1")
        .assert_whole()
        .hops(["orders", "invoices"])
        .services(["shop", "biller", "mailer"])
        .queued_at_most("orders", Duration::from_secs(1))
        .not_dead_lettered();
}

#[tokio::test(start_paused = true)]
async fn a_busy_bank_is_asked_again_in_the_same_trace() {
    let bed = bed().await;
    order(&bed, "A-2", "busy-2").await;
    bed.trace("POST /orders/A-2")
        .assert_whole()
        .hops(["orders", "invoices"])
        .attempts("orders", 3)
        .outcomes("orders", [Retried, Retried, Acknowledged])
        .not_dead_lettered();
}

#[tokio::test(start_paused = true)]
async fn a_declined_card_is_not_asked_for_again() {
    let bed = bed().await;
    order(&bed, "A-3", "declined").await;
    bed.trace("POST /orders/A-3")
        .assert_whole()
        .hops(["orders"])
        .outcomes("orders", [Rejected])
        .errors("orders", ["handler_error"])
        .dead_lettered("orders.dead");
    assert_eq!(bed.messages("orders.dead").len(), 1);
    assert!(bed.messages("invoices").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_bank_that_stays_busy_is_given_up() {
    let bed = bed().await;
    order(&bed, "A-4", "busy-99").await;
    bed.trace("POST /orders/A-4")
        .assert_whole()
        .attempts("orders", 3)
        .outcomes("orders", [Retried, Retried, Rejected])
        .dead_lettered("orders.dead");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_order_is_a_dead_letter_that_says_why() {
    let bed = bed().await;
    let shop = bed.broker("shop");
    bed.in_root_span("shop", "POST /orders", shop.publish("orders", Message::new("no JSON"))).await.unwrap();
    bed.settled().await.unwrap();
    bed.trace("POST /orders").assert_whole().errors("orders", ["invalid_message"]).dead_lettered("orders.dead");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_orders_are_a_hundred_whole_traces() {
    let bed = bed().await;
    for number in 0..100 {
        let card = ["4242", "busy-1", "declined"][number % 3];
        order(&bed, &format!("B-{number}"), card).await;
    }
    bed.capture().assert_whole();
    assert_eq!(bed.capture().traces().len(), 100);
}
