//! `traced-broker bridge`: copies a topic to another broker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use traced_broker::bridge::{DEFAULT_IN_FLIGHT, Progress};
use traced_broker::verify::HumanDuration;
use traced_broker::{Bridged, Broker, Dialect, Start, Subscription, TracedBroker as _, TracedBrokerExt as _};

use crate::bar::Bar;
use crate::endpoint::{Endpoint, Topology, close};
use crate::error::CliError;
use crate::stop::stop_signal_or;
use crate::{output, telemetry, time};

pub(crate) const EXAMPLES: &str = "\
A message is acknowledged once the other broker has confirmed the copy. The copy keeps the trace \
context of the producer, so one trace covers both brokers. A bridge that is started again \
resumes at the position of its group.

Examples:
  # Copy until Ctrl-C, then finish the messages in flight
  traced-broker bridge amqp://localhost orders kafka://localhost:9092 orders

  # Copy all stored messages; those that cannot be copied go to a dead-letter topic
  traced-broker bridge redis://localhost orders nats://localhost:4222 orders --until-empty --dead-letter orders.stranded

Exit codes:
  0  all consumed messages were copied
  1  some messages could not be copied and were given up
  2  an error";

/// Interval between updates of the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// The default of `--until-empty`.
const UNTIL_EMPTY: &str = "5s";

#[derive(Args)]
pub(crate) struct Bridge {
    /// The broker to copy from
    from_url: String,
    /// The topic to copy
    from_topic: String,
    /// The broker to copy to
    to_url: String,
    /// The topic to copy to
    to_topic: String,
    /// The group that the bridge consumes as, which holds its position [default:
    /// bridge-SYSTEM-TOPIC of the target]
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Start position of a new group: earliest, latest, a time, or a duration before now
    #[arg(long, value_name = "earliest|latest|TIME|DURATION", default_value = "earliest", value_parser = time::start)]
    from: Start,
    /// End once N messages are copied
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time without a message; use several seconds on Kafka, where joining a group
    /// is slow
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = UNTIL_EMPTY, value_parser = time::duration)]
    until_empty: Option<Duration>,
    /// Maximum number of messages in flight
    #[arg(long, value_name = "N", default_value_t = DEFAULT_IN_FLIGHT)]
    in_flight: usize,
    /// Copy the messages of each key one after another, so that failures do not change their order
    #[arg(long)]
    ordered: bool,
    /// A topic of the source broker for messages that cannot be copied; without it they are
    /// discarded
    #[arg(long, value_name = "TOPIC")]
    dead_letter: Option<String>,
    /// Read trace contexts in another format than the W3C's: b3, jaeger, cloudevents, …
    #[arg(long, value_name = "NAME", value_parser = dialect)]
    dialect: Vec<Dialect>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command; returns `true` if every consumed message was copied.
pub(crate) async fn run(options: Bridge) -> Result<bool, CliError> {
    if options.from_url == options.to_url && options.from_topic == options.to_topic {
        return Err(CliError::new("a bridge from a topic to itself would copy its own copies forever"));
    }
    let bridged = telemetry::traced(options.connect_and_copy()).await?;
    output::print_as(options.json, || json(&bridged), || text(&bridged))?;
    Ok(bridged.consumed.rejected == 0)
}

impl Bridge {
    async fn connect_and_copy(&self) -> Result<Bridged, CliError> {
        let [source, target] = self.endpoints();
        let (from, to) = (source.connect(Topology::AsConfigured).await?, target.connect(Topology::AsConfigured).await?);
        let bridged = self.copy(&from, &to).await;
        let bridged = bridged.map_err(|error| source.error("copy from", &error));
        let closed = close(&from).await.and(close(&to).await);
        bridged.and_then(|bridged| closed.map(|()| bridged))
    }

    fn endpoints(&self) -> [Endpoint; 2] {
        [(&self.from_url, &self.from_topic), (&self.to_url, &self.to_topic)]
            .map(|(url, topic)| Endpoint { url: url.clone(), topic: topic.clone() })
    }

    async fn copy(&self, from: &Broker, to: &Broker) -> traced_broker::Result<Bridged> {
        let watch = Watch::new(self.count, self.until_empty);
        let mut bridge = from
            .bridge(self.subscription(from, to), to, &self.to_topic)
            .in_flight(self.in_flight)
            .progress_every(PROGRESS_INTERVAL)
            .on_progress(|now| watch.update(now))
            .prepare(|message, received| {
                watch.consumed(received.timestamp().map(|stored| stored.time));
                Ok(message)
            });
        if let Some(count) = self.count {
            bridge = bridge.at_most(count);
        }
        if self.ordered {
            bridge = bridge.ordered_by_key();
        }
        bridge.run_until(stop_signal_or(watch.empty.cancelled())).await
    }

    fn subscription(&self, from: &Broker, to: &Broker) -> Subscription {
        let group = self.group.clone().unwrap_or_else(|| format!("bridge-{}-{}", to.system(), self.to_topic));
        let mut subscription = Subscription::new(&self.from_topic).group(group).dialects(self.dialect.iter().copied());
        // The default is left unset for brokers without a backlog.
        if self.from != Start::Earliest {
            subscription = subscription.start(self.from);
        }
        if let Some(topic) = &self.dead_letter {
            subscription = subscription.dead_letter(topic);
        }
        if !from.capabilities().at_least_once {
            subscription = subscription.at_most_once();
        }
        subscription
    }
}

/// The state behind the progress bar, which also detects an empty topic.
struct Watch {
    bar: Bar,
    /// The storage time of the newest consumed message, in milliseconds since 1970; 0 if unknown.
    newest: AtomicU64,
    /// The last progress that differed from the one before, and its time; `None` at first.
    last: Mutex<Option<(Progress, Instant)>>,
    idle: Option<Duration>,
    empty: CancellationToken,
}

impl Watch {
    fn new(count: Option<u64>, idle: Option<Duration>) -> Self {
        let (newest, last) = (AtomicU64::new(0), Mutex::new(None));
        Self { bar: Bar::new(count), newest, last, idle, empty: CancellationToken::new() }
    }

    fn consumed(&self, stored: Option<SystemTime>) {
        let since = stored.and_then(|stored| stored.duration_since(SystemTime::UNIX_EPOCH).ok());
        let millis = since.map(|since| since.as_millis().try_into().unwrap_or(u64::MAX)).unwrap_or_default();
        self.newest.fetch_max(millis, Ordering::Relaxed);
    }

    fn update(&self, now: Progress) {
        self.bar.set(now.copied, &self.details(now));
        let mut last = self.last.lock();
        let is_idle = |then: &Progress| now.under_way == 0 && (now.copied, now.failed) == (then.copied, then.failed);
        let since = match *last {
            Some((then, since)) if is_idle(&then) => since,
            _ => last.insert((now, Instant::now())).1,
        };
        if self.idle.is_some_and(|idle| since.elapsed() >= idle) {
            self.empty.cancel();
        }
    }

    /// Describes the rate, the age of the messages, and failures.
    fn details(&self, now: Progress) -> String {
        let mut details = format!("{:.0}/s", now.rate);
        let newest = self.newest.load(Ordering::Relaxed);
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::from_millis(newest));
        if let (1.., Ok(age), 1..) = (newest, age, now.under_way) {
            details.push_str(&format!(", {} behind", HumanDuration(age)));
        }
        if now.failed > 0 {
            details.push_str(&format!(", {} attempts failed", now.failed));
        }
        details
    }
}

fn text(bridged: &Bridged) -> String {
    let rejected = match bridged.consumed.rejected {
        0 => String::new(),
        given_up => format!(", {given_up} given up"),
    };
    format!("{}{rejected}", bridged.progress)
}

fn json(bridged: &Bridged) -> Value {
    let (progress, consumed) = (bridged.progress, bridged.consumed);
    json!({
        "copied": progress.copied,
        "bytes": progress.bytes,
        "seconds": progress.elapsed.as_secs_f64(),
        "rate": progress.rate,
        "failed_attempts": progress.failed,
        "given_up": consumed.rejected,
        "not_settled": consumed.unsettled,
        "headers_dropped": progress.headers_dropped,
        "headers_renamed": progress.headers_renamed,
    })
}

fn dialect(name: &str) -> Result<Dialect, String> {
    let found = Dialect::ALL.into_iter().find(|dialect| dialect.as_str().eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let known = Dialect::ALL.map(Dialect::as_str).join(", ");
        format!("`{name}` is not one of {known}")
    })
}
