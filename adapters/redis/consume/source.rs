//! The stream of messages of a subscription.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec;

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::driver::Inbound;
use crate::error::{Error, Result};

use super::super::connection::entry::Entry;
use super::super::headers;
use super::delivery::{Generation, Held};

/// An event from the task that reads.
pub(super) enum Event {
    Batch(Batch),
    Trouble(Error),
}

/// Entries that were read together, with their places in the window.
pub(super) struct Batch {
    generation: Arc<Generation>,
    received: Instant,
    entries: vec::IntoIter<Entry>,
}

impl Batch {
    pub(super) fn new(generation: Arc<Generation>, entries: Vec<Entry>) -> Self {
        generation.window().take(entries.len());
        Self { generation, received: Instant::now(), entries: entries.into_iter() }
    }

    /// Returns the next message. `None` at the end, and if it could no longer be settled: it is
    /// redelivered with the next generation.
    fn next(&mut self) -> Option<Inbound> {
        if self.generation.is_over() {
            return None;
        }
        let Entry { id, fields, attempt } = self.entries.next()?;
        self.generation.window().hand_out(1);
        let handle = Box::new(Held::new(Arc::clone(&self.generation), id, self.received));
        let fields = headers::read(&fields);
        Some(Inbound {
            payload: Some(fields.payload.unwrap_or_default()),
            key: fields.key,
            id: Some(fields.id.unwrap_or_else(|| id.to_text())),
            headers: fields.headers,
            unreadable_headers: fields.unreadable,
            attempt,
            deliveries: Some(attempt),
            timestamp: id.timestamp(),
            partition: None,
            offset: None,
            native: None,
            tenure: self.generation.tenure(),
            handle,
        })
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let left = self.entries.len();
        if left > 0 {
            self.generation.window().hand_out(left);
            self.generation.window().release(left);
        }
    }
}

/// The messages of a subscription, converted when the application asks for them.
pub(super) struct Deliveries {
    events: mpsc::Receiver<Event>,
    batch: Option<Batch>,
}

impl Deliveries {
    pub(super) fn new(events: mpsc::Receiver<Event>) -> Self {
        Self { events, batch: None }
    }
}

impl Stream for Deliveries {
    type Item = Result<Inbound>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Inbound>>> {
        loop {
            if let Some(inbound) = self.batch.as_mut().and_then(Batch::next) {
                return Poll::Ready(Some(Ok(inbound)));
            }
            self.batch = None;
            match ready!(self.events.poll_recv(cx)) {
                Some(Event::Batch(batch)) => self.batch = Some(batch),
                Some(Event::Trouble(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}
