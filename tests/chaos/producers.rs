//! The producers: each publishes its messages in order, several in flight. They have no SDK of
//! OpenTelemetry, and their contexts have to arrive all the same.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use opentelemetry::Context;
use opentelemetry::context::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use traced_broker::{Broker, PublishOutcome, TracedBroker as _};

use crate::history::Event;
use crate::recipe::{Id, Recipe, chance};
use crate::recorder::Recorder;
use crate::secrets;
use crate::site::connect_patiently;

/// The smallest number of producers, each with its own connection.
const PRODUCERS: u32 = 2;
/// Messages per second of one producer at most: its clock ticks in milliseconds.
const PACE: u32 = 500;
/// Publishes in flight, per producer.
const IN_FLIGHT: usize = 64;
/// A publish that has no answer after this time hangs. Kafka answers after 30 seconds and RabbitMQ
/// after 60.
const PATIENCE: Duration = Duration::from_secs(75);

/// The settings of all producers.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    pub(crate) url: String,
    pub(crate) topic: String,
    pub(crate) seed: u64,
    /// Messages per second of all producers together.
    pub(crate) rate: u32,
    /// Publishes in a thousand that are dropped before their answer.
    pub(crate) cancelled: u32,
}

/// The running producers.
#[derive(Debug)]
pub(crate) struct Producers {
    running: JoinSet<()>,
    stop: CancellationToken,
}

impl Producers {
    pub(crate) fn start(orders: &Orders, recorder: &Recorder) -> Self {
        let (mut running, stop) = (JoinSet::new(), CancellationToken::new());
        let producers = orders.rate.div_ceil(PACE).max(PRODUCERS);
        for number in 0..producers {
            let period = Duration::from_secs(1) * producers / orders.rate;
            let producer = Producer { number, period, orders: orders.clone(), recorder: recorder.clone() };
            running.spawn(producer.run(stop.clone()));
        }
        Self { running, stop }
    }

    /// Publishes nothing more.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the answers under way, and for closing.
    pub(crate) async fn end(self) {
        self.running.join_all().await;
    }
}

struct Producer {
    number: u32,
    /// Time between two messages.
    period: Duration,
    orders: Orders,
    recorder: Recorder,
}

impl Producer {
    async fn run(self, stop: CancellationToken) {
        let Some(broker) = stop.run_until_cancelled(connect_patiently(&self.orders.url)).await else { return };
        let mut ticks = interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut in_flight = FuturesUnordered::new();
        for sequence in 0.. {
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    _ = ticks.tick(), if in_flight.len() < IN_FLIGHT => break,
                    Some(()) = in_flight.next() => {}
                }
            }
            if stop.is_cancelled() {
                break;
            }
            let mut publish: Pin<Box<_>> = Box::pin(self.publish(&broker, Id(self.number, sequence)));
            // The first poll decides the order.
            if poll_fn(|cx| Poll::Ready(publish.as_mut().poll(cx))).await.is_pending() {
                in_flight.push(publish);
            }
        }
        while in_flight.next().await.is_some() {}
        drop(in_flight);
        let error = broker.close().await.err().map(|error| error.to_string());
        self.recorder.note(Event::Closed { member: format!("producer {}", self.number), error });
    }

    async fn publish(&self, broker: &Broker, id: Id) {
        let recipe = Recipe::of(self.orders.seed, id);
        let mut chance = chance(&(self.orders.seed, id, "cancel"));
        let is_cancelled = chance.u32(0..1000) < self.orders.cancelled;
        let limit = if is_cancelled { Duration::from_micros(chance.u64(0..3000)) } else { PATIENCE };
        self.recorder.note(Event::Attempted { id, key: recipe.key.clone() });
        // Half of the producers name the context, and the others have it as the current one.
        let (message, current) = match self.number % 2 {
            0 => (recipe.message(), Context::new()),
            _ => (recipe.without_context(), recipe.trace.context()),
        };
        let publish = broker.publish(&self.orders.topic, message).with_context(current);
        let answer = match timeout(limit, publish).await {
            Ok(Ok(receipt)) if receipt.outcome() == PublishOutcome::Confirmed => Event::Confirmed { id },
            Ok(Ok(_)) => Event::Unknown { id, why: "not confirmed".to_owned() },
            Ok(Err(error)) => {
                secrets::look("a publish", &error);
                let why = error.kind().to_string();
                let is_unsent = error.publish_outcome() == PublishOutcome::NotSent;
                if is_unsent { Event::NotSent { id, why } } else { Event::Unknown { id, why } }
            }
            Err(_) if is_cancelled => Event::Unknown { id, why: "cancelled".to_owned() },
            Err(_) => {
                self.recorder.note(Event::Stuck { what: format!("the publish of {id} had no answer in {PATIENCE:?}") });
                Event::Unknown { id, why: "no answer".to_owned() }
            }
        };
        self.recorder.note(answer);
    }
}
