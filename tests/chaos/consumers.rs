//! The consumers of one process: two in the runtime, one that settles by hand, and the reader of
//! the dead letters.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use traced_broker::consume::Subscribed;
use traced_broker::{
    Broker, Deliveries, Delivery, Error, ErrorKind, HandlerError, Received, Retry, Subscription, TracedBroker as _,
    TracedBrokerExt as _, w3c,
};

use crate::history::{Delivered, Event, Outcome, Verdict};
use crate::recipe::{Fate, Flaw, Id, Seen, Trace, carried, chance, fate, inspect, work};
use crate::recorder::Recorder;
use crate::secrets;
use crate::site::connect_patiently;
use crate::spans::Spans;

pub(crate) const ORDERED: &str = "ordered";
pub(crate) const PLAIN: &str = "plain";
pub(crate) const HAND: &str = "hand";
pub(crate) const DEAD: &str = "dead";
/// The groups that get every message.
pub(crate) const GROUPS: [&str; 3] = [ORDERED, PLAIN, HAND];

/// Handlers at a time, in the runtime.
const CONCURRENCY: usize = 32;
/// Deliveries in hand at a time, by hand.
const HANDS: usize = 64;
/// Time between attempts to subscribe.
const PAUSE: Duration = Duration::from_millis(200);

/// The settings of the consumers of one process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) url: String,
    pub(crate) topic: String,
    pub(crate) seed: u64,
    /// The name of this process in the history.
    pub(crate) member: String,
}

impl Job {
    /// Returns the topic of the dead letters.
    pub(crate) fn dead_letters(&self) -> String {
        format!("{}.dead", self.topic)
    }
}

/// The running consumers.
#[derive(Debug)]
pub(crate) struct Consumers {
    bench: Arc<Bench>,
    broker: Broker,
    spans: Spans,
    running: JoinSet<()>,
    stop: CancellationToken,
}

impl Consumers {
    /// Connects and subscribes, however long that takes.
    pub(crate) async fn start(job: Job, recorder: Recorder) -> Self {
        let spans = Spans::new(recorder.clone());
        let broker = connect_patiently(&job.url).await.with_tracer_provider(&spans.provider());
        let bench = Arc::new(Bench { job, recorder, deliveries: AtomicU64::new(0), dropped: Mutex::default() });
        let (mut running, stop) = (JoinSet::new(), CancellationToken::new());
        // The reader first, so that no dead letter is written before its group exists.
        for group in [DEAD, HAND] {
            let deliveries = bench.subscribe(&broker, group).await;
            running.spawn(Arc::clone(&bench).by_hand(group, deliveries, stop.clone()));
        }
        for group in [PLAIN, ORDERED] {
            let consumer = consume(&bench, &broker, group).await;
            let (bench, stop) = (Arc::clone(&bench), stop.clone());
            running.spawn(async move {
                if let Err(error) = consumer.run_until(stop.cancelled()).await {
                    bench.recorder.note(Event::Stuck { what: format!("the consumer of {group} ended: {error}") });
                }
            });
        }
        bench.recorder.note(Event::Joined { member: bench.job.member.clone() });
        Self { bench, broker, spans, running, stop }
    }

    /// Lets the consumers finish, closes the broker, and notes the spans.
    pub(crate) async fn stop(self) {
        let Self { bench, broker, spans, running, stop } = self;
        stop.cancel();
        running.join_all().await;
        let error = broker.close().await.err().map(|error| error.to_string());
        let member = bench.job.member.clone();
        bench.recorder.note(Event::Closed { member: member.clone(), error });
        drop((broker, bench));
        spans.close(&member);
    }
}

/// Everything that the handlers of a process share.
#[derive(Debug)]
struct Bench {
    job: Job,
    recorder: Recorder,
    deliveries: AtomicU64,
    /// Messages that were dropped unsettled once.
    dropped: Mutex<HashSet<Id>>,
}

/// Starts a consumer of the runtime, however often that fails.
async fn consume(
    bench: &Arc<Bench>,
    broker: &Broker,
    group: &'static str,
) -> Subscribed<impl Fn(Received) -> Handling + use<>> {
    loop {
        let own = Arc::clone(bench);
        let handler = move |message| -> Handling { Box::pin(Arc::clone(&own).handle(group, message)) };
        let consumer = broker.consume(bench.subscription(group), handler);
        let consumer = consumer.concurrency(CONCURRENCY).retry(Retry::endless());
        let consumer = if group == ORDERED { consumer.ordered_by_key() } else { consumer };
        match consumer.subscribed().await {
            Ok(subscribed) => return subscribed,
            Err(error) => bench.trouble(group, &error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

type Handling = std::pin::Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

impl Bench {
    fn subscription(&self, group: &str) -> Subscription {
        if group == DEAD {
            return Subscription::new(self.job.dead_letters()).group(group);
        }
        Subscription::new(&self.job.topic).group(group).dead_letter(self.job.dead_letters())
    }

    /// Subscribes, however often that fails.
    async fn subscribe(&self, broker: &Broker, group: &str) -> Deliveries {
        loop {
            match broker.subscribe(self.subscription(group)).await {
                Ok(deliveries) => return deliveries,
                Err(error) => self.trouble(group, &error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn trouble(&self, group: &str, error: &Error) {
        secrets::look("a subscription", error);
        self.recorder.note(Event::Trouble { group: group.to_owned(), why: error.to_string() });
    }

    /// Notes a delivery with the flaws of its message.
    fn receive(&self, group: &str, delivery: &str, message: &Received, trace: Trace) -> Option<Id> {
        let key = message.key().map(|key| &key[..]);
        let seen = Seen { payload: message.payload(), key, headers: message.headers(), trace };
        let (id, flaws) = inspect(self.job.seed, &seen);
        self.recorder.note(Event::Delivered(Delivered {
            group: group.to_owned(),
            member: self.job.member.clone(),
            delivery: delivery.to_owned(),
            id,
            attempt: message.attempt(),
            deliveries: message.deliveries(),
            place: format!("{:?} {:?}", message.partition(), message.offset()),
            flaws,
        }));
        id
    }

    /// Handles a message in the runtime. The current context is compared at the beginning and after
    /// the work.
    async fn handle(self: Arc<Self>, group: &'static str, message: Received) -> Result<(), HandlerError> {
        let delivery = Context::current().span().span_context().span_id().to_string();
        let headers = message.headers();
        let header = |name| headers.get(name);
        let (parent, state, baggage) = (header("traceparent"), header("tracestate"), header("baggage"));
        let extracted = w3c::decode(parent, state, baggage, &Context::new()).context;
        let id = self.receive(group, &delivery, &message, Trace::of(&extracted));
        let mut flaws = current_flaw(&message);
        if let Some(id) = id {
            tokio::time::sleep(work(self.job.seed, id, group)).await;
        }
        tokio::task::yield_now().await;
        flaws.extend(current_flaw(&message));
        self.recorder.note(Event::Handled { delivery: delivery.clone(), flaws });
        let (verdict, result) = match id.map_or(Fate::Ack, |id| fate(self.job.seed, id, group)) {
            Fate::FailTwice if message.attempt() <= 2 => {
                let error = HandlerError::retry_after("as drawn", self.delay(id));
                (Verdict::Retry, Err(error))
            }
            Fate::Reject => (Verdict::Reject, Err(HandlerError::reject("as drawn"))),
            _ => (Verdict::Ack, Ok(())),
        };
        self.recorder.note(Event::Asked { delivery, verdict });
        result
    }

    /// Returns the delay of a retry.
    fn delay(&self, id: Option<Id>) -> Duration {
        Duration::from_millis(chance(&(self.job.seed, id, "delay")).u64(20..400))
    }

    async fn by_hand(self: Arc<Self>, group: &'static str, mut deliveries: Deliveries, stop: CancellationToken) {
        let mut in_hand = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                next = deliveries.next(), if in_hand.len() < HANDS => match next {
                    Some(Ok(delivery)) => in_hand.push(self.settle(group, delivery)),
                    Some(Err(error)) => self.trouble(group, &error),
                    None => break,
                },
                Some(()) = in_hand.next() => {}
            }
        }
        while in_hand.next().await.is_some() {}
    }

    async fn settle(&self, group: &'static str, delivery: Delivery) {
        let number = self.deliveries.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}/{group}/{number}", self.job.member);
        let trace = Trace::of(&delivery.creation_context());
        let id = self.receive(group, &name, delivery.message(), trace);
        if let Some(id) = id {
            tokio::time::sleep(work(self.job.seed, id, group)).await;
        }
        let is_dead = group == DEAD;
        let fate = id.filter(|_| !is_dead).map_or(Fate::Ack, |id| fate(self.job.seed, id, group));
        let verdict = match fate {
            Fate::FailTwice if delivery.message().attempt() <= 2 => Verdict::Retry,
            Fate::Reject => Verdict::Reject,
            Fate::Drop if id.is_some_and(|id| self.dropped.lock().insert(id)) => Verdict::Drop,
            _ => Verdict::Ack,
        };
        self.recorder.note(Event::Asked { delivery: name.clone(), verdict });
        let settled = match verdict {
            Verdict::Ack => delivery.ack().await,
            Verdict::Retry => delivery.retry(self.delay(id)).await,
            Verdict::Reject => delivery.reject("as drawn").await,
            Verdict::Drop => {
                drop(delivery);
                return;
            }
        };
        let outcome = match settled {
            Ok(()) => Outcome::Settled,
            Err(error) if verdict == Verdict::Reject && is_refused(&error) => Outcome::Failed(error.to_string()),
            Err(_) => Outcome::Lost,
        };
        self.recorder.note(Event::Settled { delivery: name, outcome });
    }
}

/// Returns `true` if a rejected message is kept because its dead letter was refused.
fn is_refused(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::SettlementLost | ErrorKind::Closed) && !error.is_retryable()
}

/// Compares the current context of a handler with the one in the payload of its message.
fn current_flaw(message: &Received) -> Vec<Flaw> {
    let Some(carried) = carried(message.payload()) else { return Vec::new() };
    let current = Trace::of(&Context::current());
    // The process span is another one of the same trace.
    let is_same = (current.trace_id(), &current.tracestate, &current.baggage)
        == (carried.trace_id(), &carried.tracestate, &carried.baggage);
    if is_same { Vec::new() } else { vec![Flaw::Context(format!("{current:?}"))] }
}
