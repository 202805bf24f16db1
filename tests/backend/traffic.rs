//! Orders to send, and a run of the order system over them.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use traced_broker::verify;

use crate::support::orders::Running;
use crate::tier::{ByTrace, by_trace};

/// The order system's services, each with its own exporter.
pub(crate) const SERVICES: [&str; 5] =
    ["order-api", "fulfillment-worker", "notification-service", "dead-letter-desk", "reconciliation-job"];

/// An article that no warehouse has: the order is tried four times, then dead-lettered.
const GONE: &str = "SAMOVAR-TULA-5L";
/// A carrier that answers the third request.
const FLAKY: &str = "flaky-express";

static NUMBER: AtomicUsize = AtomicUsize::new(1);

/// Returns orders that succeed, each of a different customer.
pub(crate) fn plain(count: usize) -> Vec<Value> {
    (0..count).map(|_| order()).collect()
}

/// Returns orders that fail at first, or for good.
pub(crate) fn failing(count: usize) -> Vec<Value> {
    let fail = |index: usize| {
        let mut order = order();
        match index % 2 {
            0 => order["carrier"] = json!(FLAKY),
            _ => order["items"][0]["sku"] = json!(GONE),
        }
        order
    };
    (0..count).map(fail).collect()
}

/// Returns orders of one customer with fifty items each, which take a tenth of a second. Each waits
/// for the one before it, and so is queued that much longer.
pub(crate) fn waiting(count: usize) -> Vec<Value> {
    let customer = order()["customer"].take();
    let item = json!({ "sku": "TEA-SENCHA-100", "quantity": 1, "unit_price_minor": 1180 });
    let wait = |_| {
        let mut order = order();
        order["customer"] = customer.clone();
        order["items"] = vec![item.clone(); 50].into();
        order
    };
    (0..count).map(wait).collect()
}

fn order() -> Value {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    json!({
        "id": format!("ORD-{number}"), "placed_at": "2026-11-23T08:00:00Z", "currency": "EUR", "carrier": "dhl",
        "customer": { "id": format!("C-{number}"), "name": "Ada", "email": "ada@example.org" },
        "items": [{ "sku": "TEA-SENCHA-100", "quantity": 2, "unit_price_minor": 1180 }],
        "ship_to": { "street": "Hauptstraße 1", "city": "Ulm", "postal_code": "89073", "country": "DE" },
    })
}

/// Runs the order system over these orders, with its spans sent to the Collector at this endpoint.
/// Returns all exported spans of its services, as the system itself recorded them.
pub(crate) fn send(orders: &[Value], endpoint: &str) -> ByTrace {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("orders.jsonl");
    fs::write(&input, orders.iter().map(|order| format!("{order}\n")).collect::<String>()).unwrap();
    let finished = Running::start(&["--input", input.to_str().unwrap(), "--otlp", endpoint]).wait();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.all());
    assert!(!finished.all().contains("did not get to"), "{}", finished.all());
    let spans = fs::read(finished.spans()).unwrap();
    by_trace(&verify::otlp::read(&spans[..]).expect("what the order system wrote"))
}

/// The order system with its API, running while this value lives.
pub(crate) struct Shop {
    _running: Running,
    url: String,
}

impl Shop {
    /// Opens it, with spans and metrics sent to the Collector at this endpoint.
    pub(crate) fn open(endpoint: &str) -> Self {
        let mut running = Running::start(&["--serve", "--port", "0", "--otlp", endpoint]);
        let line = running.wait_for_output("API at");
        let url = line.split_once("API at ").expect("the address").1.to_owned();
        running.wait_for_output("curl -i http://");
        Self { _running: running, url }
    }

    /// Posts these orders and asserts that each is accepted.
    pub(crate) fn post(&self, orders: &[Value]) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            for order in orders {
                let response = client.post(&self.url).body(order.to_string()).send().await.unwrap();
                assert_eq!(response.status(), 202);
            }
        });
    }
}
