//! A connection: refers to its current store, and to the next one when that is gone.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use traced_broker::driver::{Confirmer, Identity, Outbound};
use traced_broker::{Error, ErrorKind, Receipt, Result, Topic};

use crate::queue::{Command, Reply};
use crate::registry;
use crate::store::{Store, failed};

/// First and maximum delay between attempts to reopen the directory.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

static NEXT: AtomicU64 = AtomicU64::new(1);

/// The directory and the options of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) directory: PathBuf,
    pub(crate) sync: bool,
    pub(crate) create: bool,
}

impl Location {
    async fn open(&self) -> Result<Arc<Store>> {
        let location = self.clone();
        let opened = tokio::task::spawn_blocking(move || registry::open(&location.directory, location.sync)).await;
        opened.unwrap_or_else(|error| Err(failed("opening the directory was interrupted", error.into())))
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) location: Location,
    store: watch::Receiver<Option<Arc<Store>>>,
    closed: CancellationToken,
    in_flight: Arc<Semaphore>,
}

impl Connection {
    pub(crate) async fn open(location: Location) -> Result<Arc<Self>> {
        let first = location.open().await?;
        let (sender, store) = watch::channel(Some(Arc::clone(&first)));
        let closed = CancellationToken::new();
        tokio::spawn(keep_open(location.clone(), first, sender, closed.clone()));
        let in_flight = Arc::new(Semaphore::new(Identity::DEFAULT_MAX_IN_FLIGHT));
        Ok(Arc::new(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), location, store, closed, in_flight }))
    }

    /// Returns the current store.
    pub(crate) fn store(&self) -> Result<Arc<Store>> {
        if self.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "the connection is closed"));
        }
        self.store.borrow().clone().ok_or_else(between_stores)
    }

    /// Returns the current store, or waits for the next; `None` after the connection is closed.
    pub(crate) async fn next_store(&self) -> Option<Arc<Store>> {
        let mut changes = self.store.clone();
        let store = changes.wait_for(|store| store.as_ref().is_some_and(|store| !store.queue.is_killed()));
        tokio::select! {
            () = self.closed.cancelled() => None,
            store = store => store.ok()?.clone(),
        }
    }

    /// Completes when the connection is closed.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Queues a message behind those of earlier calls.
    pub(crate) fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        let store = match self.store() {
            Ok(store) => store,
            Err(error) => return confirmer.confirm(Err(error)),
        };
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            let message = "more publishes are unconfirmed than this adapter allows; await some of them";
            return confirmer.confirm(Err(Error::new(ErrorKind::Busy, message)));
        };
        let publish = Command::Publish { permit, topic: topic.clone(), message, confirmer };
        if let Some(Command::Publish { confirmer, .. }) = store.queue.push(publish) {
            confirmer.confirm(Err(between_stores()));
        }
    }

    /// Sends a command to the store and waits for its answer.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.store()?.queue.push(command(reply));
        answer.await.unwrap_or_else(|_| {
            let message = "the directory was closed after a failure; try again later";
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }

    /// Ends the connection: refuses new work and finishes accepted work, then answers.
    pub(crate) fn close(&self) -> Option<oneshot::Receiver<Result<()>>> {
        let store = self.store().ok();
        self.closed.cancel();
        let (reply, answer) = oneshot::channel();
        store?.queue.push(Command::Close { connection: self.id, reply }).is_none().then_some(answer)
    }
}

/// Returns the error of an operation that was not begun.
fn between_stores() -> Error {
    Error::new(ErrorKind::Unavailable, "the directory is being opened again after a failure; try again later")
}

/// Reopens the directory whenever its store ends, until the connection is closed.
async fn keep_open(
    location: Location,
    first: Arc<Store>,
    store: watch::Sender<Option<Arc<Store>>>,
    closed: CancellationToken,
) {
    let again = async {
        let mut ended = first.queue.ended();
        drop(first);
        loop {
            ended.await;
            store.send_replace(None);
            let next = open_again(&location).await;
            ended = next.queue.ended();
            store.send_replace(Some(next));
        }
    };
    closed.run_until_cancelled(again).await;
    store.send_replace(None);
}

async fn open_again(location: &Location) -> Arc<Store> {
    let (mut delay, longest) = BACK_OFF;
    loop {
        match location.open().await {
            Ok(store) => return store,
            Err(_) => tokio::time::sleep(delay).await,
        }
        delay = (2 * delay).min(longest);
    }
}
