//! One message from the source to the target.

use crate::names::header;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::progress::Counts;
use crate::broker::TracedBroker;
use crate::broker::copies::cross;
use crate::context::propagation::Hop;
use crate::error::{Error, ErrorKind};
use crate::message::{HandlerError, Message, Panicked, Received, Topic, Verdict};
use crate::runtime::bridge::{MAX_HOPS, Prepare};
use crate::runtime::consume::Retry;

/// The copier of a bridge's messages.
pub(super) struct Copier<'a, B: ?Sized> {
    source: &'static str,
    to: &'a B,
    topic: Topic,
    retry: Retry,
    prepare: Option<Box<Prepare<'a>>>,
    pub(super) counts: Counts,
    /// Cancelled when the bridge is told to stop; from then on, copies do not wait for an absent
    /// target.
    stopping: CancellationToken,
    /// Cancelled when the target turns out to be closed.
    closed: CancellationToken,
    /// The number of copies that may still start.
    places: Semaphore,
    /// Maximum number of confirmed copies; `enough` is cancelled when it is reached.
    most: u64,
    enough: CancellationToken,
}

impl<'a, B: TracedBroker + ?Sized> Copier<'a, B> {
    pub(super) fn new(
        source: &'static str,
        to: &'a B,
        topic: Topic,
        retry: Retry,
        prepare: Option<Box<Prepare<'a>>>,
        most: u64,
    ) -> Self {
        let [stopping, closed, enough] = [(); 3].map(|()| CancellationToken::new());
        let places = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let (counts, places) = (Counts::new(), Semaphore::new(places));
        Self { source, to, topic, retry, prepare, counts, stopping, closed, places, most, enough }
    }

    /// Returns a guard. Once it is dropped, copies that wait for the target give up, and their
    /// messages go back.
    pub(super) fn stop_on_drop(&self) -> DropGuard {
        self.stopping.clone().drop_guard()
    }

    /// Waits until no more is to be copied: the target is closed, or the requested number of copies
    /// has arrived.
    pub(super) async fn finished(&self) {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => {}
            () = self.enough.cancelled() => {}
        }
    }

    /// Copies a message; returns once the target has confirmed it.
    ///
    /// Temporary failures are retried right here, so that no further message is taken while the
    /// target is away.
    pub(super) async fn copy(self: Arc<Self>, received: Received) -> Result<(), HandlerError> {
        let Some(place) = self.place().await else {
            return Err(HandlerError::retry("the bridge takes no further messages"));
        };
        let _under_way = self.counts.set_out();
        self.copy_until_confirmed(&received).await?;
        place.forget();
        if self.counts.arrived() >= self.most {
            self.enough.cancel();
        }
        Ok(())
    }

    /// Waits until one more copy may start; `None` if the bridge is told to stop first.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        // Without waiting if possible: meanwhile, the runtime may let later copies pass, but copies
        // must start in order.
        if let Ok(place) = self.places.try_acquire() {
            return Some(place);
        }
        self.stopping.run_until_cancelled(self.places.acquire()).await?.ok()
    }

    async fn copy_until_confirmed(&self, received: &Received) -> Result<(), HandlerError> {
        let mut attempt = 1;
        while let Err(error) = self.try_copy(received).await {
            self.counts.failed();
            if kind(&error) == Some(ErrorKind::Closed) {
                self.closed.cancel();
                return Err(error.with_verdict(Verdict::Retry(Duration::ZERO)));
            }
            let Verdict::Retry(delay) = self.retry.verdict(&error, attempt) else {
                return Err(error.with_verdict(Verdict::Reject));
            };
            tracing::debug!(topic = %self.topic, %error, ?delay, "a copy failed and will be retried");
            if self.stopping.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                return Err(error.with_verdict(Verdict::Retry(Duration::ZERO)));
            }
            attempt += 1;
        }
        Ok(())
    }

    async fn try_copy(&self, received: &Received) -> Result<(), HandlerError> {
        let mut message = self.addressed(received)?;
        let (headers, counts) = cross(&message.headers, self.to.capabilities().header_values);
        message.headers = headers;
        let bytes = message.payload().len();
        let is_ours = received.origin().is_passed_on();
        let sent = if is_ours { self.to.forward(&self.topic, message) } else { self.to.publish(&self.topic, message) };
        sent.await.map_err(refused)?;
        self.counts.copied(bytes, counts);
        Ok(())
    }

    /// Returns the message to forward, before the headers that cannot cross are removed.
    fn addressed(&self, received: &Received) -> Result<Message, HandlerError> {
        let mut message = Message::from(received);
        message.hop = hop(received);
        message.is_mandatory = true;
        self.keep_id(&mut message, received);
        self.keep_tombstone(&mut message);
        count_hop(&mut message)?;
        let Some(prepare) = &self.prepare else { return Ok(message) };
        // A panic is a failed attempt like any other, so the policy applies to it too.
        let prepared = catch_unwind(AssertUnwindSafe(|| prepare(message, received)));
        prepared.unwrap_or_else(|panic| Err(HandlerError::retry(Panicked::with(&*panic))))
    }

    /// Leaves out an id that the source assigned: it means nothing at another broker.
    fn keep_id(&self, message: &mut Message, received: &Received) {
        // A Redis entry always has an id; the sender's id is in the header.
        let header = message.headers.get_str(header::MESSAGE_ID);
        if self.source == "redis" && header != received.id() {
            message.copied = None;
        }
    }

    fn keep_tombstone(&self, message: &mut Message) {
        let has_tombstones = self.to.capabilities().tombstones;
        if message.payload.is_none() && !has_tombstones {
            message.payload = Some(Bytes::new());
            message.headers.insert(header::BRIDGE_TOMBSTONE, "true");
        } else if has_tombstones
            && message.payload().is_empty()
            && message.headers.get(header::BRIDGE_TOMBSTONE) == Some(b"true")
        {
            message.payload = None;
            message.headers.remove(header::BRIDGE_TOMBSTONE);
        }
    }
}

/// Returns the kind of hop of the copy. A message that was late at the source is late at the target
/// too; a dead letter is known by its headers.
fn hop(received: &Received) -> Option<Hop> {
    match received.origin().hop {
        Hop::Direct | Hop::Bridge => Some(Hop::Bridge),
        late @ (Hop::Delayed | Hop::Scheduled | Hop::Replay) => Some(late),
        Hop::DeadLetter => None,
    }
}

/// Converts the target's error: rejects the message if it is itself the cause, and retries
/// otherwise.
fn refused(error: Error) -> HandlerError {
    match error.kind() {
        ErrorKind::InvalidMessage | ErrorKind::TooLarge | ErrorKind::Unsupported | ErrorKind::InvalidConfig => {
            HandlerError::reject(error)
        }
        _ => HandlerError::retry(error),
    }
}

fn kind(error: &HandlerError) -> Option<ErrorKind> {
    error.error().downcast_ref::<Error>().map(Error::kind)
}

fn count_hop(message: &mut Message) -> Result<(), HandlerError> {
    let hops =
        message.headers.get_str(header::BRIDGE_HOPS).and_then(|hops| hops.parse::<u32>().ok()).unwrap_or_default();
    if hops >= MAX_HOPS {
        return Err(HandlerError::reject(format!("the message has crossed {hops} bridges: the bridges form a loop")));
    }
    message.headers.insert(header::BRIDGE_HOPS, (hops + 1).to_string());
    Ok(())
}
