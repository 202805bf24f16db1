//! The environment of a case: connections, unique names, time limits, and exported spans.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use opentelemetry::Context;
use opentelemetry::trace::{SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData};
use parking_lot::Mutex;

use super::conventions::{SeenAtStart, Surroundings, Watching, check_metric, check_span};
use super::failure::{Checked, Failure, check, check_eq};
use super::harness::Harness;
use super::measurements::Measurements;
use super::requirement::Need;
use super::spans::{Spans, attribute};
use crate::broker::{Broker, Deliveries, Delivery, Traced, TracedBroker};
use crate::driver::capability::{Capabilities, Confirm};
use crate::driver::{Driver, Identity};
use crate::error::{Error, PublishOutcome, Result};
use crate::message::{HandlerError, Message, Receipt, Received, Subscription};

/// The environment of one case.
pub(super) struct CaseContext {
    pub(super) harness: Arc<dyn Harness>,
    pub(super) capabilities: Capabilities,
    /// The topic of the case; [`CaseContext::topic`] returns names of more.
    pub(super) topic: String,
    pub(super) spans: Spans,
    pub(super) provider: SdkTracerProvider,
    /// `true` if the exported traces must be whole when they are read back; see
    /// [`CaseContext::expect_whole_traces`].
    pub(super) whole: AtomicBool,
    pub(super) measurements: Measurements,
    /// The part of the harness that the case asked for in vain.
    lacked: OnceLock<Need>,
    identity: Identity,
    seen_at_start: SeenAtStart,
    number: String,
    connections: Mutex<Vec<Arc<dyn Driver>>>,
}

impl CaseContext {
    /// Creates a case with names of topics and groups that no other case or run uses.
    pub(super) async fn new(harness: Arc<dyn Harness>, case: &str) -> Checked<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let number = format!("{now:x}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let spans = Spans::default();
        let seen_at_start = SeenAtStart::default();
        let sampler = Watching::new(seen_at_start.clone());
        let builder = SdkTracerProvider::builder().with_sampler(sampler);
        let provider = harness.tracer_provider(builder, spans.clone());
        let name: String = case.chars().take(40).collect();
        let probe = harness.connect().await.map_err(|error| Failure::from(error).during("connect"))?;
        let capabilities = probe.capabilities().clone();
        let identity = probe.identity().clone();
        let connections = Mutex::new(vec![probe]);
        let topic = format!("{name}-{number}");
        let measurements = Measurements::new();
        Ok(Self {
            harness,
            capabilities,
            topic,
            spans,
            provider,
            whole: AtomicBool::new(false),
            measurements,
            lacked: OnceLock::new(),
            identity,
            seen_at_start,
            number,
            connections,
        })
    }

    /// Opens a new connection, below the telemetry.
    pub(super) async fn driver(&self) -> Checked<Arc<dyn Driver>> {
        let driver = self.harness.connect().await.map_err(|error| Failure::from(error).during("connect"))?;
        self.connections.lock().push(Arc::clone(&driver));
        Ok(driver)
    }

    /// Opens a new connection whose spans and metrics are exported to this case.
    pub(super) async fn broker(&self) -> Checked<Broker> {
        Ok(self.traced(self.driver().await?))
    }

    /// Opens a new connection like that of a program without an SDK.
    pub(super) async fn untraced(&self) -> Checked<Broker> {
        Ok(self.harness.set_up(Traced::new(self.driver().await?)))
    }

    /// Ends the case as unsupported, because the harness lacks an optional part.
    pub(super) fn lacks(&self, part: Need) -> Checked {
        self.lacked.get_or_init(|| part);
        Ok(())
    }

    /// Returns the part of the harness that the case asked for in vain.
    pub(super) fn lacked(&self) -> Option<Need> {
        self.lacked.get().copied()
    }

    /// Adds the telemetry to a driver.
    pub(super) fn traced(&self, driver: Arc<dyn Driver>) -> Broker {
        let broker = self.harness.set_up(Traced::new(driver)).with_tracer_provider(&self.provider);
        broker.with_meter_provider(self.measurements.provider())
    }

    /// Closes the connections that the case left open, and ignores errors.
    pub(super) async fn clean_up(&self) {
        let connections = std::mem::take(&mut *self.connections.lock());
        let closing = connections.iter().map(|driver| driver.close());
        let _ = tokio::time::timeout(Duration::from_secs(10), futures_util::future::join_all(closing)).await;
    }

    /// Checks that every span and metric exported while the case ran conforms to the conventions
    /// and to our registry.
    pub(super) fn check_conventions(&self) -> Checked {
        let spans = self.spans.all();
        let batches: Vec<_> =
            spans.iter().filter(|span| is_batch(span)).map(|span| span.span_context.span_id()).collect();
        let own = self.harness.own_attributes();
        let surroundings = Surroundings { identity: &self.identity, own, batches: &batches };
        let metrics = self.measurements.all()?;
        self.measurements.close();
        let of_spans =
            spans.iter().map(|span| [check_span(span, &surroundings), self.seen_at_start.check(span)].concat());
        let of_metrics = metrics.iter().map(|metric| check_metric(metric, &self.identity));
        match of_spans.chain(of_metrics).flatten().next() {
            Some(complaint) => Err(Failure::new(complaint).during("the conventions of telemetry")),
            None => Ok(()),
        }
    }

    /// Returns the name of the system.
    pub(super) fn system(&self) -> &'static str {
        self.identity.system
    }

    /// Returns the name of another topic of the case.
    pub(super) fn topic(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.topic)
    }

    /// Returns the full name of a group. A Kafka group spans topics, so cases that shared one would
    /// disturb each other.
    pub(super) fn group_name(&self, name: &str) -> String {
        format!("{name}-{}", self.number)
    }

    /// Returns the subscription of a group on the topic of the case.
    pub(super) fn group(&self, name: &str) -> Subscription {
        self.group_on(&self.topic, name)
    }

    /// Returns the subscription of a group, with the best guarantee that the broker has.
    pub(super) fn group_on(&self, topic: &str, name: &str) -> Subscription {
        self.guaranteed(Subscription::new(topic).group(self.group_name(name)))
    }

    /// Creates a group without members on the topic of the case. Its connection is closed, because
    /// messages might still be in flight to a member that only left.
    pub(super) async fn make_group(&self, name: &str) -> Checked {
        let founder = self.broker().await?;
        drop(founder.subscribe(self.group(name)).await?);
        Ok(founder.close().await?)
    }

    /// Returns the subscription of a reader without a group.
    pub(super) fn reader(&self) -> Subscription {
        self.guaranteed(Subscription::new(&self.topic))
    }

    fn guaranteed(&self, subscription: Subscription) -> Subscription {
        if self.capabilities.at_least_once { subscription } else { subscription.at_most_once() }
    }

    /// Checks the outcome in the receipt of a successful publish.
    pub(super) fn check_receipt(&self, receipt: &Receipt) -> Checked {
        let promised = match self.capabilities.confirm {
            Confirm::Never => PublishOutcome::Unknown,
            Confirm::Process | Confirm::Broker => PublishOutcome::Confirmed,
        };
        check_eq!(receipt.outcome(), promised, "the outcome of a publish that succeeded");
        Ok(())
    }

    /// Publishes a message and returns once the broker has it. A ping follows, because some brokers
    /// never confirm.
    pub(super) async fn publish_before(&self, broker: &Broker) -> Checked {
        broker.publish(&self.topic, Message::new("before").key("one")).await?;
        broker.ping().await?;
        Ok(())
    }

    /// Starts a span of the application, and returns the context in which it is current.
    pub(super) fn root(&self, name: &'static str) -> Context {
        let tracer = self.provider.tracer("application");
        Context::new().with_span(tracer.build_with_context(tracer.span_builder(name), &Context::new()))
    }

    pub(super) fn unsampled(&self) -> SdkTracerProvider {
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        SdkTracerProvider::builder().with_sampler(sampler).with_simple_exporter(self.spans.clone()).build()
    }

    /// Requires that the traces of the case are whole by the library's own check, wherever the
    /// spans are read back.
    pub(super) fn expect_whole_traces(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    pub(super) fn send_name(&self) -> String {
        format!("send {}", self.topic)
    }

    pub(super) fn process_name(&self) -> String {
        format!("process {}", self.topic)
    }

    /// Waits for an event that must happen, at most for the harness's patience.
    pub(super) async fn within<F: Future>(&self, what: &str, future: F) -> Checked<F::Output> {
        let patience = self.harness.patience();
        let output = tokio::time::timeout(patience, future).await;
        output.map_err(|_| Failure::new(format!("{what}: not within {patience:?}")))
    }

    /// Returns the next delivery, and skips errors that the stream reports in between.
    pub(super) async fn next(&self, deliveries: &mut Deliveries) -> Checked<Delivery> {
        let mut trouble = String::new();
        let next = self.within("the next delivery", async {
            loop {
                match deliveries.next().await {
                    Some(Ok(delivery)) => return Ok(delivery),
                    Some(Err(error)) => trouble = format!(", after the stream reported: {error}"),
                    None => {
                        return Err(Failure::new(
                            "the stream of deliveries goes on until the broker is closed: it ended",
                        ));
                    }
                }
            }
        });
        let next = next.await;
        next.map_err(|failure| failure.followed_by(&trouble))?
    }

    /// Takes the next delivery and processes it with a handler that must succeed.
    pub(super) async fn handle<H, F, T>(&self, deliveries: &mut Deliveries, handler: H) -> Checked
    where
        H: FnOnce(Received) -> F,
        F: Future<Output = std::result::Result<T, HandlerError>>,
    {
        let processed = self.next(deliveries).await?.process(handler).await?;
        check!(processed.error.is_none(), "the handler succeeds: {:?}", processed.error);
        Ok(())
    }

    /// Checks that no further message is handed out.
    pub(super) async fn nothing_comes(&self, deliveries: &mut Deliveries) -> Checked {
        match tokio::time::timeout(self.harness.quiet(), deliveries.next()).await {
            Err(_) => Ok(()),
            Ok(item) => Err(Failure::new(format!("no more is handed out: received {}", describe(item.as_ref())))),
        }
    }

    /// Receives and acknowledges `count` messages, and returns their payloads as text.
    pub(super) async fn drain(&self, deliveries: &mut Deliveries, count: usize) -> Checked<Vec<String>> {
        let mut payloads = Vec::with_capacity(count);
        while payloads.len() < count {
            let after = format!("after {} of {count} messages", payloads.len());
            let delivery = self.next(deliveries).await.map_err(|failure| failure.during(&after))?;
            payloads.push(text(delivery.message().payload()));
            delivery.ack().await?;
        }
        Ok(payloads)
    }
}

fn is_batch(span: &SpanData) -> bool {
    span.span_kind == SpanKind::Consumer && attribute(span, "messaging.batch.message_count").is_some()
}

fn describe(item: Option<&Result<Delivery>>) -> String {
    match item {
        None => "the end of the stream".to_owned(),
        Some(Err(error)) => format!("an error: {error}"),
        Some(Ok(delivery)) => {
            let message = delivery.message();
            let payload: String = text(message.payload()).chars().take(80).collect();
            format!("a message, payload {payload:?}, attempt {}", message.attempt())
        }
    }
}

/// Returns bytes as text, for comparison and display.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the numbers below `count`, which are the payloads of numbered messages.
pub(super) fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Returns the error of an operation that had to fail.
#[track_caller]
pub(super) fn refused<T>(what: &str, result: Result<T>) -> Checked<Error> {
    match result {
        Err(error) => Ok(error),
        Ok(_) => Err(Failure::new(format!("{what} is refused: it succeeded"))),
    }
}
