//! Consuming: the stream of deliveries of a subscription, and the handles to settle them.

pub(crate) mod attempts;
pub(crate) mod called_back;
pub(crate) mod consumer;
pub(crate) mod core;
pub(crate) mod keeper;
pub(crate) mod leaving;
pub(crate) mod line;
pub(crate) mod place;
pub(crate) mod position;
pub(crate) mod reader;
pub(crate) mod resend;
pub(crate) mod resume;
pub(crate) mod sent_back;
pub(crate) mod session;
pub(crate) mod state;
pub(crate) mod trial;
pub(crate) mod unanswered;
pub(crate) mod unread;
pub(crate) mod unreadable;
pub(crate) mod window;

use crate::names::attribute;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::driver::{AttributeValue, Confirmation, DeliveryHandle, Disposition, Inbound, Timestamp};
use crate::error::Result;
use crate::message::TimestampSource;

use self::attempts::Past;
use self::reader::Reader;
use self::session::{HandedOut, Session};
use self::state::{Arrived, Body};
use self::trial::Trial;
use super::headers::reply_subject::Tokens;
use super::headers::{self, Contents};

/// The stream of deliveries. Polling it reads from the client's queue directly, without a task in
/// between.
pub(super) struct Deliveries {
    reader: Arc<Reader>,
    sessions: Arc<Sessions>,
    phase: Phase,
    current: Arc<Current>,
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
        let new = Arc::downgrade(session);
        sessions.retain(|session| session.strong_count() > 0 && !session.ptr_eq(&new));
        sessions.push(new);
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
        let current = Arc::new(Current::default());
        current.set(&session);
        let closed = Box::pin(closed.clone().cancelled_owned());
        Self { reader, sessions, phase: Phase::Open(session), current, closed }
    }

    /// Returns the action that stops the intake: it requests no more messages, and gives back those
    /// that were not delivered.
    pub(super) fn stopper(&self) -> impl FnOnce() + Send + 'static {
        let current = Arc::clone(&self.current);
        move || {
            if let Some(session) = current.0.lock().upgrade() {
                leave(session);
            }
        }
    }

    fn poll_session(&mut self, session: Arc<Session>, cx: &mut Context<'_>) -> Poll<Option<Result<Inbound>>> {
        let lost = match session.poll_next(cx) {
            Poll::Ready(Ok(arrived)) => return Poll::Ready(Some(Ok(inbound(session, arrived)))),
            Poll::Ready(Err(lost)) => lost,
            Poll::Pending => return Poll::Pending,
        };
        let error = self.reader.lose(session, lost);
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

/// The session that is open, for stopping it while its subscription is elsewhere.
#[derive(Debug, Default)]
struct Current(parking_lot::Mutex<std::sync::Weak<Session>>);

impl Current {
    fn set(&self, session: &Arc<Session>) {
        *self.0.lock() = Arc::downgrade(session);
    }
}

fn leave(session: Arc<Session>) {
    let leaving = Arc::clone(&session);
    session.link.background().detach(async move { leaving.leave().await });
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
                    this.current.set(&session);
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
        if let Some(session) = self.current.0.lock().upgrade() {
            leave(session);
        }
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").field("reader", &self.reader).finish_non_exhaustive()
    }
}

fn inbound(session: Arc<Session>, arrived: Arrived) -> Inbound {
    let Arrived { body, slot, tenure, past } = arrived;
    let Past { attempt, lost_trials } = past.unwrap_or(Past::here(1));
    let (payload, contents, tokens, deliveries) = match body {
        Body::Delivered(message, tokens) => {
            session.consumer.warn_if_last(&tokens);
            (message.payload, headers::read(message.headers.as_ref()), tokens, Some(tokens.delivered))
        }
        Body::Quarantined(message) => {
            let tokens = Tokens {
                delivered: message.attempt,
                stream_sequence: message.sequence,
                consumer_sequence: 0,
                published: message.published,
            };
            (message.payload.clone(), headers::read_raw(&message.headers), tokens, None)
        }
    };
    let delivery = HandedOut { slot, tokens, attempt };
    let Contents { headers, key, id, unreadable } = contents;
    Inbound {
        payload: Some(payload),
        key,
        id,
        headers,
        unreadable_headers: unreadable,
        attempt,
        deliveries,
        lost_trials,
        timestamp: tokens.published.map(|time| Timestamp { time, source: TimestampSource::Broker }),
        partition: None,
        offset: i64::try_from(tokens.stream_sequence).ok(),
        native: None,
        tenure,
        handle: Box::new(Settling { session, delivery, settled: false, trial: Mutex::new(None) }),
    }
}

/// The handle of one delivery of a session.
#[derive(Debug)]
struct Settling {
    session: Arc<Session>,
    delivery: HandedOut,
    settled: bool,
    /// The trial under way, of a suspect.
    trial: Mutex<Option<Trial>>,
}

impl DeliveryHandle for Settling {
    fn settle(mut self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        self.settled = true;
        let trial = self.trial.get_mut().take();
        self.session.settle(self.delivery, disposition, trial)
    }

    fn failed(&self, _: u32) {
        // Its drop withdraws the note. The attempts count when a retry is asked for.
        drop(self.trial.lock().take());
    }

    fn begin_trial(&self) -> Confirmation<()> {
        let mut trial = self.trial.lock();
        if trial.is_some() {
            return Confirmation::ready(Ok(()));
        }
        let Session { link, attempts, .. } = &*self.session;
        let (begun, confirmation) = Trial::begin(link, attempts, self.delivery.tokens.stream_sequence);
        *trial = Some(begun);
        confirmation
    }

    fn set_aside(&self) -> bool {
        self.session.set_aside(self.delivery.slot)
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        let number = |sequence| AttributeValue::Integer(i64::try_from(sequence).unwrap_or(i64::MAX));
        visit(attribute::NATS_STREAM_SEQUENCE, number(self.delivery.tokens.stream_sequence));
        if self.delivery.tokens.consumer_sequence > 0 {
            visit(attribute::NATS_CONSUMER_SEQUENCE, number(self.delivery.tokens.consumer_sequence));
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if !self.settled {
            // Otherwise its deadline would be extended for as long as the session lasts.
            let trial = self.trial.get_mut().take();
            drop(self.session.settle(self.delivery, Disposition::GiveBack, trial));
        }
    }
}
