//! The task in which handlers run: that of the consumer, or their own.

use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio_util::task::AbortOnDropHandle;

use super::work::{Fate, Handled, Work, handle};
use crate::broker::Delivery;
use crate::message::{HandlerError, Received};

/// The mode in which handlers take turns in the task that runs the consumer.
#[derive(Debug, Clone, Copy)]
pub struct InTask;

/// The mode in which each handler runs in its own task; see
/// [`Consume::in_own_tasks`](super::Consume::in_own_tasks).
#[derive(Debug, Clone, Copy)]
pub struct OwnTasks;

/// A mode that can run a handler `H`: [`InTask`] any, [`OwnTasks`] one that may move to another
/// thread. Implemented by these two only.
#[diagnostic::on_unimplemented(
    message = "`{H}` is not a handler for this mode",
    label = "a handler is a `Fn(Received) -> impl Future<Output = Result<T, HandlerError>>`; \
             `in_own_tasks()` needs one that is `Send + Sync + 'static`, with a future that is `Send`"
)]
pub trait HandlerMode<H>: Runs<H> {}

impl<H, M: Runs<H>> HandlerMode<H> for M {}

/// The private half of [`HandlerMode`], which keeps other crates from implementing it.
pub trait Runs<H> {
    /// Starts one attempt.
    #[doc(hidden)]
    fn start(job: &Arc<Work<H>>, delivery: Delivery) -> impl Future<Output = Handled> + use<Self, H>;
}

impl<H, F, T> Runs<H> for InTask
where
    H: Fn(Received) -> F,
    F: Future<Output = Result<T, HandlerError>>,
{
    fn start(job: &Arc<Work<H>>, delivery: Delivery) -> impl Future<Output = Handled> + use<H, F, T> {
        handle(Arc::clone(job), delivery)
    }
}

impl<H, F, T> Runs<H> for OwnTasks
where
    H: Fn(Received) -> F + Send + Sync + 'static,
    F: Future<Output = Result<T, HandlerError>> + Send + 'static,
    T: 'static,
{
    fn start(job: &Arc<Work<H>>, delivery: Delivery) -> impl Future<Output = Handled> + use<H, F, T> {
        let (work, cancel) = (handle(Arc::clone(job), delivery), job.cancel.clone());
        let work = async move { cancel.run_until_cancelled_owned(work).await.unwrap_or(Handled(Fate::Cancelled)) };
        let task = AbortOnDropHandle::new(tokio::spawn(work));
        task.map(|ended| ended.unwrap_or(Handled(Fate::Cancelled)))
    }
}
