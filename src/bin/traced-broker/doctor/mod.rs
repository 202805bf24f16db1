//! `traced-broker doctor`: which share of the messages of a topic carries a context, and who does not write one.

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
use crate::place::{Missing, Place, close};
use crate::screen::{self, Screen};
use crate::stop::told_to_stop;
use crate::trouble::Trouble;
use crate::{duration, moment, reading};

pub(crate) const EXAMPLES: &str = "\
Nobody else notices: no group loses a message, no position moves, nothing is made.

  valid       one traceparent, as it should be
  missing     no context that is known here
  malformed   a traceparent that breaks its format
  duplicated  more than one traceparent
  foreign     the context of another system (B3, Jaeger, Datadog, …), and no traceparent

Examples:
  # What is published during ten seconds
  traced-broker doctor kafka://localhost:9092 orders

  # All that is there, as a check of a pipeline: fails below 99 %
  traced-broker doctor nats://localhost:4222 orders --from earliest --count 10000 --min-valid 99 --json

Exit codes:
  0  looked at
  1  the share of valid contexts is below --min-valid
  2  it could not be looked at, or not one message came";

/// How many messages are looked at unless --count says otherwise.
const COUNT: u64 = 1_000;

#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    place: Place,
    /// Look at no more than that many messages
    #[arg(long, value_name = "N", default_value_t = COUNT, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Look no longer than that
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    time: Duration,
    /// Where to begin: earliest, latest, a time, or how long ago
    #[arg(long, value_name = "earliest|latest|TIME|DURATION", default_value = "latest", value_parser = moment::start)]
    from: Start,
    /// Exit with 1 if less than that share of the messages has a valid context
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    min_valid: Option<f64>,
    /// Show the payloads of the examples too
    #[arg(long)]
    show_payload: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Whether enough contexts are valid.
pub(crate) async fn run(options: Doctor) -> Result<bool, Trouble> {
    let broker = options.place.connect(Missing::IsTrouble).await?;
    let subscribed = broker.subscribe(options.place.watched().start(options.from)).await;
    let deliveries = subscribed.map_err(|error| options.place.trouble("look at", &error))?;
    let tally = options.look(deliveries).await;
    close(&broker).await?;
    if tally.messages() == 0 {
        let time = traced_broker::verify::HumanDuration(options.time);
        let hint = if options.from == Start::Latest {
            "; look at older ones with --from earliest, or longer with --for"
        } else {
            ""
        };
        return Err(Trouble::new(format!("not one message came from {} in {time}{hint}", options.place.shown())));
    }
    let is_enough = options.min_valid.is_none_or(|least| tally.valid_percent() >= least);
    let title = options.place.shown();
    if options.json {
        screen::print(&json::tally(&tally, &title, options.min_valid, options.show_payload))?;
    } else {
        screen::print(&table::draw(&tally, &title, options.min_valid, options.show_payload, Screen::new()))?;
    }
    Ok(is_enough)
}

impl Doctor {
    async fn look(&self, mut deliveries: Deliveries) -> Tally {
        let bar = Bar::up_to(self.count);
        let begun = Instant::now();
        let stop = async {
            tokio::select! {
                () = told_to_stop() => {}
                () = sleep_until((begun + self.time).into()) => {}
            }
        };
        let mut stop = pin!(stop);
        let mut tally = Tally::default();
        while tally.messages() < self.count {
            let Some(delivery) = reading::next(&mut deliveries, stop.as_mut()).await else { break };
            tally.add(delivery.message());
            bar.set(tally.messages(), &format!("{:.0} % valid", tally.valid_percent()));
        }
        tally.took(begun.elapsed());
        tally
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim_end().parse().ok();
    number
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| format!("`{text}` is not a number from 0 to 100"))
}
