//! `traced-broker redrive`: sends dead letters back to the topics that they came from.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use traced_broker::redrive::{MAX_LOOKED_AT, Redriven};
use traced_broker::{Broker, TracedBrokerExt as _};

use crate::bar::Bar;
use crate::endpoint::{Endpoint, Topology, close};
use crate::error::CliError;
use crate::stop::stop_signal;
use crate::{output, telemetry, time};

pub(crate) const EXAMPLES: &str = "\
Each dead letter is published to the topic named in its headers, with its trace context, and \
settled once the broker has confirmed that. Messages without such a header stay in the \
dead-letter topic, and so do messages that are dead-lettered again meanwhile.

On RabbitMQ name a group that existed when the letters arrived, such as `parked`, which this \
library creates for every dead-letter topic.

Examples:
  # Count the letters
  traced-broker redrive kafka://localhost:9092 orders.dead --dry-run

  # Send a few back, then all
  traced-broker redrive amqp://localhost orders.dead --group parked --limit 10
  traced-broker redrive amqp://localhost orders.dead --group parked

Exit codes:
  0  every letter that was read was sent back, or could be
  1  some letters were left
  2  an error";

#[derive(Args)]
pub(crate) struct Redrive {
    #[command(flatten)]
    endpoint: Endpoint,
    /// The group that reads the letters
    #[arg(long, value_name = "NAME", default_value = "redrive")]
    group: String,
    /// Send back at most N letters
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Time without a letter after which the topic counts as empty; joining a group takes seconds
    /// on Kafka
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = time::duration)]
    idle: Duration,
    /// Send no letters, and count those that could be sent, up to 10,000
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command; returns `true` if no letter was left.
pub(crate) async fn run(options: Redrive) -> Result<bool, CliError> {
    let redriven = telemetry::traced(options.connect_and_send()).await?;
    output::print_as(options.json, || options.json(redriven), || options.text(redriven))?;
    Ok(redriven.left == 0)
}

impl Redrive {
    async fn connect_and_send(&self) -> Result<Redriven, CliError> {
        let broker = self.endpoint.connect(Topology::AsConfigured).await?;
        let redriven = self.send(&broker).await;
        let redriven = redriven.map_err(|error| self.endpoint.error("redrive", &error));
        let closed = close(&broker).await;
        redriven.and_then(|redriven| closed.map(|()| redriven))
    }

    async fn send(&self, broker: &Broker) -> traced_broker::Result<Redriven> {
        let bar = Bar::new(self.limit);
        let draw = |now: Redriven| {
            bar.set(now.sent_back, &if now.left > 0 { format!("{} left", now.left) } else { String::new() })
        };
        let mut redrive = broker.redrive(&self.endpoint.topic).group(&self.group).idle(self.idle).on_progress(draw);
        if let Some(limit) = self.limit {
            redrive = redrive.at_most(limit);
        }
        if self.dry_run {
            redrive = redrive.dry_run();
        }
        redrive.run_until(stop_signal()).await
    }

    fn json(&self, Redriven { sent_back, left, .. }: Redriven) -> Value {
        let key = if self.dry_run { "could_be_sent_back" } else { "sent_back" };
        json!({ key: sent_back, "left": left })
    }

    fn text(&self, Redriven { sent_back, left, .. }: Redriven) -> String {
        let done = if self.dry_run { "could be sent back" } else { "sent back" };
        let rest = if left > 0 { format!(", {left} left in the topic") } else { String::new() };
        let more = if self.dry_run && sent_back + left >= MAX_LOOKED_AT as u64 { "; there may be more" } else { "" };
        format!("{sent_back} {done}{rest}{more}")
    }
}
