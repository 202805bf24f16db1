//! `traced-broker compare`.

use traced_broker::capability::compare;
use traced_broker::{Broker, TracedBroker as _};

use crate::args::Compare;
use crate::place::shown;
use crate::screen;
use crate::trouble::Trouble;

pub(crate) async fn run(options: &Compare) -> Result<(), Trouble> {
    let (from, to) = (connect("first", &options.from).await?, connect("second", &options.to).await?);
    let comparison = compare(from.capabilities(), to.capabilities()).between(shown(&options.from), shown(&options.to));
    for broker in [from, to] {
        broker.close().await.map_err(|error| Trouble::because("cannot close", &error))?;
    }
    screen::print(&comparison)
}

async fn connect(which: &str, url: &str) -> Result<Broker, Trouble> {
    let connected = traced_broker::connect(url).await;
    connected.map_err(|error| Trouble::because(format_args!("cannot ask the {which} broker"), &error))
}
