//! The order system, run as its users run it.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};

use support::orders::{Evidence, Finished, Kind, Running, check_orders_on};
use support::send_signal;

#[test]
fn every_order_is_accounted_for_in_one_whole_trace() {
    check_orders_on("memory://orders");
}

/// A run with `--serve`, ended by Ctrl-C.
struct Server {
    running: Running,
    url: String,
    client: reqwest::Client,
}

impl Server {
    async fn start() -> Self {
        let start = || {
            let mut running = Running::start(&["--serve", "--port", "0"]);
            let line = running.wait_for_output("API at");
            let url = line.split_once("API at ").expect("the address").1.to_owned();
            running.wait_for_output("curl -i http://");
            (running, url)
        };
        let (running, url) = tokio::task::spawn_blocking(start).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Self { running, url, client }
    }

    /// Posts an order, and returns status, trace id and body.
    async fn post(&self, body: impl Into<reqwest::Body>, traceparent: Option<&str>) -> (u16, String, Value) {
        let mut request = self.client.post(&self.url).body(body);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let response = request.send().await.unwrap();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        let (status, trace, content) = (response.status().as_u16(), header("x-trace-id"), header("content-type"));
        assert_eq!(content, "application/json");
        (status, trace, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
    }

    async fn interrupt(self) -> Finished {
        assert!(send_signal("INT", self.running.child.id()));
        tokio::task::spawn_blocking(|| self.running.wait()).await.unwrap()
    }
}

fn order(id: &str) -> Value {
    json!({
        "id": id, "placed_at": "2026-11-23T08:00:00Z", "currency": "EUR", "carrier": "dhl",
        "customer": { "id": "C-1", "name": "Ada", "email": "ada@example.org" },
        "items": [{ "sku": "TEA-SENCHA-100", "quantity": 2, "unit_price_minor": 1180 }],
        "ship_to": { "street": "Hauptstraße 1", "city": "Ulm", "postal_code": "89073", "country": "DE" },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_order_is_refused_with_its_reason_and_its_trace() {
    let server = Server::start().await;
    let mut negative = order("ORD-1");
    negative["items"][0]["quantity"] = json!(-2);
    negative["currency"] = json!("XYZ");
    let mut incomplete = order("ORD-1");
    incomplete.as_object_mut().unwrap().remove("ship_to");
    for (body, status, reasons) in [
        (negative.to_string(), 400, &["items[0].quantity: -2", "currency: \"XYZ\""][..]),
        (incomplete.to_string(), 400, &["missing field `ship_to`"]),
        ("{\"id\":\"ORD-".to_owned(), 400, &["cut off"]),
        ("id,currency".to_owned(), 400, &["not JSON"]),
        (String::new(), 400, &["cut off"]),
        (json!([order("ORD-1")]).to_string(), 400, &["array"]),
        ("x".repeat(100_000), 413, &["too large"]),
    ] {
        let (got, trace, answer) = server.post(body.clone(), None).await;
        assert_eq!(got, status, "{body} {answer}");
        assert_eq!(answer["trace_id"], trace.as_str(), "{answer}");
        assert!(trace.len() == 32 && trace != "0".repeat(32), "{trace}");
        let problems = answer["problems"].as_array().into_iter().flatten();
        let said: Vec<_> = problems.chain([&answer["error"]]).filter_map(Value::as_str).collect();
        for reason in reasons {
            assert!(said.iter().any(|said| said.contains(reason)), "{reason}: {answer}");
        }
    }
    // Later requests are not affected.
    let (status, trace, answer) = server.post(order("ORD-1").to_string(), None).await;
    assert_eq!((status, answer["order_id"].as_str(), answer["trace_id"].as_str()), (202, Some("ORD-1"), Some(&*trace)));
    let (status, ..) = server.post(order("ORD-1").to_string(), None).await;
    assert_eq!(status, 409);

    let finished = server.interrupt().await;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.all());
    let evidence = Evidence::read(&finished.spans());
    evidence.check_references();
    let delivered = evidence.spans.iter().find(|span| span.name == "process notifications").expect("the one order");
    assert_eq!(delivered.trace, trace);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_continues_its_callers_trace() {
    let server = Server::start().await;
    let callers = "4bf92f3577b34da6a3ce929d0e0e4736";
    let (status, trace, _) =
        server.post(order("ORD-1").to_string(), Some(&format!("00-{callers}-00f067aa0ba902b7-01"))).await;
    assert_eq!((status, &*trace), (202, callers));
    // Not sampled: the order is fulfilled all the same, and leaves no span.
    let silent = "0af7651916cd43dd8448eb211c80319c";
    let (status, trace, _) =
        server.post(order("ORD-2").to_string(), Some(&format!("00-{silent}-00f067aa0ba902b7-00"))).await;
    assert_eq!((status, &*trace), (202, silent));
    // Not a valid context: a new trace begins.
    let (status, trace, _) =
        server.post(order("ORD-3").to_string(), Some(&format!("00-{callers}-00f067aa0ba902b7"))).await;
    assert_eq!((status, trace.len()), (202, 32));
    assert_ne!(trace, callers);

    let finished = server.interrupt().await;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.all());
    let spans = Evidence::read(&finished.spans()).spans;
    let root = spans.iter().find(|span| span.trace == callers && span.name == "POST /orders").expect("its server span");
    assert!(root.is("order-api", Kind::Server) && root.parent == "00f067aa0ba902b7", "{root:?}");
    assert!(spans.iter().any(|span| span.trace == callers && span.name == "process notifications"));
    assert!(!spans.iter().any(|span| span.trace == silent));
}

#[test]
fn what_cannot_run_says_why_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("empty.jsonl"), "\n  \n").unwrap();
    let (absent, empty, occupied) =
        (path("absent.jsonl"), path("empty.jsonl"), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = occupied.local_addr().unwrap().port().to_string();
    for (arguments, reason) in [
        (&["--input", absent.as_str()][..], "absent.jsonl"),
        (&["--input", &empty], "no order in"),
        (&["--broker", "rabbit://localhost"], "known=memory kafka amqp nats redis"),
        (&["--broker", "memory://x?speed=11"], "speed"),
        (&["--broker", "memory://x?topology=check"], "topology=check"),
        (&["--port", &port], "--port"),
        (&["--port", "many"], "--port"),
        (&["--otlp", "nowhere"], "nowhere"),
        (&["--role", "worker"], "processes cannot share memory"),
        (&["--role", "reconcile", "--broker", "redis://127.0.0.1:9"], "--jobs"),
        (&["--role", "api", "--broker", "redis://127.0.0.1:9", "--input", "x"], "send them to the API"),
        (&["--role", "clerk"], "clerk"),
        (&["--orders"], "--orders"),
    ] {
        let finished = Running::start(arguments).wait();
        assert_eq!(finished.status.code(), Some(2), "{arguments:?}:\n{}", finished.all());
        assert!(finished.stderr.contains(reason), "{arguments:?}:\n{}", finished.all());
        assert!(finished.stdout.is_empty(), "{arguments:?}:\n{}", finished.all());
    }
}

/// Starts a receiver that looks like a Collector's HTTP receiver from outside.
async fn receive() -> (String, Arc<Mutex<Vec<Bytes>>>) {
    let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
    let keep = async |State(bodies): State<Arc<Mutex<Vec<Bytes>>>>, uri: Uri, headers: HeaderMap, body: Bytes| {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        // Metrics are not relevant here.
        if uri.path() != "/v1/metrics" {
            assert_eq!(uri.path(), "/v1/traces");
            bodies.lock().push(body);
        }
    };
    let app = axum::Router::new().fallback(keep).with_state(Arc::clone(&bodies));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await });
    (endpoint, bodies)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_every_span() {
    let (endpoint, bodies) = receive().await;
    let run = move || Running::start(&["--otlp", &endpoint]).wait();
    let finished = tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.all());
    assert!(!finished.stdout.contains("did not get to"), "{}", finished.stdout);
    let received = bodies.lock().concat();
    let spans = Evidence::read(&finished.spans()).spans;
    assert!(spans.len() > 2000);
    // In protobuf a span's id is its field 2, eight bytes long.
    let ids: HashSet<&[u8]> =
        received.windows(10).filter(|field| field.starts_with(&[0x12, 8])).map(|field| &field[2..]).collect();
    for span in spans {
        let id = u64::from_str_radix(&span.id, 16).unwrap().to_be_bytes();
        assert!(ids.contains(&id[..]), "not received: {span:?}");
    }
}

#[test]
fn a_collector_that_is_not_there_changes_no_verdict() {
    let finished = Running::start(&["--otlp", "http://127.0.0.1:9"]).wait();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.all());
    assert!(finished.stdout.contains("spans did not get to http://127.0.0.1:9/v1/traces"), "{}", finished.stdout);
}
