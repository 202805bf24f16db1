//! The dashboard's queries, run on a real Prometheus that scrapes the tiers while the order system
//! works.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Kind, Server};
use crate::tier::{Tier, shipped};
use crate::traffic::{Shop, failing, plain};

/// Enough time for the Collector to export the span metrics, and for two scrapes to see them.
const PATIENCE: Duration = Duration::from_secs(90);

/// Reads the shipped file, replaces its DNS lookups with the tier's addresses, and scrapes every
/// second.
fn config(tier: &Tier) -> String {
    let text = fs::read_to_string(shipped("prometheus/prometheus.yaml")).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    config["global"] = json!({ "scrape_interval": "1s" });
    for job in config["scrape_configs"].as_array_mut().unwrap() {
        let lookup = job.as_object_mut().unwrap().remove("dns_sd_configs").expect("a name to look up");
        let targets = tier.scraped(lookup[0]["names"][0].as_str().unwrap(), lookup[0]["port"].as_u64().unwrap());
        job["static_configs"] = json!([{ "targets": targets }]);
    }
    config.to_string()
}

/// Panels whose values cannot be zero while some orders are dead-lettered.
const BUSY: [&str; 7] = [
    "Sent",
    "Handed out",
    "Waiting, 99th percentile",
    "Failed processing",
    "Dead letters",
    "Failed messages, by destination",
    "Handlers at work, on average",
];

/// Returns the dashboard's queries with their panels' titles, as Grafana would send them.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_slice(&fs::read(shipped("grafana/dashboard.json")).unwrap()).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let fill = |query: &str| {
        let filled = variables.iter().fold(query.to_owned(), |query, variable| {
            let value = variable["allValue"].as_str().or(variable["current"]["value"].as_str()).unwrap();
            query.replace(&format!("${}", variable["name"].as_str().unwrap()), value)
        });
        filled.replace("$__rate_interval", "15s").replace("$__range", "5m")
    };
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    panels
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap();
            panel["targets"].as_array().unwrap().iter().map(move |target| (title, target["expr"].as_str().unwrap()))
        })
        .map(|(title, query)| (title.to_owned(), fill(query)))
        .collect()
}

fn ask(server: &Server, query: &str) -> Result<Vec<Value>, String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer: Value = runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut url = reqwest::Url::parse(&format!("{}/api/v1/query", server.url())).unwrap();
        url.query_pairs_mut().append_pair("query", query);
        client.get(url).send().await.unwrap().json().await.unwrap()
    });
    match answer["status"].as_str() {
        Some("success") => Ok(answer["data"]["result"].as_array().unwrap().clone()),
        _ => Err(answer["error"].to_string()),
    }
}

/// Returns the Prometheus names of the metrics in our registry; some of them are never measured in
/// a healthy system.
fn names_of_ours() -> Vec<String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/registry/metrics.yaml");
    let registry: Value = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let names_of = |metric: &Value| {
        let name = metric["name"].as_str().unwrap().replace('.', "_");
        match (metric["instrument"].as_str().unwrap(), metric["unit"].as_str().unwrap()) {
            ("updowncounter", _) => vec![name],
            ("counter", _) => vec![format!("{name}_total")],
            ("histogram", "s") => ["bucket", "sum", "count"].map(|part| format!("{name}_seconds_{part}")).to_vec(),
            other => panic!("{name}: nobody said what becomes of {other:?}"),
        }
    };
    registry["metrics"].as_array().unwrap().iter().flat_map(names_of).collect()
}

#[test]
fn no_query_asks_for_a_metric_that_we_do_not_have() {
    let (ours, mut asked) = (names_of_ours(), 0);
    for (title, query) in queries() {
        for (start, _) in query.match_indices("traced_broker_") {
            let rest = &query[start..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            // Otherwise the name is a label.
            if rest[end..].starts_with('{') {
                assert!(ours.iter().any(|name| *name == rest[..end]), "{title}: {}", &rest[..end]);
                asked += 1;
            }
        }
    }
    assert!(asked >= 6, "{asked}");
}

#[test]
fn every_panel_shows_something() {
    let tier = Tier::start(&[("DECISION_WAIT", "2s")]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prometheus.json");
    fs::write(&file, config(&tier)).unwrap();
    let environment = vec![("PROMETHEUS_CONFIG", file.to_str().unwrap().to_owned())];
    let prometheus = Server::start_at(Kind::Prometheus, Server::free_port(Kind::Prometheus), environment);

    let mut unanswered = queries();
    assert!(unanswered.len() >= 30, "{} queries", unanswered.len());
    let shop = Shop::open(&tier.endpoint());
    let mut posted = 0;
    let deadline = Instant::now() + PATIENCE;
    while !unanswered.is_empty() {
        assert!(Instant::now() < deadline, "no data for {} of the queries: {unanswered:#?}", unanswered.len());
        shop.post(&failing(4).into_iter().chain(plain(16)).collect::<Vec<_>>());
        posted += 20;
        thread::sleep(Duration::from_secs(1));
        unanswered.retain(|(title, query)| {
            let series = ask(&prometheus, query).unwrap_or_else(|error| panic!("{title}: {query}: {error}"));
            let number = |one: &Value| one["value"][1].as_str().and_then(|number| number.parse::<f64>().ok());
            let at_least = if BUSY.contains(&title.as_str()) { f64::MIN_POSITIVE } else { f64::MIN };
            !series.iter().filter_map(number).any(|number| number >= at_least)
        });
    }
    // Counted before sampling: also includes requests whose trace was not kept.
    let requests = "sum(traces_span_metrics_calls_total{span_kind=\"SPAN_KIND_SERVER\"})";
    let counted = || ask(&prometheus, requests).unwrap()[0]["value"][1].as_str().unwrap().to_owned();
    while counted() != posted.to_string() {
        assert!(Instant::now() < deadline + PATIENCE, "{} of {posted} requests are counted", counted());
        thread::sleep(Duration::from_secs(1));
    }
}
