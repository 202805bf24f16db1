//! A consumer that has subscribed and is to be run.

use std::fmt;
use std::future::{Future, pending};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::task::AbortOnDropHandle;

use super::lanes::Lanes;
use super::report::Report;
use super::runner::Runner;
use super::work::{End, Job, work};
use super::{InTask, OwnTasks};
use crate::consumer::Deliveries;
use crate::delivery::Delivery;
use crate::error::Result;
use crate::handler::HandlerError;
use crate::received::Received;

/// A consumer that has [subscribed](super::Consume::subscribed); it needs the broker no longer, so that it can be given to a task.
#[must_use = "a consumer does nothing until it is run"]
pub struct Subscribed<H, M = InTask> {
    pub(super) deliveries: Deliveries,
    pub(super) job: Job<H>,
    pub(super) concurrency: usize,
    pub(super) window: usize,
    pub(super) drain: Duration,
    pub(super) mode: PhantomData<M>,
}

impl<H> Subscribed<H, InTask> {
    /// Consumes until the broker is closed.
    pub async fn run<F, T>(self) -> Report
    where
        H: Fn(Received) -> F,
        F: Future<Output = Result<T, HandlerError>>,
    {
        self.run_until(pending::<()>()).await
    }

    /// Consumes until `shutdown` ends or the broker is closed, then drains.
    pub async fn run_until<F, T>(self, shutdown: impl Future) -> Report
    where
        H: Fn(Received) -> F,
        F: Future<Output = Result<T, HandlerError>>,
    {
        self.work_until(|job, delivery| work(Arc::clone(job), delivery), shutdown).await
    }
}

impl<H> Subscribed<H, OwnTasks> {
    /// Consumes until the broker is closed.
    pub async fn run<F, T>(self) -> Report
    where
        H: Fn(Received) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, HandlerError>> + Send + 'static,
        T: 'static,
    {
        self.run_until(pending::<()>()).await
    }

    /// Consumes until `shutdown` ends or the broker is closed, then drains.
    pub async fn run_until<F, T>(self, shutdown: impl Future) -> Report
    where
        H: Fn(Received) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, HandlerError>> + Send + 'static,
        T: 'static,
    {
        let start = |job: &Arc<Job<H>>, delivery| {
            let task = AbortOnDropHandle::new(tokio::spawn(work(Arc::clone(job), delivery)));
            task.map(|ended| ended.unwrap_or_else(|_| End::Cancelled))
        };
        self.work_until(start, shutdown).await
    }
}

impl<H, M> Subscribed<H, M> {
    async fn work_until<S, F>(self, start: S, shutdown: impl Future) -> Report
    where
        S: Fn(&Arc<Job<H>>, Delivery) -> F,
        F: Future<Output = End>,
    {
        let Self { deliveries, job, concurrency, window, drain, mode: _ } = self;
        let lanes = Lanes::new(job.ordered, window);
        let job = Arc::new(job);
        let mut runner = Runner::new(deliveries, |delivery| start(&job, delivery), concurrency, lanes);
        runner.run_until(shutdown).await;
        runner.drain(drain).await
    }
}

impl<H, M> fmt::Debug for Subscribed<H, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribed").field("deliveries", &self.deliveries).finish_non_exhaustive()
    }
}
