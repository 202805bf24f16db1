//! `traced-broker consume`: shows the messages of a topic.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use traced_broker::{Capabilities, Deliveries, Delivery, Start, Subscription, TracedBroker as _};

use crate::context::CarriedContext;
use crate::endpoint::{Endpoint, Topology, close};
use crate::error::{CliError, chain};
use crate::output::{self, Terminal};
use crate::stop::stop_signal_or;
use crate::{deliveries, message, time};

pub(crate) const EXAMPLES: &str = "\
Without --group other consumers are not affected: no group loses a message, no position moves, \
nothing is created. On RabbitMQ the command then shows only messages that are published while it \
runs, because reading the queue of a group would take its messages.

Header values that look like credentials are shown as ***.

Examples:
  # All messages from now on, until Ctrl-C
  traced-broker consume kafka://localhost:9092 orders

  # The trace ids of the last ten minutes
  traced-broker consume nats://localhost:4222 orders --from 10m --for 5s --json | jq -r .context.trace_id

  # Five messages as a member of a group: they are acknowledged, and no other member gets them
  traced-broker consume amqp://localhost orders --group billing --count 5

Exit codes:
  0  ended by --count, --for, Ctrl-C, or because the reader of its output ended
  2  an error";

/// Maximum number of prefetched messages.
const PREFETCH: u64 = 256;

#[derive(Args)]
pub(crate) struct Consume {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Start position: earliest, latest, a time, or a duration before now; a group uses it only
    /// when it is new [default: latest; earliest for a new group]
    #[arg(long, value_name = "earliest|latest|TIME|DURATION", value_parser = time::start)]
    from: Option<Start>,
    /// Join this group: each message is acknowledged once it is printed, and other members do not
    /// get it
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// End after N messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = time::duration)]
    time: Option<Duration>,
    /// Show headers only
    #[arg(long)]
    no_payload: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: Consume) -> Result<(), CliError> {
    let topology = if options.group.is_some() { Topology::AsConfigured } else { Topology::CheckOnly };
    let broker = options.endpoint.connect(topology).await?;
    let subscription = options.subscription(broker.capabilities());
    let subscribed = broker.subscribe(subscription).await;
    let deliveries = subscribed.map_err(|error| options.endpoint.error("consume", &error))?;
    let shown = options.show(deliveries, stop_signal_or(elapsed(options.time))).await;
    close(&broker).await?;
    shown
}

/// Completes after the time, if there is one.
async fn elapsed(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

impl Consume {
    fn subscription(&self, broker: &Capabilities) -> Subscription {
        let mut subscription = match &self.group {
            None => self.endpoint.observe(),
            Some(group) => {
                let member = Subscription::new(&self.endpoint.topic).group(group);
                if broker.at_least_once { member } else { member.at_most_once() }
            }
        };
        if let Some(from) = self.from {
            subscription = subscription.start(from);
        }
        // Messages that will not be printed are left to the other members.
        subscription.prefetch(self.count.unwrap_or(PREFETCH).min(PREFETCH) as usize)
    }

    async fn show(&self, mut deliveries: Deliveries, stop: impl Future<Output = ()>) -> Result<(), CliError> {
        let terminal = Terminal::stdout();
        let mut stop = pin!(stop);
        let mut printed = 0;
        while self.count.is_none_or(|count| printed < count) {
            let Some(delivery) = deliveries::next(&mut deliveries, stop.as_mut()).await else { break };
            if !self.print(&delivery, terminal)? {
                break;
            }
            printed += 1;
            acknowledge(delivery).await;
        }
        Ok(())
    }

    /// Prints a message; returns `false` once the reader of the output has ended.
    fn print(&self, delivery: &Delivery, terminal: Terminal) -> Result<bool, CliError> {
        let received = delivery.message();
        let carried = CarriedContext::read(received.headers(), received.payload());
        let printed = if self.json {
            output::print_line(&message::json(received, &carried, !self.no_payload))?
        } else {
            output::print_line(&message::text(received, &carried, !self.no_payload, terminal.colour))?
        };
        Ok(printed.is_continue())
    }
}

async fn acknowledge(delivery: Delivery) {
    if let Err(error) = delivery.ack().await {
        output::warn(&format!("cannot acknowledge a message, it will be redelivered: {}", chain(&error)));
    }
}
