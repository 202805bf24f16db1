//! A connection: whichever store it has now, and the next one when that is gone.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use traced_broker::driver::{Confirmation, DEFAULT_MAX_IN_FLIGHT, Outbound};
use traced_broker::{Error, ErrorKind, Receipt, Result, Topic};

use crate::queue::{Command, Reply};
use crate::registry;
use crate::store::{Store, failed};

/// How long to wait before the first and the last of many attempts to open the directory again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Where a connection leads.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    pub(crate) sync: bool,
    pub(crate) create: bool,
}

impl Place {
    async fn open(&self) -> Result<Arc<Store>> {
        let place = self.clone();
        let opened = tokio::task::spawn_blocking(move || registry::open(&place.directory, place.sync)).await;
        opened.unwrap_or_else(|error| Err(failed("opening the directory was interrupted", error.into())))
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) place: Place,
    store: watch::Receiver<Option<Arc<Store>>>,
    closed: CancellationToken,
    in_flight: Arc<Semaphore>,
}

impl Connection {
    pub(crate) async fn open(place: Place) -> Result<Arc<Self>> {
        let first = place.open().await?;
        let (sender, store) = watch::channel(Some(Arc::clone(&first)));
        let closed = CancellationToken::new();
        tokio::spawn(keep_open(place.clone(), first, sender, closed.clone()));
        let in_flight = Arc::new(Semaphore::new(DEFAULT_MAX_IN_FLIGHT));
        Ok(Arc::new(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), place, store, closed, in_flight }))
    }

    /// The store of this moment.
    pub(crate) fn store(&self) -> Result<Arc<Store>> {
        if self.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "the connection is closed"));
        }
        self.store.borrow().clone().ok_or_else(between_stores)
    }

    /// The store of this moment, or else the next; none when the connection is closed.
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

    /// Puts a message in the queue, behind those of earlier calls.
    pub(crate) fn publish(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        let store = match self.store() {
            Ok(store) => store,
            Err(error) => return Confirmation::ready(Err(error)),
        };
        let Ok(place) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            let message = "more publishes are unconfirmed than this adapter allows; await some of them";
            return Confirmation::ready(Err(Error::new(ErrorKind::Busy, message)));
        };
        let (confirmer, confirmation) = Confirmation::pending();
        let publish = Command::Publish { place, topic: topic.clone(), message, confirmer };
        if store.queue.push(publish) { confirmation } else { Confirmation::ready(Err(between_stores())) }
    }

    /// Asks the store and waits for its answer.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.store()?.queue.push(command(reply));
        answer.await.unwrap_or_else(|_| {
            let message = "the directory was closed after a failure; try again later";
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }

    /// Ends the connection: nothing more is taken, what was taken is done. The answer comes when it is.
    pub(crate) fn close(&self) -> Option<oneshot::Receiver<Result<()>>> {
        let store = self.store().ok();
        self.closed.cancel();
        let (reply, answer) = oneshot::channel();
        store?.queue.push(Command::Close { connection: self.id, reply }).then_some(answer)
    }
}

/// The error of what nobody began.
fn between_stores() -> Error {
    Error::new(ErrorKind::Unavailable, "the directory is being opened again after a failure; try again later")
}

/// Opens the directory again whenever its store ends, until the connection is closed.
async fn keep_open(
    place: Place,
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
            let next = open_again(&place).await;
            ended = next.queue.ended();
            store.send_replace(Some(next));
        }
    };
    closed.run_until_cancelled(again).await;
    store.send_replace(None);
}

async fn open_again(place: &Place) -> Arc<Store> {
    let (mut delay, longest) = BACK_OFF;
    loop {
        match place.open().await {
            Ok(store) => return store,
            Err(_) => tokio::time::sleep(delay).await,
        }
        delay = (2 * delay).min(longest);
    }
}
