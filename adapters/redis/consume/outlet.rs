//! The end of a subscription's channel at which its task is: hands over, reports, and knows when to stop.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind};

use super::super::backoff::Backoff;
use super::super::entry::{Entry, EntryId};
use super::super::error::SYSTEM;
use super::delivery::Generation;
use super::source::{Batch, Event};
use super::window::Window;

/// A connection that lasted that long was good: what follows is another outage, to be reported again.
const GOOD: Duration = Duration::from_secs(5);

/// How many ids a report names.
const NAMED: usize = 5;

/// What a subscription's task shares with the stream that is polled.
pub(super) struct Outlet {
    events: mpsc::Sender<Event>,
    closing: CancellationToken,
    window: Arc<Window>,
    stream: String,
}

impl Outlet {
    pub(super) fn new(
        events: mpsc::Sender<Event>,
        closing: CancellationToken,
        window: Arc<Window>,
        stream: &str,
    ) -> Self {
        Self { events, closing, window, stream: stream.to_owned() }
    }

    pub(super) fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// Whether the broker was closed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Whether nobody polls the stream any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Completes when nothing more is to be read: the broker is closed or the stream dropped.
    pub(super) async fn stopped(&self) {
        tokio::select! {
            () = self.closing.cancelled() => {}
            () = self.events.closed() => {}
        }
    }

    /// Completes when the broker is closed.
    pub(super) async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// Hands entries over. There is room for as many batches as the window has places, so that this waits for nobody.
    pub(super) async fn hand_over(&self, generation: &Arc<Generation>, entries: Vec<Entry>) {
        if !entries.is_empty() {
            // An error means that the stream is gone; the batch then gives back its places.
            let _ = self.events.send(Event::Batch(Batch::new(Arc::clone(generation), entries))).await;
        }
    }

    /// Reports entries that were pending and are no longer in the stream: nobody can handle them any more.
    pub(super) fn report_missing(&self, ids: &[EntryId]) {
        if ids.is_empty() {
            return;
        }
        let named: Vec<String> = ids.iter().take(NAMED).map(ToString::to_string).collect();
        let message = "messages were trimmed or deleted from the stream before they were handled: they are lost";
        let error = Error::new(ErrorKind::NotFound, message);
        self.report(error.with_context("lost", ids.len()).with_context("ids", named.join(" ")));
    }

    /// Makes an error an item of the stream.
    pub(super) fn report(&self, error: Error) {
        tracing::warn!(stream = self.stream, %error, "trouble with a subscription");
        // Full means that nobody polls: it was logged at least.
        let _ = self.events.try_send(Event::Trouble(error.with_system(SYSTEM)));
    }
}

/// The attempts at restoring what a subscription reads over: one report for each kind of trouble, and a pause before each
/// attempt.
pub(super) struct Outage {
    backoff: Backoff,
    reported: Option<ErrorKind>,
    /// When what was lost had been there since.
    restored: Option<Instant>,
}

impl Outage {
    /// No outage: there is a connection.
    pub(super) fn none() -> Self {
        Self { backoff: Backoff::new(), reported: None, restored: Some(Instant::now()) }
    }

    /// Notes a failure and waits before the next attempt, unless the subscription is to end. Whether to try again.
    pub(super) async fn pause(&mut self, outlet: &Outlet, error: Error) -> bool {
        if self.restored.take().is_some_and(|since| since.elapsed() >= GOOD) {
            self.backoff.reset();
            self.reported = None;
        }
        if outlet.is_closing() || outlet.is_abandoned() {
            tracing::debug!(stream = outlet.stream, %error, "a subscription ended while its connection was lost");
            return false;
        }
        if self.reported.replace(error.kind()) != Some(error.kind()) {
            outlet.report(explain(error));
        }
        tokio::select! {
            () = outlet.stopped() => false,
            () = tokio::time::sleep(self.backoff.pause()) => true,
        }
    }

    /// Notes that the connection works.
    pub(super) fn over(&mut self) {
        self.restored = Some(Instant::now());
    }
}

/// A lost connection is said to be one, whatever was under way when it broke.
fn explain(error: Error) -> Error {
    match error.kind() {
        kind @ (ErrorKind::Unavailable | ErrorKind::Timeout) => {
            let message = "the connection is lost and is being restored; what is unsettled comes again";
            Error::new(kind, message).with_source(error)
        }
        _ => error,
    }
}
