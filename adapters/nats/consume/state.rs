//! The state of a session: arrived messages, unsettled deliveries, and the waiting task.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::driver::Tenure;
use crate::error::{Error, ErrorKind};

use super::super::headers::reply_subject::Tokens;
use super::attempts::{Attempts, Past};
use super::unreadable::Quarantined;
use super::window::{Unsettled, Window};

/// The state of a session's subscription at the server.
pub(crate) struct State {
    /// `None` if no more messages are to be read.
    pub(crate) subscriber: Option<Subscriber>,
    /// Messages that were read and not delivered yet; they are already in the window.
    pub(crate) ready: VecDeque<Arrived>,
    pub(crate) window: Window,
    /// The task that waits for the next message.
    pub(crate) waker: Option<Waker>,
    pub(crate) heard: Instant,
    pub(crate) lost: Option<Lost>,
    /// The highest sequence in the stream from which a message came.
    pub(crate) seen: Option<u64>,
    /// The number of messages read, including the server's notices and messages from this client
    /// itself.
    pub(crate) read: u64,
    /// `true` if no more messages are delivered or requested.
    pub(crate) leaving: bool,
    pub(crate) attempts: Arc<Attempts>,
    /// Messages whose attempts only the server knows, until it is asked.
    pub(crate) uncounted: Vec<(usize, Tokens)>,
}

/// A message with its slot in the window.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) body: Body,
    pub(crate) slot: usize,
    pub(crate) tenure: Tenure,
    /// The attempt and the lost trials; `None` until they are known.
    pub(crate) past: Option<Past>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large one, and boxing it would allocate for each")]
pub(crate) enum Body {
    Delivered(Message, Tokens),
    Quarantined(Arc<Quarantined>),
}

/// The reason why a session is over.
#[derive(Debug)]
pub(crate) enum Lost {
    /// Its connection is gone or silent, and is being restored.
    Connection,
    /// Its client is gone for good.
    Client,
    /// The position of its group was moved.
    Moved,
    /// The server ended it, with this reason.
    Ended(Error),
}

impl State {
    pub(crate) fn new(
        subscriber: Subscriber,
        ready: VecDeque<Arrived>,
        window: Window,
        attempts: Arc<Attempts>,
    ) -> Self {
        Self {
            subscriber: Some(subscriber),
            ready,
            window,
            waker: None,
            heard: Instant::now(),
            lost: None,
            seen: None,
            read: 0,
            leaving: false,
            attempts,
            uncounted: Vec::new(),
        }
    }

    /// Polls for the next message, or the end of the session.
    pub(crate) fn next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arrived, Lost>> {
        if self.leaving {
            return Poll::Pending;
        }
        loop {
            // Messages keep their order: one whose attempts are looked up holds up those behind it.
            let next = self.ready.front().map(|arrived| arrived.past.is_some());
            if next == Some(true)
                && let Some(arrived) = self.ready.pop_front()
            {
                if arrived.tenure.is_over() {
                    // The server redelivers it.
                    drop(self.window.close(arrived.slot));
                    continue;
                }
                return Poll::Ready(Ok(arrived));
            }
            if next.is_none()
                && let Some(lost) = self.lost.take()
            {
                return Poll::Ready(Err(lost));
            }
            let Some(subscriber) = &mut self.subscriber else {
                // Closed: no more messages come.
                return Poll::Pending;
            };
            match subscriber.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => self.take_in(message),
                Poll::Ready(None) => {
                    self.lost = Some(Lost::Client);
                    self.subscriber = None;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    pub(crate) fn take_in(&mut self, mut message: Message) {
        self.heard = Instant::now();
        self.read += 1;
        // A delivery is recognized by its acknowledgement subject, not by a status: any producer
        // can write a status into a message.
        match message.reply.as_deref().and_then(Tokens::read).zip(message.reply.take()) {
            Some((tokens, reply)) => {
                self.seen = self.seen.max(Some(tokens.stream_sequence));
                if tokens.delivered > 1 {
                    self.attempts.sent_back.lock().came(tokens.stream_sequence);
                }
                self.window.arrived();
                let tenure = self.window.tenure();
                let slot = self.window.open(reply, None);
                let past = self.attempts.known(&tokens);
                if past.is_none() {
                    self.uncounted.push((slot, tokens));
                }
                self.ready.push_back(Arrived { body: Body::Delivered(message, tokens), slot, tenure, past });
            }
            None => self.take_notice(&message),
        }
    }

    /// Handles a notice of the server about a request.
    fn take_notice(&mut self, message: &Message) {
        let pending = message.headers.as_ref().and_then(|headers| headers.get("Nats-Pending-Messages"));
        let pending = pending.and_then(|value| value.as_str().parse().ok());
        match (message.status, pending) {
            // A message without a status is one from this client itself.
            (Some(StatusCode::IDLE_HEARTBEAT) | None, _) => {}
            (Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND), pending) => {
                self.window.expired(pending.unwrap_or(usize::MAX));
            }
            (Some(status), _) => {
                let description = message.description.as_deref().unwrap_or("no description");
                let error = Error::new(ErrorKind::Unavailable, "the server ended the subscription; it is opened again")
                    .with_context("status", status)
                    .with_context("description", description);
                self.lost = Some(Lost::Ended(error));
            }
        }
    }

    /// Reads everything that has arrived, so that the window counts it. A task that waits for the
    /// next message goes on waiting, and is woken if there is one.
    pub(crate) fn read_ahead(&mut self) {
        let waker = self.waker.clone();
        let mut reading = Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()));
        let read = self.read;
        while let Some(Poll::Ready(Some(message))) =
            self.subscriber.as_mut().map(|subscriber| subscriber.poll_next_unpin(&mut reading))
        {
            self.take_in(message);
        }
        if self.read > read {
            self.wake();
        }
    }

    /// Wakes the task that waits for the next message.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Sets the past of a message that waits for it.
    pub(crate) fn count(&mut self, slot: usize, past: Past) {
        let waiting = |arrived: &&mut Arrived| arrived.slot == slot && arrived.past.is_none();
        if let Some(arrived) = self.ready.iter_mut().find(waiting) {
            arrived.past = Some(past);
            self.wake();
        }
    }

    /// Ends the subscription, and takes messages that were not delivered out of the window.
    pub(crate) fn take_unseen(&mut self) -> Vec<Unsettled> {
        self.read_ahead();
        self.subscriber = None;
        let ready = std::mem::take(&mut self.ready);
        ready.into_iter().filter_map(|arrived| self.window.close(arrived.slot)).collect()
    }

    /// Ends the subscription, and takes everything out of the window, delivered or not.
    pub(crate) fn take_all(&mut self) -> Vec<Unsettled> {
        let mut unsettled = self.take_unseen();
        self.window.expired(usize::MAX);
        unsettled.extend(self.window.close_all());
        unsettled
    }

    pub(crate) fn take_request(&mut self) -> Option<usize> {
        if self.subscriber.is_none() || self.leaving {
            return None;
        }
        self.window.take_request(self.waker.is_some())
    }
}
