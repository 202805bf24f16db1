//! The thread that drives the sockets and timers of a driver.
//!
//! A handler that blocks its thread may stop the application's runtime. On a runtime of their own,
//! heartbeats are sent, frames arrive and acknowledgements leave meanwhile; and a driver outlives
//! the runtime in which it was made.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Error, ErrorKind, Result};

/// A runtime with one thread, which ends when the last handle is dropped. Its tasks must not block.
#[derive(Debug)]
pub(crate) struct Engine {
    runtime: Handle,
    _end: DropGuard,
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`ErrorKind::Unexpected`] if the system refuses the thread or its descriptors.
    pub(crate) fn start() -> Result<Arc<Self>> {
        let refused = |error| {
            Error::new(ErrorKind::Unexpected, "the thread of the RabbitMQ connection cannot be started")
                .with_source(error)
        };
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(refused)?;
        let (handle, end) = (runtime.handle().clone(), CancellationToken::new());
        let ended = end.clone();
        let thread = std::thread::Builder::new().name("traced-broker-amqp".to_owned());
        thread.spawn(move || runtime.block_on(ended.cancelled())).map_err(refused)?;
        Ok(Arc::new(Self { runtime: handle, _end: end.drop_guard() }))
    }

    /// Runs the future on the thread and returns its result. Dropping this drops the future.
    ///
    /// # Errors
    /// The errors of the future, and [`ErrorKind::Unexpected`] if it panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match AbortOnDropHandle::new(self.runtime.spawn(work)).await {
            Ok(result) => result,
            Err(error) => {
                Err(Error::new(ErrorKind::Unexpected, "a task of the RabbitMQ connection failed").with_source(error))
            }
        }
    }

    /// Runs the future on the thread.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(work));
    }
}
