//! Messages that were not taken, because the broker ended their channel on one before them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

use super::in_flight::{InFlight, Permit};
use crate::driver::{Confirmer, Outbound};
use crate::error::Error;
use crate::message::{Receipt, Topic};

/// Maximum time to wait for the tasks that pass on the ends of the messages. They run on the
/// application's runtime, whose threads may be blocked.
const GATHERING: Duration = Duration::from_secs(1);

/// A message for a topic, on its way.
pub(crate) struct Parcel {
    pub(crate) topic: Topic,
    pub(crate) message: Outbound,
    pub(crate) confirmer: Confirmer<Receipt>,
}

/// The stranded messages of one channel, and the number of those that are on their way.
#[derive(Debug)]
pub(crate) struct Strand {
    on_the_way: Arc<InFlight>,
    /// By their numbers; `None` once they were taken.
    stranded: Mutex<Option<Vec<(u64, Parcel)>>>,
}

impl Strand {
    pub(crate) fn new() -> Self {
        Self { on_the_way: InFlight::new(usize::MAX), stranded: Mutex::new(Some(Vec::new())) }
    }

    /// Counts a message as on its way until this is dropped.
    pub(crate) fn on_the_way(&self) -> Permit {
        self.on_the_way.count()
    }

    /// Keeps a message for the next channel. After that has been opened, it is certainly not sent.
    pub(crate) fn keep(&self, number: u64, parcel: Parcel, error: Error) {
        match &mut *self.stranded.lock() {
            Some(stranded) => stranded.push((number, parcel)),
            None => parcel.confirmer.confirm(Err(error)),
        }
    }

    /// Returns all stranded messages of a channel that ended, in order.
    pub(crate) async fn take(&self) -> Vec<Parcel> {
        if timeout(GATHERING, self.on_the_way.all_free()).await.is_err() {
            tracing::debug!("some publishes of a RabbitMQ channel that ended are not answered yet");
        }
        let mut stranded = self.stranded.lock().take().unwrap_or_default();
        stranded.sort_unstable_by_key(|(number, _)| *number);
        stranded.into_iter().map(|(_, parcel)| parcel).collect()
    }
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parcel").field("topic", &self.topic).finish_non_exhaustive()
    }
}
