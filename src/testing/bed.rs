//! An application on the embedded broker, for the duration of one test.

use crate::names::header;
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
use crate::driver::{Driver, Outbound};

/// Default maximum duration of [`TestBed::settled`]; [`TestBed::patience`] changes it.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

/// An embedded broker for one test, and the [`Capture`] of everything done on it.
///
/// Services get their [brokers](Self::broker) from it, or the [URL](Self::url) to connect to, and
/// otherwise start as in production. The consumer runtime, retries, dead letters and telemetry are
/// the real ones, on a broker that fulfils the same contract as the others.
///
/// ```
/// use traced_broker::testing::TestBed;
/// use traced_broker::{HandlerError, Message, Received, Retry, Subscription};
/// use traced_broker::{TracedBroker, TracedBrokerExt};
///
/// async fn ship(message: Received) -> Result<(), HandlerError> {
///     if message.attempt() == 1 {
///         return Err(HandlerError::retry("the carrier does not answer"));
///     }
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let bed = TestBed::new();
/// let workers = Subscription::new("orders").group("workers");
/// let worker = bed.broker("worker");
/// let consumer = worker.consume(workers, ship).retry(Retry::exponential(3));
/// tokio::spawn(consumer.subscribed().await.unwrap().run());
///
/// let api = bed.broker("api");
/// let order = async { api.publish("orders", Message::new("one pair of shoes")).await };
/// bed.in_root_span("api", "POST /orders", order).await.unwrap();
/// bed.settled().await.unwrap();
///
/// let trace = bed.trace("POST /orders");
/// trace.assert_whole().hops(["orders"]).attempts("orders", 2).services(["api", "worker"]);
/// # }
/// ```
///
/// With tokio's clock paused (`start_paused = true`, as above), the delays between attempts take no
/// time.
pub struct TestBed {
    capture: Capture,
    memory: Memory,
    /// The connections handed out, so that consumers go on after the test has dropped its broker.
    connections: Mutex<Vec<Arc<dyn Driver>>>,
    name: String,
    patience: Duration,
    without_reader: Vec<String>,
}

impl TestBed {
    /// Creates a broker without topics, for the exclusive use of this bed.
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

    /// Sets the maximum duration of [`settled`](Self::settled). Default 10 s.
    #[must_use]
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// Declares that messages of `topic` need no reader: [`settled`](Self::settled) does not wait
    /// for one. Dead-letter topics never need a reader.
    ///
    /// ```
    /// use traced_broker::testing::TestBed;
    /// use traced_broker::{Message, TracedBroker};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let bed = TestBed::new().without_reader("audit");
    /// bed.broker("api").publish("audit", Message::new("signed in")).await.unwrap();
    /// bed.settled().await.unwrap();
    /// assert_eq!(bed.messages("audit").len(), 1);
    /// # }
    /// ```
    #[must_use]
    pub fn without_reader(mut self, topic: impl Into<String>) -> Self {
        self.without_reader.push(topic.into());
        self
    }

    /// Creates a connection for the service with this name, under which its spans are captured. It
    /// stays open as long as the bed, unless it is [closed](crate::TracedBroker::close).
    #[must_use]
    pub fn broker(&self, service: &str) -> Broker {
        let driver: Arc<dyn Driver> = Arc::new(Memory::named(&self.name));
        self.connections.lock().push(Arc::clone(&driver));
        Traced::new(driver).with_tracer_provider(&self.capture.provider(service))
    }

    /// Returns the URL for an application that [connects](crate::connect()) by itself. Its spans go
    /// to the global provider, and are captured as described at [`Capture`].
    #[must_use]
    pub fn url(&self) -> String {
        format!("memory://{}", self.name)
    }

    /// Returns the captured spans.
    #[must_use]
    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// Returns the trace that begins with a span of this name; see [`Capture::trace`].
    ///
    /// # Panics
    /// If there is none, or more than one.
    #[track_caller]
    pub fn trace(&self, root: &str) -> CapturedTrace {
        self.capture.trace(root)
    }

    /// Runs `future` in a new trace, as if `service` handled a request; see
    /// [`Capture::in_root_span`].
    pub async fn in_root_span<F: Future>(
        &self,
        service: &str,
        name: impl Into<Cow<'static, str>>,
        future: F,
    ) -> F::Output {
        self.capture.in_root_span(service, name, future).await
    }

    /// Returns the messages of a topic, oldest first: all that were published, unless there were
    /// more than the broker [keeps](crate::adapters::memory::DEFAULT_CAPACITY). Empty if there is
    /// no such topic.
    #[must_use]
    pub fn messages(&self, topic: &str) -> Vec<Outbound> {
        self.memory.messages(topic)
    }

    /// Waits, without polling, until the bed is at rest: every group that reads a topic has
    /// acknowledged, rejected or dead-lettered every message published to it, no delayed message is
    /// left, and no span is open.
    ///
    /// Messages of a topic without a reader are waited for as well, so consumers may subscribe
    /// later; [`without_reader`](Self::without_reader) declares topics that will have none. Work
    /// without a message or a span is not visible, such as a task that a handler spawned and that
    /// will publish later.
    ///
    /// ```
    /// use std::time::Duration;
    /// use traced_broker::testing::TestBed;
    /// use traced_broker::{Message, TracedBroker};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let bed = TestBed::new().patience(Duration::from_secs(1));
    /// bed.broker("api").publish("orders", Message::new("one pair of shoes")).await.unwrap();
    ///
    /// // No consumer subscribes.
    /// let unsettled = bed.settled().await.unwrap_err();
    /// assert_eq!(unsettled.messages().len(), 1);
    /// assert!(unsettled.open_spans().is_empty());
    /// assert_eq!(bed.messages("orders").len(), 1);
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unsettled`], which lists what is left, if this takes longer than the
    /// [patience](Self::patience).
    pub async fn settled(&self) -> Result<(), Unsettled> {
        let deadline = Instant::now() + self.patience;
        loop {
            // In this order, a change between the two is not missed.
            let (moved, ended) = (self.memory.changed(), self.capture.0.changed());
            let (messages, open) = (self.unsettled(), self.capture.0.open());
            if messages.is_empty() && open.is_empty() {
                return Ok(());
            }
            // A busy broker must not keep the thread from the tasks that work on it, nor from the
            // clock.
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

    /// Describes what keeps the broker from being at rest.
    fn unsettled(&self) -> Vec<String> {
        self.memory.unfinished().iter().filter(|left| !self.may_stay(left)).map(ToString::to_string).collect()
    }

    fn may_stay(&self, left: &Unfinished) -> bool {
        match left.pending {
            Pending::Unread | Pending::Time if self.without_reader.contains(&left.topic) => true,
            Pending::Unread => {
                let is_dead = |message: &Outbound| message.headers.get(header::DEAD_LETTER_TOPIC).is_some();
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
