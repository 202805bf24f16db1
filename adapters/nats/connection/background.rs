//! The thread on which the clients of one broker run.

use std::fmt;
use std::future::Future;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Error, ErrorKind, Result};

use super::super::error;

/// Maximum time for which clients without handles may go on writing.
const LINGER: Duration = Duration::from_secs(2);
/// Interval of the checks for clients that still write.
const LOOK: Duration = Duration::from_millis(10);

/// A thread with a runtime of its own. Connections are read and written there, and unsettled
/// deliveries are kept from being redelivered, also while handlers that block or compute occupy
/// every thread of the application's runtime.
///
/// The thread ends after the last handle is dropped.
pub(crate) struct Background {
    runtime: Handle,
    _end: DropGuard,
}

impl Background {
    /// Starts the thread.
    pub(crate) fn start() -> Result<Self> {
        let refused =
            |error| Error::new(ErrorKind::Unexpected, "the thread of the NATS clients cannot start").with_source(error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(refused)?;
        let (handle, end) = (runtime.handle().clone(), CancellationToken::new());
        let ended = end.clone();
        let serve = move || runtime.block_on(serve(ended));
        thread::Builder::new().name("traced-broker-nats".to_owned()).spawn(serve).map_err(refused)?;
        Ok(Self { runtime: handle, _end: end.drop_guard() })
    }

    /// Runs a future on the thread; dropping the handle ends it.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(self.runtime.spawn(future))
    }

    /// Runs a future on the thread to its end.
    pub(crate) fn detach(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(future));
    }

    /// Runs a future on the thread and waits for its result.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let running = AbortOnDropHandle::new(self.runtime.spawn(future));
        running.await.unwrap_or_else(|_| Err(error::ended()))
    }

    /// Returns the runtime of the thread.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

async fn serve(end: CancellationToken) {
    end.cancelled().await;
    // A client whose handles are gone writes what is in its queue, and then ends by itself.
    let (tasks, deadline) = (Handle::current().metrics(), Instant::now() + LINGER);
    while tasks.num_alive_tasks() > 0 && Instant::now() < deadline {
        sleep(LOOK).await;
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_thread_ends_with_its_last_handle_and_without_waiting_for_a_stuck_task() {
        let background = Background::start().unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        background.detach(async move {
            std::future::pending::<()>().await;
            drop(sender);
        });
        drop(background);
        assert!(tokio::time::timeout(LINGER * 5, receiver).await.expect("the task ends").is_err());
    }

    #[tokio::test]
    async fn results_come_back_and_panics_are_errors() {
        let background = Background::start().unwrap();
        assert_eq!(background.run(async { Ok(7) }).await.unwrap(), 7);
        let panicking = background.run(async {
            assert!(Handle::try_current().is_err(), "it has a runtime");
            Ok(())
        });
        assert_eq!(panicking.await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(background.run(async { Ok(8) }).await.unwrap(), 8, "the thread goes on");
    }
}
