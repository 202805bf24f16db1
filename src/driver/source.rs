//! The source of a subscription's messages.

use std::fmt;
use std::task::{Context, Poll};

use futures_core::stream::BoxStream;
use futures_util::StreamExt;

use super::{Destination, Inbound};
use crate::error::Result;

/// A running subscription: its deliveries and its native name. Dropping it ends the subscription
/// and returns undelivered messages to the broker.
///
/// An error item reports a problem and does not end the stream; only `None` ends it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::future::poll_fn;
/// use traced_broker::adapters::memory::Memory;
/// use traced_broker::driver::{Disposition, Driver, DriverExt, Outbound};
/// use traced_broker::{Subscription, Topic};
///
/// let driver = Memory::new();
/// driver.enqueue(&Topic::new("orders")?, Outbound::new("shoes")).await?;
///
/// let mut source = driver.subscribe(&Subscription::new("orders").group("workers")).await?;
/// let inbound = poll_fn(|cx| source.poll_next(cx)).await.expect("open")?;
/// assert_eq!(inbound.payload.as_deref(), Some(&b"shoes"[..]));
/// inbound.handle.settle(Disposition::Ack).await?;
///
/// driver.close().await?;
/// assert!(poll_fn(|cx| source.poll_next(cx)).await.is_none());
/// # Ok(()) }
/// ```
pub struct Source {
    /// The native name of the subscription.
    pub destination: Destination,
    stream: BoxStream<'static, Result<Inbound>>,
    stop: Option<Box<dyn FnOnce() + Send>>,
    is_stopped: bool,
}

impl Source {
    /// Creates a source of the messages of `stream`.
    pub fn new(
        destination: Destination,
        stream: impl futures_core::Stream<Item = Result<Inbound>> + Send + 'static,
    ) -> Self {
        Self { destination, stream: stream.boxed(), stop: None, is_stopped: false }
    }

    /// Sets the action that stops the intake: the driver takes no more messages from the broker,
    /// and gives back those that it has not handed out, without counting an attempt. Deliveries
    /// that are out can be settled as before.
    ///
    /// The action is called at most once and must not block. A source without one goes on fetching
    /// ahead, up to its bound, while its consumer drains.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use traced_broker::driver::{Destination, Source};
    ///
    /// let stopped = Arc::new(AtomicBool::new(false));
    /// let flag = Arc::clone(&stopped);
    /// let mut source = Source::new(Destination::new(), futures_util::stream::pending())
    ///     .on_stop(move || flag.store(true, Ordering::Relaxed));
    /// assert!(source.stop());
    /// assert!(stopped.load(Ordering::Relaxed));
    /// ```
    #[must_use]
    pub fn on_stop(mut self, stop: impl FnOnce() + Send + 'static) -> Self {
        self.stop = Some(Box::new(stop));
        self
    }

    /// Stops the intake, and returns `true` if the driver can. A second call is a no-op. The source
    /// is not polled any more.
    pub fn stop(&mut self) -> bool {
        match self.stop.take() {
            Some(stop) => stop(),
            None => return self.is_stopped,
        }
        self.is_stopped = true;
        true
    }

    /// Polls for the next message, as a stream does.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Inbound>>> {
        self.stream.poll_next_unpin(cx)
    }

    /// Passes each message through `change`, on its way to the layer above.
    #[must_use]
    pub fn map(self, mut change: impl FnMut(Inbound) -> Inbound + Send + 'static) -> Self {
        let stream = self.stream.map(move |item| item.map(&mut change)).boxed();
        Self { stream, ..self }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("destination", &self.destination).finish_non_exhaustive()
    }
}
