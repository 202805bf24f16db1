//! The client: posts orders over HTTP, as the front end of a shop does.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::body::Bytes;
use futures_util::{StreamExt as _, stream};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::api::ROUTE;
use crate::ledger::Ledger;

/// Maximum number of requests at a time.
const AT_A_TIME: usize = 16;
/// Maximum time until the answer, long enough for a broker to restart.
const PATIENCE: Duration = Duration::from_secs(30);

/// Posts every line; returns the lines that were not accepted, with the reasons.
pub(crate) async fn post_all(address: SocketAddr, orders: Vec<(usize, Bytes)>, ledger: &Ledger) -> Result<Vec<String>> {
    // The API is on this machine, so that proxies of the environment do not apply.
    let client = Client::builder().no_proxy().timeout(PATIENCE).build().context("cannot make an HTTP client")?;
    let url = format!("http://{address}{ROUTE}");
    let posts = orders.into_iter().map(|(line, order)| {
        let answer = answer(client.post(&url).body(order));
        async move { (line, answer.await) }
    });
    let mut answers = stream::iter(posts).buffered(AT_A_TIME);
    let mut refused = Vec::new();
    while let Some((line, answer)) = answers.next().await {
        let reason = match answer {
            Ok((StatusCode::ACCEPTED, _)) => continue,
            Ok((status, body)) => body["error"].as_str().map_or_else(|| status.to_string(), str::to_owned),
            Err(error) => {
                // The API cannot count a request without an answer.
                ledger.update(|books| books.failed += 1);
                format!("no answer: {error}")
            }
        };
        refused.push(format!("line {line:>4}  {reason}"));
    }
    Ok(refused)
}

async fn answer(request: RequestBuilder) -> reqwest::Result<(StatusCode, Value)> {
    let response = request.send().await?;
    Ok((response.status(), response.json().await.unwrap_or_default()))
}
