//! A consumer that has subscribed and is ready to run.

use std::fmt;
use std::future::{Future, pending};
use std::marker::PhantomData;
use std::sync::Arc;

use super::lanes::Lanes;
use super::mode::{HandlerMode, InTask};
use super::report::Report;
use super::runner::Runner;
use super::work::{Work, conclude};
use crate::broker::Deliveries;
use crate::error::Result;

/// A consumer that has [subscribed](super::Consume::subscribed). It does not borrow the broker, so
/// it can be moved into a task.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::{HandlerError, Message, Received, Subscription};
/// use traced_broker::{TracedBroker, TracedBrokerExt, connect};
///
/// let broker = connect("memory://").await?;
/// let ship = async |_: Received| Ok::<_, HandlerError>(());
/// let workers = Subscription::new("orders").group("workers");
/// let workers = broker.consume(workers, ship).subscribed().await?;
/// let running = tokio::spawn(async move { workers.run().await });
///
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
/// # tokio::time::sleep(std::time::Duration::from_millis(50)).await;
/// broker.close().await?; // ends the consumer
/// assert_eq!(running.await.expect("no panic")?.handled, 1);
/// # Ok(()) }
/// ```
#[must_use = "a consumer does nothing until it is run"]
pub struct Subscribed<H, M = InTask> {
    pub(super) deliveries: Deliveries,
    pub(super) job: Work<H>,
    /// Maximum number of messages that wait behind others of their key.
    pub(super) most_waiting: usize,
    pub(super) mode: PhantomData<M>,
}

impl<H, M: HandlerMode<H>> Subscribed<H, M> {
    /// Consumes until the broker is closed.
    ///
    /// # Errors
    /// The errors of [`run_until`](Self::run_until).
    pub async fn run(self) -> Result<Report> {
        self.run_until(pending::<()>()).await
    }

    /// Consumes until `shutdown` ends or the broker is closed, then drains.
    ///
    /// # Errors
    /// The error of a dead letter that the broker refuses for good, unless the consumer is told to
    /// [discard](super::Unburied::Discard) such messages. The message is kept, and the error names
    /// the report of what was done.
    pub async fn run_until(self, shutdown: impl Future) -> Result<Report> {
        let Self { deliveries, job, most_waiting, mode: _ } = self;
        let (concurrency, drain) = (job.settings.size, job.settings.drain);
        let (in_order, unburied) = (job.settings.ordered, job.settings.unburied);
        let lanes = Lanes::new(in_order, most_waiting);
        let job = Arc::new(job);
        let start = |delivery| M::start(&job, delivery);
        let conclude = |fate| conclude(fate, in_order, unburied);
        let mut runner = Runner::new(deliveries, start, conclude, concurrency, lanes);
        runner.run_until(shutdown).await;
        runner.drain(drain, &job.cancel).await
    }
}

impl<H, M> fmt::Debug for Subscribed<H, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribed").field("deliveries", &self.deliveries).finish_non_exhaustive()
    }
}
