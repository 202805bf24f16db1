//! The task's end of a subscription's channel: hands over entries, reports trouble, and knows when
//! to stop.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use ::redis::RedisResult;

use crate::error::{Error, ErrorKind, Result};

use super::super::connection::answer::is_too_long;
use super::super::connection::backoff::Backoff;
use super::super::connection::entry::{Entries, Entry, EntryId};
use super::super::error::{SYSTEM, command_failed};
use super::delivery::Membership;
use super::source::{Batch, Event};
use super::window::Window;

/// Duration from which a connection counts as good: its loss is then another outage, to be reported
/// again.
const GOOD: Duration = Duration::from_secs(5);

/// Maximum number of ids in a report.
const NAMED: usize = 5;

/// The state that a subscription's task shares with the stream that is polled.
pub(super) struct EntryChannel {
    /// `None` once the stream is gone and nothing is handed over any more.
    events: Mutex<Option<mpsc::Sender<Event>>>,
    closing: CancellationToken,
    /// Cancelled when the subscription is to take no more messages.
    stopping: CancellationToken,
    window: Arc<Window>,
    stream: String,
}

impl EntryChannel {
    pub(super) fn new(
        events: mpsc::Sender<Event>,
        closing: CancellationToken,
        window: Arc<Window>,
        stream: &str,
    ) -> Self {
        let events = Mutex::new(Some(events));
        Self { events, closing, stopping: CancellationToken::new(), window, stream: stream.to_owned() }
    }

    /// Returns the action that stops the intake.
    pub(super) fn stop(&self) -> impl FnOnce() + Send + use<> {
        let stopping = self.stopping.clone();
        move || stopping.cancel()
    }

    pub(super) fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// Returns `true` if the broker was closed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Returns `true` if the stream was dropped.
    pub(super) fn is_abandoned(&self) -> bool {
        self.events().is_none_or(|events| events.is_closed())
    }

    fn events(&self) -> Option<mpsc::Sender<Event>> {
        self.events.lock().clone()
    }

    /// Returns `true` if no more entries are to be read: the broker is closed, or the stream is
    /// stopped or dropped.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_closing() || self.is_abandoned() || self.stopping.is_cancelled()
    }

    /// Completes when no more entries are to be read.
    pub(super) async fn stopped(&self) {
        tokio::select! {
            () = self.closing.cancelled() => {}
            () = self.stopping.cancelled() => {}
            () = self.abandoned() => {}
        }
    }

    /// Completes when the broker is closed.
    pub(super) async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// Completes when the stream is dropped.
    pub(super) async fn abandoned(&self) {
        if let Some(events) = self.events() {
            events.closed().await;
        }
    }

    /// Gives up what was handed over and not received. What is sent while the stream is dropped may
    /// stay in the channel, with its places in the window, until the last sender is gone.
    pub(super) fn give_up(&self) {
        self.events.lock().take();
    }

    /// Returns the entries that were read. If they were too many for one answer, fewer are read
    /// over the next connection.
    pub(super) fn read(&self, answer: RedisResult<Entries>) -> Result<Entries> {
        answer.map_err(|error| {
            if is_too_long(&error) {
                self.window.read_too_much();
            }
            command_failed("read the stream", error)
        })
    }

    /// Hands entries over, which `member` holds if they are to be acknowledged. There is room for
    /// as many batches as the window has places, so this does not wait.
    pub(super) async fn hand_over(&self, member: Option<&Arc<Membership>>, entries: Vec<Entry>) {
        let Some(events) = self.events() else { return };
        if !entries.is_empty() {
            self.window.measure(entries.len(), entries.iter().map(Entry::size).sum());
            let batch = Batch::new(Arc::clone(&self.window), member.cloned(), entries);
            // An error means that the stream is gone; the batch then gives back its places.
            let _ = events.send(Event::Batch(batch)).await;
        }
    }

    /// Reports entries that were pending and are no longer in the stream, so they can no longer be
    /// handled.
    pub(super) fn report_missing(&self, ids: &[EntryId]) {
        if ids.is_empty() {
            return;
        }
        let named: Vec<String> = ids.iter().take(NAMED).map(ToString::to_string).collect();
        let message = "messages were trimmed or deleted from the stream before they were handled: they are lost";
        let error = Error::new(ErrorKind::NotFound, message);
        self.report(error.with_context("lost", ids.len()).with_context("ids", named.join(" ")));
    }

    /// Reports an error as an item of the stream.
    pub(super) fn report(&self, error: Error) {
        tracing::warn!(stream = self.stream, %error, "a subscription reported an error");
        // A full channel means that the stream is not polled; the error was at least logged.
        let _ = self.events().map(|events| events.try_send(Event::Trouble(error.with_system(SYSTEM))));
    }
}

/// The attempts to restore a subscription's connection: one report for each kind of trouble, and a
/// pause before each attempt.
pub(super) struct Outage {
    backoff: Backoff,
    reported: Option<ErrorKind>,
    /// The time at which the lost connection was made.
    restored: Option<Instant>,
}

impl Outage {
    /// Returns the state without an outage, while there is a connection.
    pub(super) fn none() -> Self {
        Self { backoff: Backoff::new(), reported: None, restored: Some(Instant::now()) }
    }

    /// Records a failure and waits before the next attempt, unless the subscription is to end.
    /// Returns `true` to try again.
    pub(super) async fn pause(&mut self, channel: &EntryChannel, error: Error) -> bool {
        if self.restored.take().is_some_and(|since| since.elapsed() >= GOOD) {
            self.backoff.reset();
            self.reported = None;
        }
        if channel.is_closing() || channel.is_abandoned() {
            tracing::debug!(stream = channel.stream, %error, "a subscription ended while its connection was lost");
            return false;
        }
        if self.reported.replace(error.kind()) != Some(error.kind()) {
            channel.report(explain(error));
        }
        tokio::select! {
            () = channel.closed() => false,
            () = channel.abandoned() => false,
            () = tokio::time::sleep(self.backoff.pause()) => true,
        }
    }

    /// Records that the connection works.
    pub(super) fn over(&mut self) {
        self.restored = Some(Instant::now());
    }
}

/// Describes a lost connection as such, whatever was under way when it broke.
fn explain(error: Error) -> Error {
    match error.kind() {
        kind @ (ErrorKind::Unavailable | ErrorKind::Timeout) => {
            let message = "the connection is lost and is being restored";
            Error::new(kind, message).with_source(error)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::connection::fields::Fields;
    use super::*;

    /// The channel keeps what takes its place before the stream is dropped, and comes after that.
    #[tokio::test]
    async fn what_is_sent_while_the_stream_is_dropped_keeps_no_place() {
        let (window, (events, stream)) = (Arc::new(Window::new(4, 0)), mpsc::channel(1));
        let channel = EntryChannel::new(events, CancellationToken::new(), Arc::clone(&window), "orders");
        let events = channel.events().unwrap();
        let place = events.reserve().await.unwrap();
        drop(stream);
        let id = EntryId { milliseconds: 1, sequence: 0 };
        let entry = Entry { id, fields: Fields::Values(Vec::new()), deliveries: 1, failed: 0, trials: 0 };
        place.send(Event::Batch(Batch::new(Arc::clone(&window), None, vec![entry])));
        drop(events);
        channel.abandoned().await;
        assert!(!window.is_idle(), "nobody receives it, and it is not dropped");
        channel.give_up();
        assert!(window.is_idle() && channel.is_abandoned());
    }
}
