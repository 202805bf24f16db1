//! A trace that cannot be checked ends the command with exit code 2 and a reason.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::response::IntoResponse as _;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::command::verify;
use crate::server::{Came, Server, json, nothing, status};
use crate::traces::{ID, JAEGER, JAEGER_V3, TEMPO, TEMPO_V2, many, with_process};

/// Returns the URL of a closed port.
async fn nowhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://me:topsecret@{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn the_backend_is_down() {
    let outcome = verify(&["--trace-id", ID, "--tempo", &nowhere().await]).await.ends_with(2);
    outcome.complains(&["Tempo at http://***@127.0.0.1:", "does not respond", "refused"]).never_shows("topsecret");
}

#[tokio::test]
async fn the_service_is_down() {
    let jaeger = Server::at(JAEGER, JAEGER_V3.to_owned()).await;
    let request = format!("POST {}/orders?key=topsecret", nowhere().await);
    let outcome = verify(&["--request", &request, "--jaeger", &jaeger.url]).await.ends_with(2);
    outcome.complains(&["POST http://***@127.0.0.1:", "/orders?***: ", "refused"]).never_shows("topsecret");
    assert!(jaeger.came().is_empty());
}

#[tokio::test]
async fn the_service_refuses_or_names_no_trace() {
    let jaeger = Server::at(JAEGER, JAEGER_V3.to_owned()).await;
    let refusing = Server::start(|_| (axum::http::StatusCode::BAD_GATEWAY, [("x-trace-id", ID)]).into_response()).await;
    let request = format!("POST {}", refusing.url);
    let outcome = verify(&["--request", &request, "--jaeger", &jaeger.url]).await.ends_with(2);
    outcome.complains(&["was answered with 502 Bad Gateway", ID]);
    let silent = Server::start(|_| "accepted".into_response()).await;
    let request = format!("POST {}", silent.url);
    let outcome = verify(&["--request", &request, "--jaeger", &jaeger.url]).await.ends_with(2);
    outcome.complains(&["names no trace", "x-trace-id", "--trace-id"]);
}

#[tokio::test]
async fn the_url_is_another_server() {
    let page = Server::start(|_| "<!doctype html><title>Shop</title>".into_response()).await;
    let outcome = verify(&["--trace-id", ID, "--jaeger", &page.url]).await.ends_with(2);
    outcome.complains(&["the answer is not a trace", "is this the query address of Jaeger?"]);
    let other = Server::start(|_| json("{\"status\":\"ok\"}")).await;
    let outcome = verify(&["--trace-id", ID, "--tempo", &other.url]).await.ends_with(2);
    outcome.complains(&["not in the format of this backend", "is this the query address of Tempo?"]);
    let empty = Server::start(|_| nothing()).await;
    let outcome = verify(&["--trace-id", ID, "--tempo", &empty.url]).await.ends_with(2);
    outcome.complains(&["does not respond like this backend: is this its query address"]);
}

#[tokio::test]
async fn the_trace_never_comes() {
    let answer = |came: &Came| if came.path == "/api/echo" { "echo".into_response() } else { nothing() };
    let server = Server::start(answer).await;
    let outcome = verify(&["--trace-id", ID, "--tempo", &server.url]).await.ends_with(2);
    outcome.complains(&["has no trace", ID, "after 1.00 s", "sampled away", "not arrived yet", "--deadline"]);
    let value = format!("00-{ID}-00f067aa0ba902b1-00");
    let shop = Server::start(move |_| ([("traceresponse", value.clone())], "").into_response()).await;
    let request = format!("GET {}", shop.url);
    let outcome = verify(&["--request", &request, "--tempo", &server.url]).await.ends_with(2);
    outcome.complains(&["did not sample it"]);
}

/// These errors end the command at once, because waiting does not help.
#[tokio::test]
async fn the_backend_wants_credentials_or_is_elsewhere() {
    let words = [(401, "--backend-header"), (403, "--backend-header"), (302, "redirects"), (400, "400 Bad Request")];
    for (code, word) in words {
        let server = Server::start(move |_| status(code)).await;
        let header = "Authorization: Bearer topsecret";
        let arguments = ["--trace-id", ID, "--tempo", &server.url, "--backend-header", header, "--deadline", "60s"];
        let before = Instant::now();
        verify(&arguments).await.ends_with(2).complains(&[word]).never_shows("topsecret");
        assert!(before.elapsed() < Duration::from_secs(20));
        assert_eq!(server.came().len(), 1);
    }
}

/// A redirection would send the headers to another server.
#[tokio::test]
async fn a_redirection_is_not_followed() {
    let other = Server::at(TEMPO, TEMPO_V2.to_owned()).await;
    let location = format!("{}{TEMPO}{ID}", other.url);
    let answer = move |_: &Came| (axum::http::StatusCode::FOUND, [("location", location.clone())]).into_response();
    let server = Server::start(answer).await;
    let outcome = verify(&["--trace-id", ID, "--tempo", &server.url, "--backend-header", "X-Token: topsecret"]).await;
    outcome.ends_with(2).complains(&["redirects (302 Found)"]);
    assert!(other.came().is_empty());
}

#[tokio::test]
async fn a_cut_answer() {
    let cut = TEMPO_V2[..TEMPO_V2.len() / 2].to_owned();
    let server = Server::at(TEMPO, cut).await;
    let outcome = verify(&["--trace-id", ID, "--tempo", &server.url, "--json"]).await.ends_with(2);
    let outcome = outcome.complains(&["ends in the middle of a value"]);
    let result: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(result["verdict"], "unchecked");
    // The connection ends in the middle of the body.
    let broken_off = Server::start(|_| {
        let begun = stream::once(async { Ok(Bytes::from_static(b"{\"trace\":")) });
        let over = stream::once(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(std::io::Error::other("cable cut"))
        });
        json(Body::from_stream(begun.chain(over)))
    });
    let server = broken_off.await;
    verify(&["--trace-id", ID, "--tempo", &server.url]).await.ends_with(2).complains(&["cut off"]);
}

/// The body is refused with and without a `content-length`.
#[tokio::test]
async fn an_answer_without_end() {
    let long = Bytes::from(vec![b' '; 1 << 20]);
    let chunk = long.clone();
    let endless = Server::start(move |_| {
        let chunk = chunk.clone();
        json(Body::from_stream(stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()))))
    });
    let server = endless.await;
    let arguments = ["--trace-id", ID, "--tempo", &server.url, "--deadline", "60s"];
    verify(&arguments).await.ends_with(2).complains(&["longer than 67108864 bytes"]);
    let sized = Server::start(|_| {
        ([("content-length", "99999999999")], Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()))
            .into_response()
    })
    .await;
    let arguments = ["--trace-id", ID, "--tempo", &sized.url];
    verify(&arguments).await.ends_with(2).complains(&["longer than 67108864 bytes"]);
}

#[tokio::test]
async fn a_trace_of_fifty_thousand_spans() {
    let server = Server::at(JAEGER, many(50_000)).await;
    let arguments = ["--trace-id", ID, "--jaeger", &server.url, "--expect", "step 49999", "--deadline", "60s"];
    let outcome = verify(&arguments).await.ends_with(0).prints(&["50000 spans", "more spans not shown", "✓ whole"]);
    assert!(outcome.out.lines().count() < 600);
    let arguments = ["--trace-id", ID, "--jaeger", &server.url, "--expect", "step 50000", "--deadline", "1s"];
    verify(&arguments).await.ends_with(1).prints(&["missing: `step 50000`"]);
}

/// The parent of each span is missing.
#[tokio::test]
async fn fifty_thousand_spans_without_their_root() {
    let server = Server::at(
        JAEGER,
        many(50_000)
            .replace("\"step 0\"", "\"other\"")
            .replace("\"spanId\":\"0000000000000001\"", "\"spanId\":\"00000000000fffff\""),
    )
    .await;
    let before = Instant::now();
    let arguments = ["--trace-id", ID, "--jaeger", &server.url, "--expect", "process orders"];
    let outcome =
        verify(&arguments).await.ends_with(1).prints(&["parent not exported", "49991 more findings not shown"]);
    assert!(
        before.elapsed() < Duration::from_secs(60) && outcome.out.lines().count() < 1_200,
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test]
async fn clocks_that_differ() {
    let early = with_process(|span| {
        span["startTimeUnixNano"] = json!("1795368293788624718");
        span["endTimeUnixNano"] = json!("1795368293798624718");
    });
    let server = Server::at(JAEGER, early).await;
    let outcome = verify(&["--trace-id", ID, "--jaeger", &server.url]).await.ends_with(2);
    let outcome =
        outcome.complains(&["clocks of order-api and fulfillment-worker differ by 2.00 s", "--max-clock-skew"]);
    assert!(outcome.out.contains("process orders") && !outcome.out.contains("✓ whole"), "{outcome:?}");
    let arguments = ["--trace-id", ID, "--jaeger", &server.url, "--max-clock-skew", "2s"];
    verify(&arguments).await.ends_with(0).prints(&["✓ whole"]);
    let arguments = ["--trace-id", ID, "--jaeger", &server.url, "--max-clock-skew", "1.9s"];
    verify(&arguments).await.ends_with(2);
    // A missing span does not depend on the clocks.
    let arguments = ["--trace-id", ID, "--jaeger", &server.url, "--expect", "process payments"];
    verify(&arguments).await.ends_with(1);
}

/// Invalid expectations are reported before the request is sent.
#[tokio::test]
async fn expectations_that_make_no_sense() {
    let server = Server::start(|_| json(JAEGER_V3)).await;
    let request = format!("POST {}", server.url);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let texts = [
        (
            "{\n  \"expect\": [\n    { \"spam\": \"process orders\" }\n  ]\n}",
            "unknown field `spam`, expected one of `span`, `service`, `kind`, `count` at line 3",
        ),
        ("{\"expekt\": []}", "unknown field `expekt`"),
        ("{\"expect\": [{\"kind\": \"consummer\"}]}", "unknown kind `consummer`"),
        ("{\"expect\": [{\"span\": \"a\"}, {\"count\": 2}]}", "expectation 2 is empty"),
        ("{\"expect\": [{\"span\": \"a\", \"count\": 0}]}", "expectation 1 is empty"),
        ("{\"max_queue_latency\": \"5 weeks\"}", "`5 weeks` is not a duration"),
        ("{\"expect\": [", "EOF"),
    ];
    for (text, words) in texts {
        std::fs::write(file.path(), text).unwrap();
        let outcome = verify(&["--request", &request, "--jaeger", &server.url, "--expectations", path]).await;
        outcome.ends_with(2).complains(&[path, words]);
    }
    let arguments = ["--request", &request, "--jaeger", &server.url, "--expectations", "/nowhere/trace.json"];
    verify(&arguments).await.ends_with(2).complains(&["cannot read /nowhere/trace.json"]);
    let arguments = ["--request", &request, "--jaeger", &server.url, "--expect", "servce=x"];
    verify(&arguments).await.ends_with(2).complains(&["unknown key `servce`"]);
    assert!(server.came().is_empty());
}

#[tokio::test]
async fn a_report_that_nothing_could_be_checked() {
    let junit = tempfile::NamedTempFile::new().unwrap();
    let path = junit.path().to_str().unwrap();
    verify(&["--trace-id", ID, "--tempo", &nowhere().await, "--junit", path]).await.ends_with(2);
    let xml = std::fs::read_to_string(junit.path()).unwrap();
    assert!(xml.contains("errors=\"1\"") && xml.contains("does not respond") && !xml.contains("topsecret"), "{xml}");
    let elsewhere = ["--trace-id", ID, "--tempo", &nowhere().await, "--junit", "/nowhere/verify.xml"];
    verify(&elsewhere).await.ends_with(2).complains(&["cannot write /nowhere/verify.xml"]);
}
