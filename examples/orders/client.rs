//! The client: posts orders over HTTP, as a shop's web front would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::body::Bytes;
use futures_util::{StreamExt as _, stream};
use reqwest::{Client, StatusCode};
use serde::Deserialize;

use crate::api::ROUTE;
use crate::ledger::Ledger;
use crate::server_span::TRACE_ID;

/// Requests under way at a time.
const AT_A_TIME: usize = 16;
/// How long an answer may take: publishing may have to wait for a broker that is being restarted.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the API said about the orders it did not accept, by line.
#[derive(Debug, Default)]
pub(crate) struct Posted {
    pub(crate) refused: Vec<(usize, String)>,
    pub(crate) failed: Vec<(usize, String)>,
}

enum Answer {
    Accepted,
    Refused(String),
    Failed(String),
}

/// Posts every line and waits for the answers.
pub(crate) async fn post_all(address: SocketAddr, orders: Vec<(usize, Bytes)>, ledger: &Arc<Ledger>) -> Result<Posted> {
    // No proxy: the API is on this machine, whatever the environment says.
    let client = Client::builder().no_proxy().timeout(PATIENCE).build().context("cannot make an HTTP client")?;
    let url = format!("http://{address}{ROUTE}");
    let answers = stream::iter(orders).map(|(line, order)| {
        let (client, url) = (&client, &url);
        async move { (line, post(client, url, order, ledger).await) }
    });
    let mut answers = answers.buffered(AT_A_TIME);
    let mut posted = Posted::default();
    while let Some((line, answer)) = answers.next().await {
        match answer {
            Answer::Accepted => {}
            Answer::Refused(why) => posted.refused.push((line, why)),
            Answer::Failed(why) => posted.failed.push((line, why)),
        }
    }
    Ok(posted)
}

async fn post(client: &Client, url: &str, order: Bytes, ledger: &Ledger) -> Answer {
    let answered = client.post(url).header("content-type", "application/json").body(order).send().await;
    let response = match answered {
        Ok(response) => response,
        Err(error) => {
            // The API counts what it answers; of this it knows nothing.
            ledger.count(|tally| &mut tally.failed);
            return Answer::Failed(format!("no answer: {error}"));
        }
    };
    let status = response.status();
    let traced = response.headers().get(TRACE_ID).is_some_and(|id| id.len() == 32);
    let body = response.bytes().await.unwrap_or_default();
    let why = || serde_json::from_slice::<Refused>(&body).map_or_else(|_| status.to_string(), Refused::into_line);
    if !traced {
        return Answer::Failed(format!("answered {status} without saying which trace it is"));
    }
    match status {
        StatusCode::ACCEPTED => Answer::Accepted,
        status if status.is_client_error() => Answer::Refused(why()),
        _ => Answer::Failed(why()),
    }
}

/// The JSON of a refusal, as far as it is of interest here.
#[derive(Debug, Deserialize)]
struct Refused {
    error: String,
    #[serde(default)]
    problems: Vec<String>,
}

impl Refused {
    /// The problems say more than the sentence that announces them.
    fn into_line(self) -> String {
        if self.problems.is_empty() { self.error } else { self.problems.join("; ") }
    }
}
