//! `traced-broker consume`: a tail of a topic.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use traced_broker::{Capabilities, Deliveries, Delivery, Start, Subscription, TracedBroker as _};

use crate::context::Carried;
use crate::place::{Missing, Place, close};
use crate::screen::{self, Screen};
use crate::stop::told_to_stop;
use crate::trouble::{Trouble, chain};
use crate::{duration, message, moment, reading};

pub(crate) const EXAMPLES: &str = "\
Without --group nobody else notices: no group loses a message, no position moves, nothing is made. On RabbitMQ such a tail \
sees what is published while it runs; to look into the queue of a group there, its messages would have to be taken.

What looks like a credential in a header is shown as ***.

Examples:
  # What is published from now on, until Ctrl-C
  traced-broker consume kafka://localhost:9092 orders

  # The trace ids of the last ten minutes
  traced-broker consume nats://localhost:4222 orders --from 10m --for 5s --json | jq -r .context.trace_id

  # Five messages of a group: they count as handled, and no other member gets them
  traced-broker consume amqp://localhost orders --group billing --count 5

Exit codes:
  0  ended by --count, --for, Ctrl-C, or because nobody reads on
  2  it could not be done";

/// How many messages may be in hand at a time.
const PREFETCH: u64 = 256;

#[derive(Args)]
pub(crate) struct Consume {
    #[command(flatten)]
    place: Place,
    /// Where to begin: earliest, latest, a time, or how long ago; for a group only when it is new [default: latest, and of a new group earliest]
    #[arg(long, value_name = "earliest|latest|TIME|DURATION", value_parser = moment::start)]
    from: Option<Start>,
    /// Take part in this group: each message is acknowledged once it is printed, and its other members do not get it
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// End after that many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    time: Option<Duration>,
    /// Show headers only
    #[arg(long)]
    no_payload: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: Consume) -> Result<(), Trouble> {
    let missing = if options.group.is_some() { Missing::ByOption } else { Missing::IsTrouble };
    let broker = options.place.connect(missing).await?;
    let subscription = options.subscription(broker.capabilities());
    let subscribed = broker.subscribe(subscription).await;
    let deliveries = subscribed.map_err(|error| options.place.trouble("consume", &error))?;
    let stop = async {
        tokio::select! {
            () = told_to_stop() => {}
            () = ended(options.time) => {}
        }
    };
    let tailed = options.tail(deliveries, stop).await;
    close(&broker).await?;
    tailed
}

/// Ends after the time, if there is one.
async fn ended(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

impl Consume {
    fn subscription(&self, broker: &Capabilities) -> Subscription {
        let mut subscription = match &self.group {
            None => self.place.watched(),
            Some(group) => {
                let member = Subscription::new(&self.place.topic).group(group);
                if broker.at_least_once { member } else { member.at_most_once() }
            }
        };
        if let Some(from) = self.from {
            subscription = subscription.start(from);
        }
        // What is not to be printed is left to others.
        subscription.prefetch(self.count.unwrap_or(PREFETCH).min(PREFETCH) as usize)
    }

    async fn tail(&self, mut deliveries: Deliveries, stop: impl Future<Output = ()>) -> Result<(), Trouble> {
        let screen = Screen::new();
        let mut stop = pin!(stop);
        let mut printed = 0;
        while self.count.is_none_or(|count| printed < count) {
            let Some(delivery) = reading::next(&mut deliveries, stop.as_mut()).await else { break };
            if !self.print(&delivery, screen)? {
                break;
            }
            printed += 1;
            acknowledge(delivery).await;
        }
        Ok(())
    }

    /// Whether anybody still reads.
    fn print(&self, delivery: &Delivery, screen: Screen) -> Result<bool, Trouble> {
        let received = delivery.message();
        let carried = Carried::read(received.headers(), received.payload());
        let printed = if self.json {
            screen::line(&message::json(received, &carried, !self.no_payload))?
        } else {
            screen::line(&message::text(received, &carried, !self.no_payload, screen.colour))?
        };
        Ok(printed.is_continue())
    }
}

async fn acknowledge(delivery: Delivery) {
    if let Err(error) = delivery.ack().await {
        screen::remark(&format!("a message comes again: {}", chain(&error)));
    }
}
