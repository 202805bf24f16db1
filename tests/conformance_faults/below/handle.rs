//! The handle of one delivery.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use traced_broker::ErrorKind;
use traced_broker::driver::{AttributeValue, Confirmation, DeliveryHandle, Disposition};

use super::broker::{Message, Shared};
use super::{DriverFault, Mortal};

#[derive(Default)]
pub(super) struct Handle {
    pub(super) broker: Option<Arc<Mortal>>,
    pub(super) is_reader: bool,
    pub(super) life: u64,
    pub(super) message: Message,
    pub(super) shared: Shared,
    pub(super) room: Arc<AtomicUsize>,
    pub(super) is_aside: AtomicBool,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    /// Creates a handle in place of one that is taken.
    pub(super) fn none() -> Self {
        Self::default()
    }

    fn fault(&self) -> DriverFault {
        self.broker.as_ref().map_or(DriverFault::None, |broker| broker.fault)
    }

    fn was_killed(&self) -> bool {
        self.broker.as_ref().is_some_and(|broker| *broker.life.borrow() != Some(self.life))
    }

    /// Settles the delivery that the message has now.
    fn settle_newest(&self, disposition: Disposition) {
        let newest = self.broker.as_ref().and_then(|broker| broker.newest.lock().get(&self.message).cloned());
        let handle = newest.and_then(|(_, newest)| newest.lock().take());
        drop(handle.map(|handle| handle.settle(disposition)));
    }

    /// Redelivers a message after the delay, or as soon as the broker is killed.
    fn wait(&self, handle: Box<dyn DeliveryHandle>, delay: Duration) -> Confirmation<()> {
        let waiting: Shared = Arc::default();
        *waiting.lock() = Some(handle);
        self.broker.iter().for_each(|broker| broker.waiting.lock().push(Arc::clone(&waiting)));
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let handle = waiting.lock().take();
            drop(handle.map(|handle| handle.settle(Disposition::Retry(Duration::ZERO))));
        });
        Confirmation::ready(Ok(()))
    }
}

impl DeliveryHandle for Handle {
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        let Some(handle) = self.shared.lock().take() else { return Confirmation::ready(Ok(())) };
        let disposition = match (self.fault(), disposition) {
            (DriverFault::IgnoresRetriesOfReaders, Disposition::Retry(_)) if self.is_reader => Disposition::Ack,
            (DriverFault::CountsWhatIsGivenBack, Disposition::GiveBack) => Disposition::Retry(Duration::ZERO),
            (DriverFault::ForgetsDelays, Disposition::Retry(delay)) if !delay.is_zero() => {
                return self.wait(handle, delay);
            }
            (_, disposition) => disposition,
        };
        let settled = handle.settle(disposition);
        match self.fault() {
            DriverFault::StaleHandlesSettle if self.was_killed() => self.settle_newest(disposition),
            DriverFault::LostSettlementsAreOk if self.was_killed() => {
                return Confirmation::running(async move {
                    match settled.await {
                        Err(error) if error.kind() == ErrorKind::SettlementLost => Ok(()),
                        settled => settled,
                    }
                });
            }
            _ => {}
        }
        settled
    }

    fn begin_trial(&self) -> Confirmation<()> {
        self.shared.lock().as_ref().map_or(Confirmation::ready(Ok(())), |handle| handle.begin_trial())
    }

    fn set_aside(&self) -> bool {
        if self.fault() == DriverFault::SetsAsideInWordsOnly {
            return true;
        }
        self.is_aside.store(true, Ordering::Relaxed);
        self.room.fetch_add(1, Ordering::Relaxed);
        self.shared.lock().as_ref().is_some_and(|handle| handle.set_aside())
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        self.shared.lock().iter().for_each(|handle| handle.attributes(visit));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.broker.is_none() {
            return;
        }
        if !self.is_aside.load(Ordering::Relaxed) {
            self.room.fetch_add(1, Ordering::Relaxed);
        }
        let handle = self.shared.lock().take();
        if let (Some(handle), DriverFault::AcknowledgesWhatIsDropped) = (handle, self.fault()) {
            drop(handle.settle(Disposition::Ack));
        }
    }
}
