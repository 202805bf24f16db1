//! The services of the scenario: a shop, its workers, an auditor and a bridge.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use traced_broker::names::header;
use traced_broker::testing::simulation::World;
use traced_broker::{
    Broker, HandlerError, Message, Received, Result, Retry, Subscription, TracedBroker, TracedBrokerExt, trace_ids,
};

use crate::ledger::{Event, Ledger, Outcome};
use crate::orders::{Fate, Plan};
use crate::planted::Wrap;
use crate::watched::Watched;

/// The topic of the bridge's copies.
pub(crate) const ARCHIVE: &str = "archive";

/// The parts that all services of a scenario know.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) plan: Arc<Plan>,
    pub(crate) ledger: Ledger,
    pub(crate) wrap: Wrap,
    /// Cancelled when the services are to stop in an orderly way.
    pub(crate) stop: CancellationToken,
    /// Cancelled when every handler succeeds from then on.
    pub(crate) forgiven: CancellationToken,
    /// The brokers to close at the end.
    pub(crate) brokers: Arc<Mutex<Vec<Broker>>>,
}

/// Returns what a message carries about itself, for comparison with what arrives beside it.
fn payload(order: usize, key: &str) -> String {
    format!("{order} {key} {}", current_trace())
}

fn current_trace() -> String {
    trace_ids().map(|ids| ids.to_string().chars().skip("trace_id=".len()).take(32).collect()).unwrap_or_default()
}

impl Scene {
    fn broker(&self, service: &str) -> Broker {
        let driver = (self.wrap)(self.world.driver(service));
        let broker = self.world.traced(service, Watched::over(driver, self.ledger.clone()));
        self.brokers.lock().push(broker.clone());
        broker
    }

    /// Publishes all orders from several counters at a time, each in a trace of its own. Some
    /// callers give up. The numbers of the orders are in the order of the first polls.
    pub(crate) async fn shop(&self) {
        let (broker, next) = (self.broker("shop"), AtomicUsize::new(0));
        let counter = async || {
            loop {
                sleep(self.world.time(Duration::from_millis(20))).await;
                self.world.step_aside().await;
                let order = next.fetch_add(1, Ordering::Relaxed);
                if order >= self.plan.orders.len() {
                    return;
                }
                self.publish(&broker, order).await;
            }
        };
        join_all((0..self.plan.publishing).map(|_| counter())).await;
    }

    async fn publish(&self, broker: &Broker, order: usize) {
        let (key, gives_up) = (&self.plan.orders[order].key, self.plan.orders[order].gives_up);
        let publish = async {
            let message = Message::new(payload(order, key)).key(key).id(order.to_string());
            broker.publish("orders", message.header("order", order.to_string())).await
        };
        let publish = self.world.capture().in_root_span("shop", format!("order {order}"), publish);
        let result = if gives_up { self.world.interrupted(publish).await } else { Some(publish.await) };
        self.ledger.record(Event::Published { order, outcome: Outcome::of(result.as_ref()) });
    }

    /// Starts a worker: the consumer runtime with retries and dead letters.
    pub(crate) fn start_worker(&self, service: &'static str) {
        let (scene, broker) = (self.clone(), self.broker(service));
        self.world.spawn(service, async move {
            let orders = Subscription::new("orders").group("workers").prefetch(scene.plan.prefetch);
            let orders = orders.dead_letter("orders.dead");
            loop {
                let handler = |received| scene.work(&broker, received);
                let consumer = broker.consume(orders.clone(), handler).concurrency(scene.plan.concurrency);
                let consumer = consumer.retry(scene.plan.retry());
                let consumer = if scene.plan.ordered { consumer.ordered_by_key() } else { consumer };
                match consumer.run_until(scene.stop.cancelled()).await {
                    Ok(_) => return,
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            }
        });
    }

    async fn work(&self, broker: &Broker, received: Received) -> Result<(), HandlerError> {
        let Some((order, offset)) = self.begin("workers", &received) else { return Ok(()) };
        sleep(self.world.time(self.plan.work)).await;
        self.world.step_aside().await;
        self.check_context(&received, "after an await");
        let failures = self.ledger.ended("workers", order, offset, false);
        let verdict = match self.plan.orders[order].fate {
            _ if self.forgiven.is_cancelled() => Ok(()),
            Fate::Good => Ok(()),
            Fate::FailsOnce if failures > 0 => Ok(()),
            Fate::FailsOnce | Fate::Stubborn => Err(HandlerError::retry("the carrier does not answer")),
            Fate::Rejected => Err(HandlerError::reject("nobody can ship this")),
        };
        let verdict = match verdict {
            Ok(()) => {
                let shipment = Message::new(payload(order, &self.plan.orders[order].key)).id(order.to_string());
                broker.publish("shipments", shipment).await.map(drop).map_err(HandlerError::retry)
            }
            failed => failed,
        };
        self.ledger.record(Event::Ended { group: "workers", order, offset, is_ok: verdict.is_ok() });
        verdict
    }

    /// Starts an auditor, who settles by hand: most at once, some after another attempt, and some
    /// not at all.
    pub(crate) fn start_auditor(&self) {
        let (scene, broker) = (self.clone(), self.broker("auditor"));
        self.world.spawn("auditor", async move {
            let orders = Subscription::new("orders").group("auditors").prefetch(scene.plan.prefetch);
            let mut deliveries = loop {
                match broker.subscribe(orders.clone()).await {
                    Ok(deliveries) => break deliveries,
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            };
            while let Some(Some(item)) = scene.stop.run_until_cancelled(deliveries.next()).await {
                let Ok(delivery) = item else { continue };
                let Some((order, offset)) = scene.read(delivery.message()) else { continue };
                scene.check_attempt("auditors", delivery.message(), order, offset);
                let settled = match scene.world.draw(0..10) {
                    0 => {
                        let retried = delivery.retry(scene.world.time(Duration::from_millis(200))).await;
                        scene.ledger.record(Event::Ended { group: "auditors", order, offset, is_ok: false });
                        drop(retried);
                        continue;
                    }
                    1 => continue, // dropped unsettled
                    2 => scene.world.interrupted(delivery.ack()).await,
                    _ => Some(delivery.ack().await),
                };
                if settled.is_some_and(|settled| settled.is_ok()) {
                    scene.ledger.record(Event::Settled { group: "auditors", order, offset });
                }
            }
        });
    }

    /// Starts a bridge that copies orders into an archive.
    pub(crate) fn start_bridge(&self) {
        let (scene, from, to) = (self.clone(), self.broker("bridge"), self.broker("bridge"));
        self.world.spawn("bridge", async move {
            loop {
                let orders = Subscription::new("orders").group("bridge").prefetch(scene.plan.prefetch);
                let bridge = from.bridge(orders, &to, ARCHIVE).in_flight(scene.plan.concurrency);
                match bridge.run_until(scene.stop.cancelled()).await {
                    Ok(_) => return,
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            }
        });
    }

    /// Sends all dead letters back. Sometimes the first try is broken off.
    pub(crate) async fn redrive(&self) -> Result<()> {
        let (broker, letters) = (self.broker("operator"), self.world.messages("orders.dead").len() as u64);
        let redrive = || broker.redrive("orders.dead").idle(Duration::from_secs(2));
        let is_broken_off = self.world.chance(30);
        if is_broken_off {
            let _ = self.world.interrupted(redrive().run()).await;
        }
        let sent_back = redrive().run().await?.sent_back;
        if sent_back > letters || (sent_back < letters && !is_broken_off) {
            self.ledger.found(format!("{sent_back} of {letters} dead letters were sent back"));
        }
        Ok(())
    }

    /// Records that a handler begins, and compares what the message says of itself.
    fn begin(&self, group: &'static str, received: &Received) -> Option<(usize, i64)> {
        let (order, offset) = self.read(received)?;
        let key = String::from_utf8_lossy(received.key().map(|key| key.as_ref()).unwrap_or_default()).into_owned();
        let (attempt, is_lost) = (received.attempt(), received.is_lost());
        self.check_attempt(group, received, order, offset);
        self.check_context(received, "at its start");
        self.ledger.record(Event::Began { group, order, offset, attempt, key, is_lost });
        Some((order, offset))
    }

    fn read(&self, received: &Received) -> Option<(usize, i64)> {
        let text = String::from_utf8_lossy(received.payload()).into_owned();
        let order = text.split(' ').next().and_then(|word| word.parse::<usize>().ok());
        let known = order.filter(|order| *order < self.plan.orders.len()).zip(received.offset());
        let Some((order, offset)) = known else {
            self.ledger.found(format!("nobody sent this: {text:?}"));
            return None;
        };
        let id = order.to_string();
        if received.id() != Some(&id) || received.headers().get_str("order") != Some(&id) {
            self.ledger.found(format!("order {order} came with the id or the headers of another message"));
        }
        Some((order, offset))
    }

    /// No attempt is counted but for a handler that failed.
    fn check_attempt(&self, group: &str, received: &Received, order: usize, offset: i64) {
        let failed = self.ledger.ended(group, order, offset, false);
        if received.attempt() as usize > failed + 1 {
            let attempt = received.attempt();
            self.ledger
                .found(format!("order {order} begins attempt {attempt} in {group}, having failed {failed} times"));
        }
    }

    /// A handler is in the trace of its message. What was sent back begins a trace of its own, with
    /// a link, which the judge follows among the spans.
    fn check_context(&self, received: &Received, when: &str) {
        if received.headers().get(header::REDRIVEN).is_some() {
            return;
        }
        let text = String::from_utf8_lossy(received.payload()).into_owned();
        let (sent, current) = (text.split(' ').nth(2).unwrap_or_default(), current_trace());
        if sent != current {
            self.ledger.found(format!("{when}, the handler of {text:?} is in trace {current}"));
        }
    }
}

impl Plan {
    fn retry(&self) -> Retry {
        let retry = if self.endless { Retry::endless() } else { Retry::exponential(12) };
        retry.first_delay(Duration::from_millis(20)).longest_delay(Duration::from_secs(2))
    }
}
