//! Consuming: the stream of deliveries of a subscription, and the handles to settle them.

pub(crate) mod core;
pub(crate) mod position;
pub(crate) mod reader;
pub(crate) mod session;
pub(crate) mod state;
pub(crate) mod unreadable;
pub(crate) mod window;

use crate::names::attribute;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::driver::{AttributeValue, Confirmation, DeliveryHandle, Disposition, Inbound, Timestamp};
use crate::error::Result;
use crate::message::TimestampSource;

use self::reader::Reader;
use self::session::Session;
use self::state::{Arrived, Lost};
use super::headers::reply_subject::Tokens;
use super::headers::{self, Contents};

/// Maximum time until a subscription without messages notices that its connection is lost.
const LOOK: Duration = Duration::from_millis(200);

/// The stream of deliveries. Polling it reads from the client's queue directly, without a task in
/// between.
pub(super) struct Deliveries {
    reader: Arc<Reader>,
    sessions: Arc<Sessions>,
    phase: Phase,
    look: Interval,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
}

enum Phase {
    Open(Arc<Session>),
    Opening(BoxFuture<'static, Result<Arc<Session>>>),
    Ended,
}

/// The sessions of a connection that are still in use, for closing.
#[derive(Debug, Default)]
pub(super) struct Sessions(parking_lot::Mutex<Vec<std::sync::Weak<Session>>>);

impl Sessions {
    fn enter(&self, session: &Arc<Session>) {
        let mut sessions = self.0.lock();
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(session));
    }

    /// Returns the sessions of one consumer.
    pub(super) fn of(&self, stream: &str, consumer: &str) -> Vec<Arc<Session>> {
        let sessions = self.0.lock();
        let is_of = |session: &Arc<Session>| session.consumer.stream == stream && session.consumer.name == consumer;
        sessions.iter().filter_map(std::sync::Weak::upgrade).filter(is_of).collect()
    }

    pub(super) fn take_all(&self) -> Vec<Arc<Session>> {
        std::mem::take(&mut *self.0.lock()).iter().filter_map(std::sync::Weak::upgrade).collect()
    }
}

impl Deliveries {
    pub(super) fn new(
        reader: Arc<Reader>,
        session: Arc<Session>,
        sessions: Arc<Sessions>,
        closed: &CancellationToken,
    ) -> Self {
        sessions.enter(&session);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let closed = Box::pin(closed.clone().cancelled_owned());
        Self { reader, sessions, phase: Phase::Open(session), look, closed }
    }

    fn poll_session(&mut self, session: Arc<Session>, cx: &mut Context<'_>) -> Poll<Option<Result<Inbound>>> {
        let lost = match session.poll_next(cx) {
            Poll::Ready(Ok(arrived)) => return Poll::Ready(Some(Ok(inbound(session, arrived)))),
            Poll::Ready(Err(lost)) => lost,
            Poll::Pending if self.finds_it_lost(&session, cx) => Lost::Connection,
            Poll::Pending => return Poll::Pending,
        };
        let (ended, error) = match lost {
            Lost::Connection | Lost::Moved => (false, None),
            Lost::Client => (true, None),
            Lost::Ended(error) => (false, Some(error)),
        };
        self.reader.lose(session, ended);
        self.phase = Phase::Opening(Box::pin(Arc::clone(&self.reader).reopen()));
        match error {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl Deliveries {
    /// Returns `true` if the periodic check finds the session lost; the task is woken for the next
    /// check.
    fn finds_it_lost(&mut self, session: &Session, cx: &mut Context<'_>) -> bool {
        while self.look.poll_tick(cx).is_ready() {
            if session.is_lost() {
                return true;
            }
        }
        false
    }
}

impl Stream for Deliveries {
    type Item = Result<Inbound>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Phase::Opening(opening) = &mut this.phase {
            if this.closed.as_mut().poll(cx).is_ready() {
                this.phase = Phase::Ended;
                return Poll::Ready(None);
            }
            match ready!(opening.as_mut().poll(cx)) {
                Ok(session) => {
                    this.sessions.enter(&session);
                    this.phase = Phase::Open(session);
                }
                Err(error) => {
                    this.phase = Phase::Opening(Box::pin(Arc::clone(&this.reader).reopen()));
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let Phase::Open(session) = &this.phase else {
            return Poll::Ready(None);
        };
        let session = Arc::clone(session);
        let item = this.poll_session(session, cx);
        if item.is_pending() && this.closed.as_mut().poll(cx).is_ready() {
            this.phase = Phase::Ended;
            return Poll::Ready(None);
        }
        item
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        let Phase::Open(session) = &self.phase else {
            return;
        };
        let session = Arc::clone(session);
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { session.leave().await })),
            // Without a runtime the client cannot read or write any more; the server finds out by
            // itself.
            Err(_) => drop(session),
        }
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").field("reader", &self.reader).finish_non_exhaustive()
    }
}

fn inbound(session: Arc<Session>, arrived: Arrived) -> Inbound {
    let (payload, contents, tokens, slot) = match arrived {
        Arrived::Delivered(message, tokens, slot) => {
            (message.payload, headers::read(message.headers.as_ref()), tokens, slot)
        }
        Arrived::Quarantined(message, slot) => {
            let tokens = Tokens {
                delivered: message.attempt,
                stream_sequence: message.sequence,
                consumer_sequence: 0,
                published: message.published,
            };
            (message.payload.clone(), headers::read_raw(&message.headers), tokens, slot)
        }
    };
    let Contents { headers, key, id, unreadable } = contents;
    Inbound {
        payload: Some(payload),
        key,
        id,
        headers,
        unreadable_headers: unreadable,
        attempt: tokens.delivered,
        deliveries: Some(tokens.delivered),
        timestamp: tokens.published.map(|time| Timestamp { time, source: TimestampSource::Broker }),
        partition: None,
        offset: i64::try_from(tokens.stream_sequence).ok(),
        native: None,
        tenure: session.tenure.clone(),
        handle: Box::new(Settling { session, slot, tokens, settled: false }),
    }
}

/// The handle of one delivery of a session.
#[derive(Debug)]
struct Settling {
    session: Arc<Session>,
    slot: usize,
    tokens: Tokens,
    settled: bool,
}

impl DeliveryHandle for Settling {
    fn settle(mut self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        self.settled = true;
        self.session.settle(self.slot, disposition)
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        let number = |sequence| AttributeValue::Integer(i64::try_from(sequence).unwrap_or(i64::MAX));
        visit(attribute::NATS_STREAM_SEQUENCE, number(self.tokens.stream_sequence));
        if self.tokens.consumer_sequence > 0 {
            visit(attribute::NATS_CONSUMER_SEQUENCE, number(self.tokens.consumer_sequence));
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if !self.settled {
            // Otherwise its deadline would be extended for as long as the session lasts.
            drop(self.session.settle(self.slot, Disposition::GiveBack));
        }
    }
}
