//! The stream of messages of a subscription.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec;

use futures_core::Stream;
use tokio::sync::mpsc;

use crate::driver::{Inbound, Tenure};
use crate::error::{Error, Result};

use super::super::connection::entry::Entry;
use super::super::headers;
use super::delivery::{Held, Membership, Owned};
use super::holdings::{Claim, HandOut, Place};
use super::window::Window;

/// An event from the task that reads.
pub(super) enum Event {
    Batch(Batch),
    Trouble(Error),
}

/// Entries that were read together, with their places in the window.
pub(super) struct Batch {
    window: Arc<Window>,
    /// The member that holds the entries, and the epoch of this reading; `None` if they need no
    /// acknowledgement.
    member: Option<(Arc<Membership>, u64)>,
    entries: vec::IntoIter<Entry>,
}

impl Batch {
    pub(super) fn new(window: Arc<Window>, member: Option<Arc<Membership>>, entries: Vec<Entry>) -> Self {
        window.take(entries.len());
        let member = member.map(|member| {
            let epoch = member.holdings.enter(&entries);
            (member, epoch)
        });
        Self { window, member, entries: entries.into_iter() }
    }

    /// Returns the next message, without those that were given back or lost while they waited.
    fn next(&mut self) -> Option<Inbound> {
        loop {
            let entry = self.entries.next()?;
            self.window.hand_out(1);
            let place = Place::taken(&self.window);
            let Some((membership, epoch)) = &self.member else {
                return Some(inbound(&entry, Tenure::new(), None, Held::Free { id: entry.id, place }));
            };
            let claim = Claim { id: entry.id, epoch: *epoch };
            if let Some(HandOut { tenure, failed, deliveries, lost_trials }) = membership.holdings.hand_out(claim) {
                let owned = Owned::new(Arc::clone(membership), claim, tenure.clone(), place);
                let inbound = inbound(&entry, tenure, Some(deliveries), Held::Owned(owned));
                return Some(Inbound { attempt: failed.saturating_add(1), lost_trials, ..inbound });
            }
        }
    }
}

fn inbound(entry: &Entry, tenure: Tenure, deliveries: Option<u32>, handle: Held) -> Inbound {
    let fields = headers::read(&entry.fields);
    Inbound {
        payload: Some(fields.payload.unwrap_or_default()),
        key: fields.key,
        id: Some(fields.id.unwrap_or_else(|| entry.id.to_text())),
        headers: fields.headers,
        unreadable_headers: fields.unreadable,
        attempt: 1,
        deliveries,
        lost_trials: None,
        timestamp: entry.id.timestamp(),
        partition: None,
        offset: None,
        native: None,
        tenure,
        handle: Box::new(handle),
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let left = self.entries.len();
        if left > 0 {
            self.window.hand_out(left);
            self.window.release(left);
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
