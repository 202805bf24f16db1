//! `traced-broker compare`.

use traced_broker::capability::compare;
use traced_broker::{Broker, BrokerUrl, TracedBroker as _};

use crate::args::Compare;
use crate::screen;
use crate::trouble::Trouble;

pub(crate) async fn run(options: &Compare) -> Result<(), Trouble> {
    let (from, to) = (connect("first", &options.from).await?, connect("second", &options.to).await?);
    let comparison = compare(from.capabilities(), to.capabilities()).between(name(&options.from), name(&options.to));
    for broker in [from, to] {
        broker.close().await.map_err(|error| Trouble::because("cannot close", &error))?;
    }
    screen::print(&comparison)
}

async fn connect(which: &str, url: &str) -> Result<Broker, Trouble> {
    let connected = traced_broker::connect(url).await;
    connected.map_err(|error| Trouble::because(format_args!("cannot ask the {which} broker"), &error))
}

/// Scheme and hosts: enough to tell two brokers apart, and no secret.
fn name(url: &str) -> String {
    let Ok(url) = BrokerUrl::parse(url) else { return String::new() };
    let hosts: Vec<String> = url.hosts(0).into_iter().map(|(host, port)| place(host, port)).collect();
    format!("{}://{}", url.scheme(), hosts.join(","))
}

fn place(host: String, port: u16) -> String {
    if port == 0 { host } else { format!("{host}:{port}") }
}
