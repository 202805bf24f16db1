//! `traced-broker compare`: the differences between two brokers.

use traced_broker::capability::compare;
use traced_broker::{Broker, TracedBroker as _};

use crate::args::Compare;
use crate::endpoint::{close, without_secrets};
use crate::error::CliError;
use crate::output;

pub(crate) async fn run(options: &Compare) -> Result<(), CliError> {
    let (from, to) = (connect("first", &options.from).await?, connect("second", &options.to).await?);
    let comparison = compare(from.capabilities(), to.capabilities())
        .between(without_secrets(&options.from), without_secrets(&options.to));
    for broker in [from, to] {
        close(&broker).await?;
    }
    output::print(&comparison)
}

async fn connect(which: &str, url: &str) -> Result<Broker, CliError> {
    let connected = traced_broker::connect(url).await;
    connected.map_err(|error| CliError::with_source(format_args!("cannot connect to the {which} broker"), &error))
}
