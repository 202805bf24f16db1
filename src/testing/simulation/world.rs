//! The world of one seed: its broker, its network, its services and its spans.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::poll_fn;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::faults::Faults;
use super::link::Link;
use super::network::Network;
use crate::adapters::memory::Memory;
use crate::broker::{Broker, Traced};
use crate::driver::capability::{Attempts, Redelivery};
use crate::driver::{Capabilities, Driver, Outbound};
use crate::runtime::consume::isolate_thread;
use crate::testing::{Capture, Unsettled};

/// Maximum virtual time until a healed world is at rest.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Maximum number of times that a future of [`World::interrupted`] is polled before it is dropped:
/// of most, and of one in four.
const MOST_POLLS: [u32; 2] = [4, 40];

/// Numbers of unconfirmed publishes that a client may have.
const IN_FLIGHT: [usize; 4] = [1, 2, 16, 1024];

/// One seed's world: a broker, services that reach it over a faulty network, virtual time, and the
/// spans of all of it. Everything random in it is drawn from the seed, and the library's own random
/// numbers too, so that the same seed is the same history. Cheap to clone.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    seed: u64,
    network: Arc<Network>,
    capture: Capture,
    memory: Memory,
    services: Mutex<HashMap<String, Service>>,
}

/// The parts of a service that die with its process.
#[derive(Default)]
struct Service {
    links: Vec<Arc<Link>>,
    tasks: Vec<AbortHandle>,
}

impl World {
    /// Creates the world of a seed. The calling thread's random numbers begin anew.
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        fastrand::seed(seed);
        isolate_thread();
        super::faults::draw_step();
        let broker = format!("simulation-{seed}-{:?}", std::thread::current().id());
        let memory = Memory::named(&broker);
        let network = Arc::new(Network::new(broker, faults, draw_capabilities(&memory)));
        let capture = Capture::in_virtual_time();
        Self(Arc::new(Inner { seed, network, capture, memory, services: Mutex::default() }))
    }

    /// Returns the seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Draws a number of the range; 0 if it is empty.
    #[must_use]
    pub fn draw(&self, range: Range<usize>) -> usize {
        if range.is_empty() { 0 } else { fastrand::usize(range) }
    }

    /// Draws `true` with this probability in percent.
    #[must_use]
    pub fn chance(&self, percent: u32) -> bool {
        fastrand::u32(0..100) < percent
    }

    /// Draws a time from none to `most`, in whole milliseconds. In some worlds the steps are
    /// larger, so that much happens at the same time.
    #[must_use]
    pub fn time(&self, most: Duration) -> Duration {
        super::faults::up_to(most)
    }

    /// Connects a service to the broker. Its spans are captured under its name. The capabilities
    /// of the broker are drawn from the seed: it retries by itself, with or without delays, or
    /// leaves that to the library.
    #[must_use]
    pub fn broker(&self, service: &str) -> Broker {
        self.traced(service, self.driver(service))
    }

    /// Connects a service to the broker, without the layer of this library above.
    #[must_use]
    pub fn driver(&self, service: &str) -> Arc<dyn Driver> {
        let most = IN_FLIGHT[fastrand::usize(0..IN_FLIGHT.len())];
        let link = Arc::new(Link::connect(Arc::clone(&self.0.network), service, most));
        self.with_service(service, |service| service.links.push(Arc::clone(&link)));
        link
    }

    /// Puts the layer of this library above a driver, such as one that wraps the
    /// [driver](Self::driver) of a service.
    #[must_use]
    pub fn traced(&self, service: &str, driver: Arc<dyn Driver>) -> Broker {
        Traced::new(driver).with_tracer_provider(&self.0.capture.provider(service))
    }

    /// Runs a task of a service, until it ends or the service is [killed](Self::kill).
    pub fn spawn(&self, service: &str, task: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(task).abort_handle();
        self.with_service(service, |service| service.tasks.push(task));
    }

    /// Kills the process of a service: its tasks end where they are, and its connections break
    /// without a word. It may be started again under the same name.
    pub fn kill(&self, service: &str) {
        self.0.network.record(&format!("{service} is killed"));
        let Some(Service { links, tasks }) = self.0.services.lock().remove(service) else { return };
        links.iter().for_each(|link| link.kill());
        tasks.iter().for_each(AbortHandle::abort);
    }

    /// Breaks the connections of a service once.
    pub fn cut(&self, service: &str) {
        self.with_service(service, |service| service.links.iter().for_each(|link| link.cut()));
    }

    /// Runs a future, and drops it at one of its awaits, drawn from the seed. Returns its
    /// output if it ended before.
    pub async fn interrupted<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut left = fastrand::u32(0..MOST_POLLS[usize::from(self.chance(25))]);
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => {
                left -= 1;
                Poll::Pending
            }
        })
        .await
    }

    /// Lets the tasks that are due run first, a few times, as the seed draws. Otherwise things that
    /// happen at one time always happen in one order.
    pub async fn step_aside(&self) {
        for _ in 0..fastrand::u8(0..4) {
            let mut has_stepped = false;
            // Not tokio's `yield_now`, which waits until no task is due at all.
            poll_fn(|cx| {
                if std::mem::replace(&mut has_stepped, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }

    /// Ends all faults: no connection breaks any more, and lost ones come back at once.
    pub fn heal(&self) {
        self.0.network.record("the network is healed");
        self.0.network.healed.cancel();
    }

    /// Heals the network, and waits until the broker is at rest: every group that reads a topic has
    /// settled every message, and no span is open. A topic without a reader is at rest.
    ///
    /// # Errors
    /// [`Unsettled`] if that takes longer than half an hour of virtual time.
    pub async fn settled(&self) -> Result<(), Unsettled> {
        self.heal();
        let at_rest = async {
            while !(self.pending().is_empty() && self.0.capture.open_spans().is_empty()) {
                // Neither of the two tells all changes that matter, and virtual time costs nothing.
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, at_rest).await.is_ok() {
            return Ok(());
        }
        Err(Unsettled::new(PATIENCE, self.0.capture.open_spans(), self.pending(), self.0.capture.traces()))
    }

    /// Returns the messages of a topic, oldest first.
    #[must_use]
    pub fn messages(&self, topic: &str) -> Vec<Outbound> {
        self.0.memory.messages(topic)
    }

    /// Returns the spans of all services, with virtual times.
    #[must_use]
    pub fn capture(&self) -> &Capture {
        &self.0.capture
    }

    /// Returns the faults so far, each with its virtual time.
    #[must_use]
    pub fn happened(&self) -> Vec<String> {
        self.0.network.happened()
    }

    fn pending(&self) -> Vec<String> {
        use crate::adapters::memory::Pending;
        let unfinished = self.0.memory.unfinished();
        unfinished.iter().filter(|left| left.pending != Pending::Unread).map(ToString::to_string).collect()
    }

    fn with_service(&self, name: &str, change: impl FnOnce(&mut Service)) {
        change(self.0.services.lock().entry(name.to_owned()).or_default());
    }
}

/// Draws a kind of broker.
fn draw_capabilities(memory: &Memory) -> Capabilities {
    let mut capabilities = memory.capabilities().clone();
    match fastrand::u8(0..3) {
        0 => {}
        1 => (capabilities.retry, capabilities.delayed_publish) = (Redelivery::Native, false),
        _ => {
            (capabilities.retry, capabilities.delayed_publish) = (Redelivery::Held, false);
            capabilities.attempts = Attempts::Process;
        }
    }
    capabilities
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.0.seed).finish_non_exhaustive()
    }
}
