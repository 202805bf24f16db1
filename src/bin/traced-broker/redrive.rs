//! `traced-broker redrive`: dead letters back to where they came from.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use traced_broker::redrive::{MAX_LOOKED_AT, Redriven};
use traced_broker::{Broker, TracedBrokerExt as _};

use crate::bar::Bar;
use crate::place::{Missing, Place, close};
use crate::stop::told_to_stop;
use crate::trouble::Trouble;
use crate::{duration, screen, telemetry};

pub(crate) const EXAMPLES: &str = "\
Each letter goes to the topic that it says it came from, with its context, and is settled once the broker has confirmed that. Letters \
that do not say stay where they are, and so do those that die again meanwhile.

On RabbitMQ name a group that was there when the letters came, as `parked`, which every dead-letter topic of this library has.

Examples:
  # How many there are
  traced-broker redrive kafka://localhost:9092 orders.dead --dry-run

  # A few first, then all
  traced-broker redrive amqp://localhost orders.dead --group parked --limit 10
  traced-broker redrive amqp://localhost orders.dead --group parked

Exit codes:
  0  all that was looked at was sent back, or could be
  1  letters were left where they are
  2  it could not be done";

#[derive(Args)]
pub(crate) struct Redrive {
    #[command(flatten)]
    place: Place,
    /// The group that reads the letters
    #[arg(long, value_name = "NAME", default_value = "redrive")]
    group: String,
    /// Send no more than that many back
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// How long nothing may come before there is nothing; on Kafka joining a group takes some seconds
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    idle: Duration,
    /// Send nothing, and count what could be sent, up to 10,000
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Whether none was left.
pub(crate) async fn run(options: Redrive) -> Result<bool, Trouble> {
    let telemetry = telemetry::start()?;
    let redriven = options.connect_and_send().await;
    telemetry.end().await;
    let redriven = redriven?;
    if options.json {
        let Redriven { sent_back, left, .. } = redriven;
        let key = if options.dry_run { "could_be_sent_back" } else { "sent_back" };
        screen::print(&json!({ key: sent_back, "left": left }))?;
    } else {
        screen::print(&options.text(redriven))?;
    }
    Ok(redriven.left == 0)
}

impl Redrive {
    async fn connect_and_send(&self) -> Result<Redriven, Trouble> {
        let broker = self.place.connect(Missing::ByOption).await?;
        let redriven = self.send(&broker).await;
        let redriven = redriven.map_err(|error| self.place.trouble("redrive", &error));
        let closed = close(&broker).await;
        redriven.and_then(|redriven| closed.map(|()| redriven))
    }

    async fn send(&self, broker: &Broker) -> traced_broker::Result<Redriven> {
        let bar = Bar::new(self.limit);
        let draw = |now: Redriven| {
            bar.set(now.sent_back, &if now.left > 0 { format!("{} left", now.left) } else { String::new() })
        };
        let mut redrive = broker.redrive(&self.place.topic).group(&self.group).idle(self.idle).on_progress(draw);
        if let Some(limit) = self.limit {
            redrive = redrive.at_most(limit);
        }
        if self.dry_run {
            redrive = redrive.dry_run();
        }
        redrive.run_until(told_to_stop()).await
    }

    fn text(&self, Redriven { sent_back, left, .. }: Redriven) -> String {
        let done = if self.dry_run { "could be sent back" } else { "sent back" };
        let rest = if left > 0 { format!(", {left} left where they are") } else { String::new() };
        let more = if self.dry_run && sent_back + left >= MAX_LOOKED_AT as u64 { "; there may be more" } else { "" };
        format!("{sent_back} {done}{rest}{more}")
    }
}
