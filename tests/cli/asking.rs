//! Finding a whole trace by request or id, in either backend, also if it arrives late.

use axum::response::IntoResponse as _;
use serde_json::Value;

use crate::command::verify;
use crate::server::{Came, Server, json, nothing, status};
use crate::traces::{ID, JAEGER, JAEGER_CLASSIC, JAEGER_V3, OTHER, TEMPO, TEMPO_V1, TEMPO_V2, alone, first};

const WHOLE: &[&str] = &["process orders", "in queue orders", "✓ whole", "833 ms"];

#[tokio::test]
async fn both_interfaces_of_both_backends() {
    let cases = [
        ("--tempo", TEMPO, TEMPO_V2),
        ("--tempo", "/api/traces/", TEMPO_V1),
        ("--jaeger", JAEGER, JAEGER_V3),
        ("--jaeger", "/api/traces/", JAEGER_CLASSIC),
    ];
    for (option, path, text) in cases {
        let server = Server::at(path, text.to_owned()).await;
        let outcome = verify(&["--trace-id", ID, option, &server.url, "--expect", "process orders"]).await;
        outcome.ends_with(0).prints(WHOLE).prints(&["the expectation is met"]);
        assert_eq!(server.came().last().unwrap().path, format!("{path}{ID}"));
        assert_eq!(server.came()[0].headers["accept"], "application/json");
    }
}

/// An old Jaeger without the newer interface responds to unknown paths with its web page.
#[tokio::test]
async fn a_page_for_an_unknown_path_is_passed_over() {
    let page = |came: &Came| {
        if came.path.starts_with("/api/traces/") { json(JAEGER_CLASSIC) } else { "<!doctype html>".into_response() }
    };
    let server = Server::start(page).await;
    verify(&["--trace-id", ID, "--jaeger", &server.url]).await.ends_with(0).prints(WHOLE);
}

#[tokio::test]
async fn a_base_path_is_kept() {
    let server = Server::at("/tempo/api/v2/traces/", TEMPO_V2.to_owned()).await;
    let url = format!("{}/tempo/", server.url);
    verify(&["--trace-id", ID, "--tempo", &url]).await.ends_with(0).prints(WHOLE);
}

#[tokio::test]
async fn a_request_is_sent_and_its_trace_checked() {
    let shop = Server::start(|_| ([("x-trace-id", ID)], "accepted").into_response()).await;
    let jaeger = Server::at(JAEGER, JAEGER_V3.to_owned()).await;
    let request = format!("POST {}/orders?key=topsecret", shop.url.replace("//", "//me:topsecret@"));
    let data = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(data.path(), "{\"pair\":\"shoes\"}").unwrap();
    let data = format!("@{}", data.path().display());
    let arguments = [
        "--request",
        &request,
        "--data",
        &data,
        "--header",
        "X-Token: topsecret",
        "--jaeger",
        &jaeger.url,
        "--backend-header",
        "X-Scope-OrgID: topsecret",
        "--expect",
        "service=fulfillment-worker",
        "--expect",
        "kind=consumer",
    ];
    let outcome = verify(&arguments).await.ends_with(0).prints(WHOLE).prints(&["all 2 expectations are met"]);
    outcome.never_shows("topsecret");
    let [order] = &shop.came()[..] else { panic!("one request: {:?}", shop.came()) };
    assert_eq!(
        (&*order.method.to_string(), &*order.path, &*order.body),
        ("POST", "/orders", &b"{\"pair\":\"shoes\"}"[..])
    );
    assert_eq!(
        (&order.headers["content-type"], &order.headers["x-token"]),
        (&"application/json".parse().unwrap(), &"topsecret".parse().unwrap())
    );
    let asked = &jaeger.came()[0];
    assert_eq!(asked.headers["x-scope-orgid"], "topsecret");
    // Headers for the service are not sent to the backend.
    assert!(!asked.headers.contains_key("x-token") && !asked.headers.contains_key("authorization"));
}

#[tokio::test]
async fn the_trace_of_a_request_is_also_named_by_w3c_headers() {
    let value = format!("00-{ID}-00f067aa0ba902b1-01");
    for name in ["traceresponse", "traceparent"] {
        let value = value.clone();
        let shop = Server::start(move |_| ([(name, value.clone())], "").into_response()).await;
        let jaeger = Server::at(JAEGER, JAEGER_V3.to_owned()).await;
        let request = format!("GET {}", shop.url);
        verify(&["--request", &request, "--jaeger", &jaeger.url]).await.ends_with(0).prints(WHOLE);
    }
}

/// The server responds with 404, then 503, then parts of the trace, then all of it.
#[tokio::test]
async fn a_trace_may_come_late_and_bit_by_bit() {
    let late = |came: &Came| match (came.path.starts_with(JAEGER), came.before) {
        (false, _) | (true, 0) => nothing(),
        (true, 1) => status(503),
        (true, 2) => json(first(1)),
        (true, 3) => json(first(2)),
        (true, _) => json(JAEGER_V3),
    };
    let server = Server::start(late).await;
    let arguments = ["--trace-id", ID, "--jaeger", &server.url, "--deadline", "30s", "--expect", "process orders"];
    verify(&arguments).await.ends_with(0).prints(WHOLE);
    assert!(server.came().len() >= 5);
}

/// Without expectations, the trace counts as complete once no new spans arrive.
#[tokio::test]
async fn a_trace_is_not_complete_while_spans_still_come() {
    let growing = |came: &Came| if came.before == 0 { json(first(2)) } else { json(JAEGER_V3) };
    let server = Server::start(growing).await;
    let arguments = ["--trace-id", ID, "--jaeger", &server.url, "--deadline", "20s", "--settle", "1s"];
    let all: Vec<&str> = ["verify"].into_iter().chain(arguments).collect();
    crate::command::traced_broker(&all).await.ends_with(0).prints(&["3 spans", "process orders"]);
}

#[tokio::test]
async fn links_into_other_traces_are_followed() {
    let link = serde_json::json!([{ "traceId": ID, "spanId": "00f067aa0ba902b2" }]);
    let job = alone(OTHER, "reconciliation-job", &link);
    let answer = move |came: &Came| match came.path.strip_prefix(JAEGER) {
        Some(OTHER) => json(job.clone()),
        Some(ID) => json(JAEGER_V3),
        _ => nothing(),
    };
    let server = Server::start(answer.clone()).await;
    verify(&["--trace-id", OTHER, "--jaeger", &server.url]).await.ends_with(0).prints(&["run job", "✓ whole"]);
    let forgetful = Server::start(move |came| if came.path.ends_with(ID) { nothing() } else { answer(came) }).await;
    let outcome = verify(&["--trace-id", OTHER, "--jaeger", &forgetful.url]).await.ends_with(1);
    outcome.prints(&["link target not exported", "✗ broken after `run job` of reconciliation-job", "sampled away"]);
}

#[tokio::test]
async fn results_for_programs() {
    let server = Server::at(JAEGER, JAEGER_V3.to_owned()).await;
    let junit = tempfile::NamedTempFile::new().unwrap();
    let file = junit.path().to_str().unwrap();
    let arguments =
        ["--trace-id", ID, "--jaeger", &server.url, "--expect", "process orders", "--json", "--junit", file];
    let outcome = verify(&arguments).await.ends_with(0);
    let result: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((&result["verdict"], &result["trace_id"], &result["spans"]), (&"whole".into(), &ID.into(), &3.into()));
    assert_eq!(result["hops"][0]["topic"], "orders");
    assert_eq!(result["hops"][0]["queue_duration"], 0.833);
    assert_eq!((&result["expectations"][0]["met"], &result["error"]), (&true.into(), &Value::Null));
    let xml = std::fs::read_to_string(junit.path()).unwrap();
    assert!(xml.contains("tests=\"3\" failures=\"0\" errors=\"0\"") && xml.contains("has `process orders`"), "{xml}");
}

#[tokio::test]
async fn the_trace_is_drawn_for_documents_too() {
    let server = Server::at(JAEGER, JAEGER_V3.to_owned()).await;
    let svg = tempfile::NamedTempFile::new().unwrap();
    let file = svg.path().to_str().unwrap();
    verify(&["--trace-id", ID, "--jaeger", &server.url, "--svg", file]).await.ends_with(0).prints(WHOLE);
    let svg = std::fs::read_to_string(svg.path()).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("process orders") && svg.contains("00f067aa0ba902b3"), "{svg}");
}

#[tokio::test]
async fn the_page_says_what_the_terminal_says() {
    let server = Server::at(JAEGER, JAEGER_V3.to_owned()).await;
    let html = tempfile::NamedTempFile::new().unwrap();
    let file = html.path().to_str().unwrap();
    let asked = ["--trace-id", ID, "--jaeger", &server.url, "--html", file, "--expect", "process <invoices>"];
    let outcome = verify(&asked).await.ends_with(1).prints(&["✗ broken after", "missing: "]);
    let html = std::fs::read_to_string(html.path()).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("id=\"s-"), "{html}");
    assert!(
        html.contains("<p class=\"remark bad\">✗ broken after") && html.contains("process &lt;invoices&gt;"),
        "{html}"
    );
    assert!(outcome.out.contains("process <invoices>") && !html.contains("✓ whole"));
}
