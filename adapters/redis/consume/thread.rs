//! The thread on which members of groups run.

use std::io;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Error, ErrorKind, Result};

use super::super::error::SYSTEM;

/// Maximum time for the members to end after the broker was closed or dropped.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A thread for the members of groups of one broker, started with the first of them. A handler that
/// blocks its thread, or keeps the application's runtime busy, does not keep a member from renewing
/// its entries: other members would take them over.
#[derive(Debug)]
pub(crate) struct MemberThread {
    handle: Mutex<Option<Handle>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl MemberThread {
    pub(crate) fn new(closing: CancellationToken, tasks: TaskTracker) -> Self {
        Self { handle: Mutex::default(), closing, tasks }
    }

    /// Runs a future on the thread. Tasks that it spawns run there as well.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let handle = self.handle().map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the thread of the consumers cannot be started")
                .with_system(SYSTEM)
                .with_source(error)
        })?;
        self.tasks.spawn_on(work, &handle).await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Closed, "the broker was closed").with_system(SYSTEM).with_source(error))
        })
    }

    fn handle(&self) -> io::Result<Handle> {
        let mut started = self.handle.lock();
        if let Some(handle) = &*started {
            return Ok(handle.clone());
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (closing, tasks) = (self.closing.clone(), self.tasks.clone());
        let end = async move {
            closing.cancelled().await;
            tasks.close();
            // Tasks that hang are dropped with the runtime.
            let _ = tokio::time::timeout(END_WITHIN, tasks.wait()).await;
        };
        thread::Builder::new().name("redis-consumer".to_owned()).spawn(move || runtime.block_on(end))?;
        *started = Some(handle.clone());
        Ok(handle)
    }
}
