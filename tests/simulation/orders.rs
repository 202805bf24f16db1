//! The scenario: orders are published, worked on, audited and bridged, while services are killed
//! and connections are lost; then the network heals, dead letters are sent back, and all stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use traced_broker::testing::simulation::World;
use traced_broker::{BoxError, TracedBroker};

use crate::judge::{Seen, judge};
use crate::ledger::{Event, Ledger, Outcome};
use crate::planted::Wrap;
use crate::services::Scene;

/// Maximum virtual time until all good orders are handled, under faults.
const GOOD: Duration = Duration::from_secs(30 * 60);

/// The choices of one seed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) orders: Vec<Order>,
    /// Number of publishes at a time.
    pub(crate) publishing: usize,
    pub(crate) concurrency: usize,
    pub(crate) prefetch: usize,
    pub(crate) ordered: bool,
    /// Retries have no end, so that stubborn orders fail until they are forgiven.
    pub(crate) endless: bool,
    /// Maximum time of a handler's work.
    pub(crate) work: Duration,
    second_worker: bool,
    kills: usize,
}

/// One order.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) key: String,
    pub(crate) fate: Fate,
    /// The caller drops the publish before its end.
    pub(crate) gives_up: bool,
}

/// The fate of an order in the handler of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Good,
    FailsOnce,
    /// Fails until all are forgiven.
    Stubborn,
    Rejected,
}

impl Plan {
    fn draw(world: &World) -> Self {
        let (keys, stubborn) = (world.draw(1..6), if world.chance(30) { 40 } else { 4 });
        let order = |_| {
            let fate = match world.draw(0..100) {
                percent if percent < stubborn => Fate::Stubborn,
                percent if percent < stubborn + 8 => Fate::FailsOnce,
                percent if percent < stubborn + 12 => Fate::Rejected,
                _ => Fate::Good,
            };
            Order { key: format!("key-{}", world.draw(0..keys)), fate, gives_up: world.chance(8) }
        };
        Self {
            orders: (0..world.draw(3..20)).map(order).collect(),
            publishing: world.draw(1..16),
            concurrency: world.draw(1..8),
            prefetch: world.draw(1..16),
            ordered: world.chance(50),
            endless: world.chance(50),
            work: Duration::from_millis(world.draw(0..100) as u64),
            second_worker: world.chance(30),
            kills: world.draw(0..3),
        }
    }

    /// Returns `true` if the first attempts at the orders of one key begin in their order: with one
    /// member, and none that dies with messages in hand that another has begun on.
    pub(crate) fn keeps_order(&self) -> bool {
        self.ordered && !self.second_worker
    }

    /// Returns `true` if nothing but faults can hold the order up: it is not stubborn, nor behind
    /// one of its key that is.
    fn is_free(&self, order: usize) -> bool {
        let holds_up = |other: &Order| other.fate == Fate::Stubborn && other.key == self.orders[order].key;
        let own = self.orders[order].fate;
        matches!(own, Fate::Good | Fate::FailsOnce) && !(self.ordered && self.orders.iter().any(holds_up))
    }
}

/// Runs the scenario on drivers that `wrap` may change.
pub(crate) async fn orders(world: World, wrap: Wrap) -> Result<(), BoxError> {
    let scene = Scene {
        plan: Arc::new(Plan::draw(&world)),
        ledger: Ledger::default(),
        wrap,
        stop: CancellationToken::new(),
        forgiven: CancellationToken::new(),
        brokers: Arc::default(),
        world,
    };
    scene.start_worker("worker");
    if scene.plan.second_worker {
        scene.start_worker("second worker");
    }
    scene.start_auditor();
    scene.start_bridge();
    tokio::join!(scene.shop(), trouble(&scene));
    let seen = see_to_the_end(&scene).await;
    let findings = judge(&scene.plan, &scene.ledger.events(), &seen);
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n").into()) }
}

/// Kills services, and starts them again.
async fn trouble(scene: &Scene) {
    for _ in 0..scene.plan.kills {
        sleep(scene.world.time(Duration::from_secs(2))).await;
        scene.world.kill("worker");
        sleep(scene.world.time(Duration::from_millis(500))).await;
        scene.start_worker("worker");
    }
}

/// Waits until everything is done, in steps, and returns what is left to see of it.
async fn see_to_the_end(scene: &Scene) -> Seen {
    if timeout(GOOD, good_orders(scene)).await.is_err() {
        scene.ledger.found("good orders are held up for half an hour");
    }
    scene.forgiven.cancel();
    settle(scene, "the orders").await;
    if let Err(error) = scene.redrive().await {
        scene.ledger.found(format!("the dead letters cannot be sent back: {error}"));
    }
    settle(scene, "what was sent back").await;
    scene.stop.cancel();
    // A drain has nothing to wait for but the way to the broker.
    sleep(Duration::from_secs(20)).await;
    let brokers = std::mem::take(&mut *scene.brokers.lock());
    for broker in brokers {
        if let Err(error) = broker.close().await {
            scene.ledger.found(format!("a broker without work does not close: {error}"));
        }
    }
    Seen::after(&scene.world)
}

async fn good_orders(scene: &Scene) {
    let confirmed: Vec<usize> = scene
        .ledger
        .events()
        .iter()
        .filter_map(|event| match event {
            Event::Published { order, outcome: Outcome::Confirmed } => Some(*order),
            _ => None,
        })
        .filter(|order| scene.plan.is_free(*order))
        .collect();
    while !confirmed.iter().all(|order| scene.ledger.is_handled("workers", *order)) {
        sleep(Duration::from_millis(500)).await;
    }
}

async fn settle(scene: &Scene, what: &str) {
    if let Err(unsettled) = scene.world.settled().await {
        scene.ledger.found(format!("{what} cannot be settled: {unsettled}"));
    }
}
