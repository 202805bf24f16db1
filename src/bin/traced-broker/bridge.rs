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
use crate::place::{Missing, Place, close};
use crate::stop::told_to_stop;
use crate::trouble::Trouble;
use crate::{duration, moment, screen, telemetry};

pub(crate) const EXAMPLES: &str = "\
A message is acknowledged once the other broker has confirmed the copy, and keeps the context of whoever made it: one trace through \
both. A bridge that is stopped goes on where it ended, since its position is that of its group.

Examples:
  # Until Ctrl-C, which lets what is on its way arrive
  traced-broker bridge amqp://localhost orders kafka://localhost:9092 orders

  # All there is, and what cannot cross to a topic of its own
  traced-broker bridge redis://localhost orders nats://localhost:4222 orders --until-empty --dead-letter orders.stranded

Exit codes:
  0  ended as it should; all that was taken has crossed
  1  messages could not cross and were given up
  2  it could not be done";

/// How often it looks how far it has come.
const LOOK: Duration = Duration::from_millis(200);
/// How long nothing may come before there is nothing.
const EMPTY: &str = "5s";

#[derive(Args)]
pub(crate) struct Bridge {
    /// The broker to copy from
    from_url: String,
    /// The topic to copy
    from_topic: String,
    /// The broker to copy to
    to_url: String,
    /// The topic there
    to_topic: String,
    /// The group that the bridge consumes as, and its place in the topic [default: bridge-SYSTEM-TOPIC of the target]
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Where a new group begins: earliest, latest, a time, or how long ago
    #[arg(long, value_name = "earliest|latest|TIME|DURATION", default_value = "earliest", value_parser = moment::start)]
    from: Start,
    /// End once that many have crossed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End once nothing has come for this time, which should be seconds on Kafka, where joining a group takes some
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = EMPTY, value_parser = duration::parse)]
    until_empty: Option<Duration>,
    /// How many may be on their way at a time
    #[arg(long, value_name = "N", default_value_t = DEFAULT_IN_FLIGHT)]
    in_flight: usize,
    /// Copy the messages of a key one after the other, so that they keep their order through failures
    #[arg(long)]
    ordered: bool,
    /// Where messages go, at the source, that cannot cross; without it they are discarded
    #[arg(long, value_name = "TOPIC")]
    dead_letter: Option<String>,
    /// Understand contexts that are not the W3C's: b3, jaeger, cloudevents, …
    #[arg(long, value_name = "NAME", value_parser = dialect)]
    dialect: Vec<Dialect>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Whether all that was taken has crossed.
pub(crate) async fn run(options: Bridge) -> Result<bool, Trouble> {
    if options.from_url == options.to_url && options.from_topic == options.to_topic {
        return Err(Trouble::new("a bridge from a topic to itself would copy its own copies for ever"));
    }
    let telemetry = telemetry::start()?;
    let bridged = options.connect_and_copy().await;
    telemetry.end().await;
    let bridged = bridged?;
    if options.json {
        screen::print(&json(&bridged))?;
    } else {
        screen::print(&text(&bridged))?;
    }
    Ok(bridged.consumed.rejected == 0)
}

impl Bridge {
    async fn connect_and_copy(&self) -> Result<Bridged, Trouble> {
        let [near, far] = self.places();
        let (from, to) = (near.connect(Missing::ByOption).await?, far.connect(Missing::ByOption).await?);
        let bridged = self.copy(&from, &to).await;
        let bridged = bridged.map_err(|error| near.trouble("copy from", &error));
        let closed = close(&from).await.and(close(&to).await);
        bridged.and_then(|bridged| closed.map(|()| bridged))
    }

    fn places(&self) -> [Place; 2] {
        let place = |url: &String, topic: &String| Place { url: url.clone(), topic: topic.clone() };
        [place(&self.from_url, &self.from_topic), place(&self.to_url, &self.to_topic)]
    }

    async fn copy(&self, from: &Broker, to: &Broker) -> traced_broker::Result<Bridged> {
        let watch = Watch::new(self.count, self.until_empty);
        let mut bridge = from
            .bridge(self.subscription(from, to), to, &self.to_topic)
            .in_flight(self.in_flight)
            .progress_every(LOOK)
            .on_progress(|now| watch.look(now))
            .prepare(|message, received| {
                watch.saw(received.timestamp().map(|stored| stored.time));
                Ok(message)
            });
        if let Some(count) = self.count {
            bridge = bridge.at_most(count);
        }
        if self.ordered {
            bridge = bridge.ordered_by_key();
        }
        let stop = async {
            tokio::select! {
                () = told_to_stop() => {}
                () = watch.empty.cancelled() => {}
            }
        };
        bridge.run_until(stop).await
    }

    fn subscription(&self, from: &Broker, to: &Broker) -> Subscription {
        let group = self.group.clone().unwrap_or_else(|| format!("bridge-{}-{}", to.system(), self.to_topic));
        let mut subscription = Subscription::new(&self.from_topic).group(group).dialects(self.dialect.iter().copied());
        // What is the same as not saying it is left unsaid, for brokers that keep no backlog.
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

/// Draws the progress, and notices when nothing more comes.
struct Watch {
    bar: Bar,
    /// When the newest message that was taken was stored, in milliseconds since 1970; 0 where that is not known.
    newest: AtomicU64,
    /// How far it had come, and since when; `None` until it has begun.
    last: Mutex<Option<(Progress, Instant)>>,
    idle: Option<Duration>,
    empty: CancellationToken,
}

impl Watch {
    fn new(count: Option<u64>, idle: Option<Duration>) -> Self {
        let (newest, last) = (AtomicU64::new(0), Mutex::new(None));
        Self { bar: Bar::new(count), newest, last, idle, empty: CancellationToken::new() }
    }

    fn saw(&self, stored: Option<SystemTime>) {
        let since = stored.and_then(|stored| stored.duration_since(SystemTime::UNIX_EPOCH).ok());
        let millis = since.map(|since| since.as_millis().try_into().unwrap_or(u64::MAX)).unwrap_or_default();
        self.newest.fetch_max(millis, Ordering::Relaxed);
    }

    fn look(&self, now: Progress) {
        self.bar.set(now.copied, &self.words(now));
        let mut last = self.last.lock();
        let rests = |then: &Progress| now.under_way == 0 && (now.copied, now.failed) == (then.copied, then.failed);
        let since = match *last {
            Some((then, since)) if rests(&then) => since,
            _ => last.insert((now, Instant::now())).1,
        };
        if self.idle.is_some_and(|idle| since.elapsed() >= idle) {
            self.empty.cancel();
        }
    }

    /// The rate, how old the messages are that cross now, and what is wrong.
    fn words(&self, now: Progress) -> String {
        let mut words = format!("{:.0}/s", now.rate);
        let newest = self.newest.load(Ordering::Relaxed);
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::from_millis(newest));
        if let (1.., Ok(age), 1..) = (newest, age, now.under_way) {
            words.push_str(&format!(", {} behind", HumanDuration(age)));
        }
        if now.failed > 0 {
            words.push_str(&format!(", {} attempts failed", now.failed));
        }
        words
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
