//! What a session knows: what has come, what is out, who waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

use super::quarantine::Quarantined;
use super::tokens::Tokens;
use super::window::{Unsettled, Window};

/// What a session knows of its subscription at the server.
pub(super) struct State {
    /// `None` when nothing is to be read any more.
    pub(super) subscriber: Option<Subscriber>,
    /// What was read and not handed out yet; it is in the window already.
    pub(super) ready: VecDeque<Arrived>,
    pub(super) window: Window,
    /// Who waits for the next message.
    pub(super) waker: Option<Waker>,
    pub(super) heard: Instant,
    pub(super) lost: Option<Lost>,
    /// The last place in the stream from which a message came.
    pub(super) seen: Option<u64>,
    /// How many messages were read, the server's notices and our own to ourselves included.
    pub(super) read: u64,
    /// Nothing more is handed out or asked for.
    pub(super) leaving: bool,
}

/// A message with its place in the window.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large one, and boxing it would allocate for each")]
pub(super) enum Arrived {
    Delivered(Message, Tokens, usize),
    Quarantined(Arc<Quarantined>, usize),
}

/// The session is over.
#[derive(Debug)]
pub(super) enum Lost {
    /// Its connection is gone, or silent, and is being restored.
    Connection,
    /// Its client is gone for good.
    Client,
    /// The position of its group was moved.
    Moved,
    /// The server ended it, and said why.
    Ended(Error),
}

impl State {
    pub(super) fn new(subscriber: Subscriber, ready: VecDeque<Arrived>, window: Window) -> Self {
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
        }
    }

    /// The next message, or the end of the session.
    pub(super) fn next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arrived, Lost>> {
        if self.leaving {
            return Poll::Pending;
        }
        loop {
            if let Some(arrived) = self.ready.pop_front() {
                return Poll::Ready(Ok(arrived));
            }
            if let Some(lost) = self.lost.take() {
                return Poll::Ready(Err(lost));
            }
            let Some(subscriber) = &mut self.subscriber else {
                // Closed: there is nothing more to come.
                return Poll::Pending;
            };
            match subscriber.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => self.take_in(message),
                Poll::Ready(None) => self.lost = Some(Lost::Client),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    pub(super) fn take_in(&mut self, mut message: Message) {
        self.heard = Instant::now();
        self.read += 1;
        // By the subject to acknowledge on, not by the status: anyone can write a status into a message.
        match message.reply.as_deref().and_then(Tokens::read).zip(message.reply.take()) {
            Some((tokens, reply)) => {
                self.seen = self.seen.max(Some(tokens.stream_sequence));
                self.window.arrived();
                let slot = self.window.open(reply, None);
                self.ready.push_back(Arrived::Delivered(message, tokens, slot));
            }
            None => self.take_notice(&message),
        }
    }

    /// The server says something about a request.
    fn take_notice(&mut self, message: &Message) {
        let pending = message.headers.as_ref().and_then(|headers| headers.get("Nats-Pending-Messages"));
        let pending = pending.and_then(|value| value.as_str().parse().ok());
        match (message.status, pending) {
            // Without a status it is one of our own.
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

    /// Reads everything that has come, so that the window knows it. Only for when nobody is being waited for by the subscriber.
    pub(super) fn read_ahead(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        while let Some(Poll::Ready(Some(message))) =
            self.subscriber.as_mut().map(|subscriber| subscriber.poll_next_unpin(&mut nobody))
        {
            self.take_in(message);
        }
    }

    /// Ends the subscription and takes out of the window what was not handed out.
    pub(super) fn take_unseen(&mut self) -> Vec<Unsettled> {
        self.read_ahead();
        self.subscriber = None;
        let ready = std::mem::take(&mut self.ready);
        ready.into_iter().filter_map(|arrived| self.window.close(arrived.slot())).collect()
    }

    /// Ends the subscription and takes out everything, handed out or not.
    pub(super) fn take_all(&mut self) -> Vec<Unsettled> {
        let mut unsettled = self.take_unseen();
        self.window.expired(usize::MAX);
        unsettled.extend(self.window.close_all());
        unsettled
    }

    pub(super) fn take_request(&mut self) -> Option<usize> {
        if self.subscriber.is_none() || self.leaving {
            return None;
        }
        self.window.take_request(self.waker.is_some())
    }
}

impl Arrived {
    fn slot(&self) -> usize {
        match self {
            Self::Delivered(_, _, slot) | Self::Quarantined(_, slot) => *slot,
        }
    }
}
