//! An application on the embedded broker, for the length of one test.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};

use super::capture::Capture;
use super::captured::CapturedTrace;
use super::unsettled::Unsettled;
use crate::adapters::memory::{Memory, Pending, Unfinished};
use crate::broker::{Broker, Traced};
use crate::dead_letter;
use crate::driver::{Driver, Outbound};

/// How long [`TestBed::settled`] waits unless [`TestBed::patience`] says otherwise.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

/// An embedded broker of a test's own, and the [`Capture`] of what is done on it.
///
/// Services get their [brokers](Self::broker) from it, or the [URL](Self::url) to connect to, and are otherwise started as in
/// production: the consumer runtime, retries, dead letters and telemetry are the real ones, on a broker that keeps to the same
/// contract as the others.
///
/// ```
/// use traced_broker::testing::TestBed;
/// use traced_broker::{HandlerError, Message, Received, Retry, Subscription, TracedBroker, TracedBrokerExt};
///
/// async fn ship(message: Received) -> Result<(), HandlerError> {
///     if message.attempt() == 1 { Err(HandlerError::retry("the carrier does not answer")) } else { Ok(()) }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let bed = TestBed::new();
/// let workers = Subscription::new("orders").group("workers");
/// let consumer = bed.broker("worker").consume(workers, ship).retry(Retry::exponential(3)).subscribed().await.unwrap();
/// tokio::spawn(consumer.run());
///
/// let api = bed.broker("api");
/// let order = async { api.publish("orders", Message::new("one pair of shoes")).await };
/// bed.in_root_span("api", "POST /orders", order).await.unwrap();
/// bed.settled().await.unwrap();
///
/// bed.trace("POST /orders").assert_whole().hops(["orders"]).attempts("orders", 2).services(["api", "worker"]);
/// # }
/// ```
///
/// With tokio's clock paused (`start_paused = true`, as above) the delays between attempts take no time.
pub struct TestBed {
    capture: Capture,
    memory: Memory,
    /// What was handed out, so that consumers go on when the test has dropped its broker.
    connections: Mutex<Vec<Arc<dyn Driver>>>,
    name: String,
    patience: Duration,
    without_reader: Vec<String>,
}

impl TestBed {
    /// A broker that nobody else has, without topics.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("test-bed-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self {
            capture: Capture::new(),
            memory: Memory::named(&name),
            connections: Mutex::default(),
            name,
            patience: DEFAULT_PATIENCE,
            without_reader: Vec::new(),
        }
    }

    /// How long [`settled`](Self::settled) waits. Default 10 s.
    #[must_use]
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// Says that messages of `topic` need no reader: [`settled`](Self::settled) does not wait until there is one. Topics of dead
    /// letters need none anyhow.
    #[must_use]
    pub fn without_reader(mut self, topic: impl Into<String>) -> Self {
        self.without_reader.push(topic.into());
        self
    }

    /// A new connection for the service of that name, whose spans are captured under it. It stays open for as long as the bed
    /// does, unless it is [closed](crate::TracedBroker::close).
    #[must_use]
    pub fn broker(&self, service: &str) -> Broker {
        let driver: Arc<dyn Driver> = Arc::new(Memory::named(&self.name));
        self.connections.lock().push(Arc::clone(&driver));
        Traced::new(driver).with_tracer_provider(&self.capture.provider(service))
    }

    /// What an application that connects by itself is to [connect](crate::connect()) to. Its spans go to the global provider, and are
    /// captured as [`Capture`] says.
    #[must_use]
    pub fn url(&self) -> String {
        format!("memory://{}", self.name)
    }

    /// The spans.
    #[must_use]
    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// The trace that begins with a span of that name; see [`Capture::trace`].
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[track_caller]
    pub fn trace(&self, root: &str) -> CapturedTrace {
        self.capture.trace(root)
    }

    /// Runs `future` in a new trace, as if `service` handled a request; see [`Capture::in_root_span`].
    pub async fn in_root_span<F: Future>(
        &self,
        service: &str,
        name: impl Into<Cow<'static, str>>,
        future: F,
    ) -> F::Output {
        self.capture.in_root_span(service, name, future).await
    }

    /// The messages that a topic holds, oldest first: all that were published, unless there were more than the broker
    /// [keeps](crate::adapters::memory::DEFAULT_CAPACITY). Empty where there is no such topic.
    #[must_use]
    pub fn messages(&self, topic: &str) -> Vec<Outbound> {
        self.memory.messages(topic)
    }

    /// Waits, without polling, until all is quiet: every message that was published is acknowledged, rejected or dead-lettered by
    /// every group that reads its topic, no delayed message is left, and no span is under way.
    ///
    /// A message of a topic that nobody reads yet is waited for as well, so that it does not matter whether consumers have
    /// subscribed already; [`without_reader`](Self::without_reader) says where nobody will. What cannot be seen is work without a
    /// message and without a span, such as a task that a handler spawned and that will publish later.
    ///
    /// # Errors
    /// [`Unsettled`], which says what is left, when that takes longer than the [patience](Self::patience).
    pub async fn settled(&self) -> Result<(), Unsettled> {
        let deadline = Instant::now() + self.patience;
        loop {
            // In this order: what changes between the two is not missed.
            let (moved, ended) = (self.memory.changed(), self.capture.0.changed());
            let (messages, open) = (self.unsettled(), self.capture.0.open());
            if messages.is_empty() && open.is_empty() {
                return Ok(());
            }
            // A broker in which something happens all the time must not keep the thread from those who do it, nor from the clock.
            consume_budget().await;
            tokio::select! {
                () = moved => {}
                () = ended => {}
                () = sleep_until(deadline) => {
                    return Err(Unsettled::new(self.patience, open, messages, self.capture.traces()));
                }
            }
        }
    }

    /// What keeps the broker from being at rest, in words.
    fn unsettled(&self) -> Vec<String> {
        self.memory.unfinished().iter().filter(|left| !self.may_stay(left)).map(ToString::to_string).collect()
    }

    fn may_stay(&self, left: &Unfinished) -> bool {
        match left.pending {
            Pending::Unread | Pending::Time if self.without_reader.contains(&left.topic) => true,
            Pending::Unread => {
                let is_dead = |message: &Outbound| message.headers.get(dead_letter::TOPIC).is_some();
                self.memory.messages(&left.topic).iter().rev().take(left.messages).all(is_dead)
            }
            _ => false,
        }
    }
}

impl Default for TestBed {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TestBed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestBed").field("url", &self.url()).field("capture", &self.capture).finish_non_exhaustive()
    }
}
