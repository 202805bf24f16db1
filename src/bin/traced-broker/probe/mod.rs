//! `traced-broker probe`: whether a trace gets through a topic, and how long that takes.

mod marked;
mod report;

use std::pin::pin;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt as _;
use tokio::time::{sleep_until, timeout};
use traced_broker::driver::Timestamp;
use traced_broker::{Broker, Deliveries, HandlerError, Receipt, TracedBroker as _};

pub(crate) use self::marked::MARK;
use self::marked::{Change, Marked};
use self::report::Report;
use crate::bar::Bar;
use crate::place::{Missing, Place, close};
use crate::stop::told_to_stop;
use crate::trouble::{Trouble, chain};
use crate::{duration, screen, telemetry};

pub(crate) const EXAMPLES: &str = "\
WARNING: consumers of the topic see the messages. They are JSON, and have the header `traced-broker-probe`, by which a consumer of \
yours can pass them over: .filter(|message| !message.headers().contains(\"traced-broker-probe\")).

Between two topics, whatever carries messages from the one to the other is checked too: a bridge, a connector, a service. \
One that makes a span of its own on the way has another parent span id arrive; that is told, and no failure.

Examples:
  # Whether contexts survive, and the hop times
  traced-broker probe kafka://localhost:9092 orders

  # Percentiles of a hundred, for a program
  traced-broker probe nats://localhost:4222 orders --count 100 --json

  # Through a bridge to another broker
  traced-broker probe amqp://localhost orders --watch-url kafka://localhost:9092 --watch-topic orders

Exit codes:
  0  all arrived, with their context
  1  a context did not survive, or a message did not arrive in time
  2  it could not be checked";

/// How long a message that arrived is still waited for to be confirmed.
const CONFIRM: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Probe {
    #[command(flatten)]
    place: Place,
    /// How many messages, one after the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    count: u64,
    /// How long a message may take to arrive
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    timeout: Duration,
    /// Where the messages are to arrive, if that is another topic
    #[arg(long, value_name = "TOPIC")]
    watch_topic: Option<String>,
    /// The broker where they are to arrive, if that is another one
    #[arg(long, value_name = "URL")]
    watch_url: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What became of one message.
struct Attempt {
    trace_id: String,
    receipt: Receipt,
    /// From the call to the broker's confirmation.
    confirmed: Duration,
    arrival: Option<Arrival>,
}

/// A message that came out.
struct Arrival {
    /// From the call that published it.
    after: Duration,
    /// How long it was in the queue, by whose clock.
    queued: Option<(Duration, Timestamp)>,
    changes: Vec<Change>,
}

/// Whether all arrived with their context.
pub(crate) async fn run(options: Probe) -> Result<bool, Trouble> {
    let telemetry = telemetry::start()?;
    let probed = probe(&options).await;
    telemetry.end().await;
    let report = probed?;
    if options.json {
        screen::print(&report.json())?;
    } else {
        screen::print(&report.text())?;
    }
    Ok(report.is_fine())
}

async fn probe(options: &Probe) -> Result<Report, Trouble> {
    let broker = options.place.connect(Missing::ByOption).await?;
    let far = options.far();
    let watching = match &options.watch_url {
        Some(_) => far.connect(Missing::ByOption).await?,
        None => broker.clone(),
    };
    // Before anything is published: some brokers keep nothing for who comes later.
    let subscribed = watching.subscribe(far.watched()).await;
    let mut arrivals = subscribed.map_err(|error| far.trouble("watch", &error))?;
    let attempts = options.attempts(&broker, &mut arrivals).await;
    drop(arrivals);
    let closed = close(&broker).await.and(close(&watching).await);
    let report =
        Report { from: options.place.shown(), to: far.shown(), elsewhere: options.elsewhere(), attempts: attempts? };
    closed.map(|()| report)
}

impl Probe {
    fn elsewhere(&self) -> bool {
        self.watch_topic.is_some() || self.watch_url.is_some()
    }

    /// Where the messages are to arrive.
    fn far(&self) -> Place {
        let url = self.watch_url.clone().unwrap_or_else(|| self.place.url.clone());
        let topic = self.watch_topic.clone().unwrap_or_else(|| self.place.topic.clone());
        Place { url, topic }
    }

    /// One after the other, until there are enough or somebody has seen enough.
    async fn attempts(&self, broker: &Broker, arrivals: &mut Deliveries) -> Result<Vec<Attempt>, Trouble> {
        let bar = (self.count > 1).then(|| Bar::new(Some(self.count)));
        let mut stop = pin!(told_to_stop());
        let mut attempts = Vec::new();
        for number in 0..self.count {
            let attempt = tokio::select! {
                biased;
                () = &mut stop => break,
                attempt = self.attempt(broker, arrivals) => attempt?,
            };
            attempts.push(attempt);
            bar.iter().for_each(|bar| bar.set(number + 1, ""));
        }
        if attempts.is_empty() { Err(Trouble::new("stopped before the first message arrived")) } else { Ok(attempts) }
    }

    async fn attempt(&self, broker: &Broker, arrivals: &mut Deliveries) -> Result<Attempt, Trouble> {
        let marked = Marked::new(&self.place.topic, broker.system());
        let begun = Instant::now();
        let publishing = async {
            let sent = broker.forward(&self.place.topic, marked.message()).await;
            (sent, begun.elapsed())
        };
        let mut publishing = pin!(publishing);
        let arriving = async {
            tokio::select! {
                arrival = self.arrival(&marked, begun, arrivals) => arrival.map(Some),
                () = sleep_until((begun + self.timeout).into()) => Ok(None),
            }
        };
        let mut arriving = pin!(arriving);
        // What cannot be published does not arrive either: nobody has to wait for that.
        let (sent, arrival) = tokio::select! {
            biased;
            (sent, confirmed) = &mut publishing => match sent {
                Ok(receipt) => ((receipt, confirmed), arriving.await?),
                Err(error) => return Err(self.place.trouble("publish to", &error)),
            },
            arrival = &mut arriving => {
                let late = || Trouble::new("the broker does not confirm what is published");
                let (sent, confirmed) = timeout(CONFIRM, publishing).await.map_err(|_| late())?;
                let receipt = sent.map_err(|error| self.place.trouble("publish to", &error))?;
                ((receipt, confirmed), arrival?)
            }
        };
        let (receipt, confirmed) = sent;
        marked.end();
        Ok(Attempt { trace_id: marked.trace_id(), receipt, confirmed, arrival })
    }

    /// Waits for the marked message among whatever else comes.
    async fn arrival(&self, marked: &Marked, begun: Instant, arrivals: &mut Deliveries) -> Result<Arrival, Trouble> {
        loop {
            let delivery = match arrivals.next().await {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => {
                    screen::remark(&format!("trouble with the subscription, which goes on: {}", chain(&error)));
                    continue;
                }
                None => return Err(Trouble::new("the subscription has ended")),
            };
            let received = delivery.message();
            if !marked.is(received) {
                continue;
            }
            let queued = received.time_in_queue().zip(received.timestamp());
            let arrival =
                Arrival { after: begun.elapsed(), queued, changes: marked.changes(received, self.elsewhere()) };
            // The far end of its trace, where spans are exported.
            let handled = delivery.process(|_| async { Ok::<_, HandlerError>(()) }).await;
            return handled.map(|_| arrival).map_err(|error| Trouble::because("cannot handle the message", &error));
        }
    }
}
