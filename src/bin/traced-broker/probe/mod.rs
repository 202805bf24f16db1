//! `traced-broker probe`: checks that trace context survives a topic, and measures the time in it.

mod marked;
mod report;

use std::future::pending;
use std::pin::pin;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::time::{sleep_until, timeout};
use traced_broker::driver::Timestamp;
use traced_broker::{Broker, Deliveries, HandlerError, Receipt, TracedBroker as _};

pub(crate) use self::marked::MARK;
use self::marked::{Change, Marked};
use self::report::Report;
use crate::bar::Bar;
use crate::endpoint::{Endpoint, Topology, close};
use crate::error::CliError;
use crate::stop::stop_signal;
use crate::{deliveries, output, telemetry, time};

pub(crate) const EXAMPLES: &str = "\
WARNING: consumers of the topic see the messages. Their payload is JSON, and they have the \
header `traced-broker-probe`, so your consumers can skip them: .filter(|message| \
!message.headers().contains(\"traced-broker-probe\")).

With --watch-topic or --watch-url, the component that carries messages from the one topic to the \
other is checked, too: a bridge, a connector or a service. If it creates its own spans, another \
parent span id arrives; this is reported, but is not a failure.

Examples:
  # Check the context and measure the times
  traced-broker probe kafka://localhost:9092 orders

  # Percentiles of a hundred messages, as JSON
  traced-broker probe nats://localhost:4222 orders --count 100 --json

  # Through a bridge to another broker
  traced-broker probe amqp://localhost orders --watch-url kafka://localhost:9092 --watch-topic orders

Exit codes:
  0  all messages arrived with their context
  1  a context was lost or changed, or a message did not arrive in time
  2  an error";

/// Maximum time to wait for the confirmation of a message that has arrived.
const CONFIRM: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Probe {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Number of messages, sent one after another
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    count: u64,
    /// Maximum time for a message to arrive
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = time::duration)]
    timeout: Duration,
    /// The topic where the messages arrive, if it is another one
    #[arg(long, value_name = "TOPIC")]
    watch_topic: Option<String>,
    /// The broker where the messages arrive, if it is another one
    #[arg(long, value_name = "URL")]
    watch_url: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The result of one message.
struct Attempt {
    trace_id: String,
    receipt: Receipt,
    /// Duration from the publish call to the broker's confirmation.
    confirmed: Duration,
    arrival: Option<Arrival>,
}

/// The arrival of a message.
struct Arrival {
    /// Duration since the publish call.
    after: Duration,
    /// The time in the queue, and the timestamp it is measured from.
    queued: Option<(Duration, Timestamp)>,
    changes: Vec<Change>,
}

/// Runs the command; returns `true` if all messages arrived with their context.
pub(crate) async fn run(options: Probe) -> Result<bool, CliError> {
    let report = telemetry::traced(probe(&options)).await?;
    output::print_as(options.json, || report.json(), || report.text())?;
    Ok(report.is_fine())
}

async fn probe(options: &Probe) -> Result<Report, CliError> {
    let broker = options.endpoint.connect(Topology::AsConfigured).await?;
    let target = options.target();
    let watching = match &options.watch_url {
        Some(_) => target.connect(Topology::AsConfigured).await?,
        None => broker.clone(),
    };
    // Subscribe before publishing, because some brokers keep no messages for later subscribers.
    let subscribed = watching.subscribe(target.observe()).await;
    let mut arrivals = subscribed.map_err(|error| target.error("observe", &error))?;
    let attempts = options.attempts(&broker, &mut arrivals).await;
    drop(arrivals);
    let closed = close(&broker).await.and(close(&watching).await);
    let report = Report {
        from: options.endpoint.description(),
        to: target.description(),
        has_other_target: options.has_other_target(),
        attempts: attempts?,
    };
    closed.map(|()| report)
}

impl Probe {
    fn has_other_target(&self) -> bool {
        self.watch_topic.is_some() || self.watch_url.is_some()
    }

    /// Returns the endpoint where the messages arrive.
    fn target(&self) -> Endpoint {
        let url = self.watch_url.clone().unwrap_or_else(|| self.endpoint.url.clone());
        let topic = self.watch_topic.clone().unwrap_or_else(|| self.endpoint.topic.clone());
        Endpoint { url, topic }
    }

    /// Sends the messages one after another until all are sent or a signal arrives.
    async fn attempts(&self, broker: &Broker, arrivals: &mut Deliveries) -> Result<Vec<Attempt>, CliError> {
        let bar = (self.count > 1).then(|| Bar::new(Some(self.count)));
        let mut stop = pin!(stop_signal());
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
        if attempts.is_empty() { Err(CliError::new("stopped before the first message arrived")) } else { Ok(attempts) }
    }

    async fn attempt(&self, broker: &Broker, arrivals: &mut Deliveries) -> Result<Attempt, CliError> {
        let marked = Marked::new(&self.endpoint.topic, broker.system());
        let begun = Instant::now();
        let publishing = async {
            let sent = broker.forward(&self.endpoint.topic, marked.message()).await;
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
        // A failed publish ends the attempt at once, because the message will not arrive.
        let (sent, arrival) = tokio::select! {
            biased;
            (sent, confirmed) = &mut publishing => match sent {
                Ok(receipt) => ((receipt, confirmed), arriving.await?),
                Err(error) => return Err(self.endpoint.error("publish to", &error)),
            },
            arrival = &mut arriving => {
                let late = || CliError::new("the broker does not confirm the message");
                let (sent, confirmed) = timeout(CONFIRM, publishing).await.map_err(|_| late())?;
                let receipt = sent.map_err(|error| self.endpoint.error("publish to", &error))?;
                ((receipt, confirmed), arrival?)
            }
        };
        let (receipt, confirmed) = sent;
        marked.end();
        Ok(Attempt { trace_id: marked.trace_id(), receipt, confirmed, arrival })
    }

    /// Waits for the marked message and skips all others.
    async fn arrival(&self, marked: &Marked, begun: Instant, arrivals: &mut Deliveries) -> Result<Arrival, CliError> {
        loop {
            let Some(delivery) = deliveries::next(arrivals, pin!(pending())).await else {
                return Err(CliError::new("the subscription has ended"));
            };
            let received = delivery.message();
            if !marked.is(received) {
                continue;
            }
            let queued = received.time_in_queue().zip(received.timestamp());
            let arrival =
                Arrival { after: begun.elapsed(), queued, changes: marked.changes(received, self.has_other_target()) };
            // Processing the message creates the last span of its trace.
            let handled = delivery.process(|_| async { Ok::<_, HandlerError>(()) }).await;
            return handled
                .map(|_| arrival)
                .map_err(|error| CliError::with_source("cannot handle the message", &error));
        }
    }
}
