//! `traced-broker doctor`: the share of a topic's messages with a valid context, by producer.

mod advice;
mod json;
mod producer;
mod table;
mod tally;

use std::pin::pin;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::time::sleep_until;
use traced_broker::{Deliveries, Start, TracedBroker as _};

use self::tally::Tally;
use crate::bar::Bar;
use crate::endpoint::{Endpoint, Topology, close};
use crate::error::CliError;
use crate::output::{self, Terminal};
use crate::stop::stop_signal_or;
use crate::{deliveries, time};

pub(crate) const EXAMPLES: &str = "\
Other consumers are not affected: no group loses a message, no position moves, nothing is created.

  valid       one valid traceparent
  missing     no known context
  malformed   an invalid traceparent
  duplicated  more than one traceparent
  foreign     the context of another system (B3, Jaeger, Datadog, …), and no traceparent

Examples:
  # Messages published during ten seconds
  traced-broker doctor kafka://localhost:9092 orders

  # Stored messages, as a check in CI: fails below 99 %
  traced-broker doctor nats://localhost:4222 orders --from earliest --count 10000 --min-valid 99 --json

Exit codes:
  0  messages were inspected
  1  the share of valid contexts is below --min-valid
  2  an error, or no message arrived";

/// The default of `--count`.
const COUNT: u64 = 1_000;

#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Inspect at most N messages
    #[arg(long, value_name = "N", default_value_t = COUNT, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Stop after this time
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = time::duration)]
    time: Duration,
    /// Start position: earliest, latest, a time, or a duration before now
    #[arg(long, value_name = "earliest|latest|TIME|DURATION", default_value = "latest", value_parser = time::start)]
    from: Start,
    /// Exit with 1 if a smaller share of the messages has a valid context
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    min_valid: Option<f64>,
    /// Show the payloads of the examples too
    #[arg(long)]
    show_payload: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command; returns `true` if enough contexts are valid.
pub(crate) async fn run(options: Doctor) -> Result<bool, CliError> {
    let broker = options.endpoint.connect(Topology::CheckOnly).await?;
    let subscribed = broker.subscribe(options.endpoint.observe().start(options.from)).await;
    let deliveries = subscribed.map_err(|error| options.endpoint.error("observe", &error))?;
    let tally = options.inspect(deliveries).await;
    close(&broker).await?;
    if tally.all.messages == 0 {
        let time = traced_broker::verify::HumanDuration(options.time);
        let hint = if options.from == Start::Latest {
            "; read older messages with --from earliest, or wait longer with --for"
        } else {
            ""
        };
        return Err(CliError::new(format!(
            "no message arrived from {} in {time}{hint}",
            options.endpoint.description()
        )));
    }
    let is_enough = options.min_valid.is_none_or(|least| tally.all.valid_percent() >= least);
    let title = options.endpoint.description();
    output::print_as(
        options.json,
        || json::tally(&tally, &title, options.min_valid, options.show_payload),
        || table::draw(&tally, &title, options.min_valid, options.show_payload, Terminal::stdout()),
    )?;
    Ok(is_enough)
}

impl Doctor {
    async fn inspect(&self, mut deliveries: Deliveries) -> Tally {
        let bar = Bar::up_to(self.count);
        let begun = Instant::now();
        let mut stop = pin!(stop_signal_or(sleep_until((begun + self.time).into())));
        let mut tally = Tally::default();
        while tally.all.messages < self.count {
            let Some(delivery) = deliveries::next(&mut deliveries, stop.as_mut()).await else { break };
            tally.add(delivery.message());
            bar.set(tally.all.messages, &format!("{:.0} % valid", tally.all.valid_percent()));
        }
        tally.time = begun.elapsed();
        tally
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim_end().parse().ok();
    number
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| format!("`{text}` is not a number from 0 to 100"))
}
