//! The network of one simulated world: its faults, and the record of them.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::faults::Faults;
use crate::adapters::memory::Memory;
use crate::driver::Capabilities;

/// The part of a world that its connections share.
#[derive(Debug)]
pub(super) struct Network {
    /// The name of the embedded broker at the other end.
    pub(super) broker: String,
    pub(super) faults: Faults,
    pub(super) capabilities: Capabilities,
    /// Cancelled when no fault is to happen any more.
    pub(super) healed: CancellationToken,
    began: Instant,
    happened: Mutex<Vec<String>>,
}

/// Maximum number of faults that are recorded for the report.
const MOST_RECORDED: usize = 200;

impl Network {
    pub(super) fn new(broker: String, faults: Faults, capabilities: Capabilities) -> Self {
        Self {
            broker,
            faults,
            capabilities,
            healed: CancellationToken::new(),
            began: Instant::now(),
            happened: Mutex::default(),
        }
    }

    /// Makes a connection at the broker's side.
    pub(super) fn connect(&self) -> Memory {
        Memory::named(&self.broker)
    }

    /// Records a fault with its time.
    pub(super) fn record(&self, what: &str) {
        let mut happened = self.happened.lock();
        if happened.len() < MOST_RECORDED {
            happened.push(format!("{:>9.3} s  {what}", self.began.elapsed().as_secs_f64()));
        }
    }

    /// Returns the recorded faults, in the order of their times.
    pub(super) fn happened(&self) -> Vec<String> {
        self.happened.lock().clone()
    }

    /// Waits until the next loss is due; for ever if there is none.
    pub(super) async fn next_loss(&self) {
        match self.faults.next_loss() {
            Some(time) if !self.healed.is_cancelled() => {
                tokio::select! {
                    biased;
                    () = self.healed.cancelled() => std::future::pending().await,
                    () = tokio::time::sleep(time) => {}
                }
            }
            _ => std::future::pending().await,
        }
    }

    /// Draws the time that a connection is away; none once the network is healed.
    pub(super) fn draw(&self, most: Duration) -> Duration {
        if self.healed.is_cancelled() { Duration::ZERO } else { super::faults::up_to(most) }
    }
}
