//! The state of a session: arrived messages, unsettled deliveries, and the waiting task.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::driver::Tenure;
use crate::error::{Error, ErrorKind};

use super::super::headers::reply_subject::{self, Tokens};
use super::attempts::{Attempts, Past};
use super::called_back::CalledBack;
use super::consumer::Consumer;
use super::line::Line;
use super::unanswered::Unanswered;
use super::unreadable::Quarantined;
use super::window::{Unsettled, Window};

/// Time after which a member that took messages of its group, and takes none any more, counts as
/// gone.
const FORGETS: Duration = Duration::from_secs(60);

/// The state of a session's subscription at the server.
pub(crate) struct State {
    pub(crate) line: Line,
    /// The time at which the line began.
    pub(crate) since: Instant,
    /// `true` if the line has brought a message.
    pub(crate) has_delivered: bool,
    /// `None` if no more messages are to be read.
    pub(crate) subscriber: Option<Subscriber>,
    /// Messages that were read and not delivered yet; they are already in the window.
    pub(crate) ready: VecDeque<Arrived>,
    /// Those that were read before others which were sent back.
    pub(crate) called_back: CalledBack<Arrived>,
    pub(crate) window: Window,
    pub(crate) unanswered: Unanswered,
    /// The task that waits for the next message.
    pub(crate) waker: Option<Waker>,
    pub(crate) heard: Instant,
    pub(crate) lost: Option<Lost>,
    /// The highest sequence in the stream from which a message came.
    pub(crate) seen: Option<u64>,
    /// The number that the consumer's next delivery has if it comes here, and the time at which one
    /// was found to have gone elsewhere.
    next: u64,
    elsewhere: Option<Instant>,
    /// `true` if others had messages of the group, or waited for some, when the session began.
    pub(crate) has_company: bool,
    /// The sequence up to which the whole group has settled everything, as last heard.
    pub(crate) floor: u64,
    /// `true` if the server knows that no more messages are read over the line.
    pub(crate) has_hung_up: bool,
    /// `true` if the client has ended.
    pub(crate) has_ended: bool,
    /// `true` if the connection was lost for a reason that was looked for and not found.
    pub(crate) puzzled: bool,
    /// The number of messages read, including the server's notices and messages from this client
    /// itself.
    pub(crate) read: u64,
    /// `true` if no more messages are delivered or requested.
    pub(crate) leaving: bool,
    pub(crate) attempts: Arc<Attempts>,
    /// Messages whose attempts only the server knows, until it is asked.
    pub(crate) uncounted: Vec<(usize, Tokens)>,
    /// Maximum size of the messages of a request.
    most_bytes: usize,
    /// `true` if the next message alone is larger than that.
    is_large: bool,
}

/// A request for messages.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) messages: usize,
    /// Maximum size of all messages together; `None` for one message of any size.
    pub(crate) bytes: Option<usize>,
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

/// The reason why a line of a session is over.
#[derive(Debug)]
pub(crate) enum Lost {
    /// A connection is gone or silent, or the consumer has moved to another server. It goes on.
    Connection,
    /// Its client is gone for good.
    Client,
    /// The position of its group was moved.
    Moved,
    /// Its consumer was deleted.
    Deleted,
    /// The server ended it, with this reason.
    Ended(Error),
}

impl State {
    pub(crate) fn new(
        line: Line,
        subscriber: Subscriber,
        deliveries: u64,
        window: Window,
        most_bytes: usize,
        attempts: Arc<Attempts>,
    ) -> Self {
        Self {
            line,
            since: Instant::now(),
            has_delivered: false,
            subscriber: Some(subscriber),
            ready: VecDeque::new(),
            called_back: CalledBack::default(),
            window,
            unanswered: Unanswered::default(),
            has_hung_up: false,
            waker: None,
            heard: Instant::now(),
            lost: None,
            seen: None,
            next: deliveries.saturating_add(1),
            elsewhere: None,
            has_company: false,
            floor: 0,
            has_ended: false,
            puzzled: false,
            read: 0,
            leaving: false,
            attempts,
            uncounted: Vec::new(),
            most_bytes,
            is_large: false,
        }
    }

    /// Returns the number of deliveries, of so many, that did not come here, if it can be told that
    /// all of them were for this member. Members that share a group do not know each other, but the
    /// deliveries of the others leave gaps.
    pub(crate) fn on_the_way(&self, deliveries: u64) -> Option<u64> {
        let missing = deliveries.saturating_add(1).saturating_sub(self.next);
        (self.is_alone() && missing <= self.window.requested() as u64).then_some(missing)
    }

    /// Returns `true` if no other member has taken messages of the group for a while.
    pub(crate) fn is_alone(&self) -> bool {
        self.elsewhere.is_none_or(|then| then.elapsed() > FORGETS)
    }

    /// Returns the first sequence in the stream that is not settled, of the messages that came here
    /// and of `sent_back`; of the whole group, if others have taken messages of it.
    pub(crate) fn first_unsettled(&self, sent_back: Option<u64>) -> Option<u64> {
        let unsettled = self.window.out().map(|out| out.sequence).chain(self.called_back.first()).min();
        let others = (self.has_company || self.elsewhere.is_some()).then_some(self.floor.saturating_add(1));
        let first = unsettled.into_iter().chain(sent_back).chain(others).min();
        first.or(self.seen.map(|seen| seen.saturating_add(1)))
    }

    /// Goes on over another line, after so many deliveries.
    pub(crate) fn resume(&mut self, line: Line, subscriber: Subscriber, deliveries: u64) {
        self.line = line;
        (self.since, self.heard) = (Instant::now(), Instant::now());
        (self.has_delivered, self.has_ended, self.has_hung_up) = (false, false, false);
        self.lost = None;
        self.subscriber = (!self.leaving).then_some(subscriber);
        self.window.expired(usize::MAX);
        self.next = deliveries.saturating_add(1);
        self.read = 0;
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
                    self.has_ended = true;
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
                if tokens.consumer_sequence != self.next {
                    if self.is_alone() && !self.line.reads() {
                        // It came over the connection that follows, and those before it did not.
                        // The next line has them all called back, in their order.
                        return;
                    }
                    self.elsewhere = Some(self.heard);
                    self.wait_no_longer();
                }
                self.has_delivered = true;
                self.next = tokens.consumer_sequence.saturating_add(1);
                self.window.arrived();
                // The server hands messages out in their order. Any other comes again, perhaps
                // though it is in hand here: a server that starts anew may have forgotten.
                let is_new = self.seen.is_none_or(|seen| tokens.stream_sequence > seen);
                if !is_new && self.window.came_again(tokens.stream_sequence, &reply) {
                    return;
                }
                self.seen = self.seen.max(Some(tokens.stream_sequence));
                if tokens.delivered > 1 {
                    self.attempts.sent_back.lock().came(tokens.stream_sequence);
                }
                let tenure = self.window.tenure();
                let slot = self.window.open(reply, tokens.stream_sequence, None);
                let past = self.attempts.known(&tokens);
                if past.is_none() {
                    self.uncounted.push((slot, tokens));
                }
                let arrived = Arrived { body: Body::Delivered(message, tokens), slot, tenure, past };
                match self.called_back.is_waiting() {
                    true => self.ready.extend(self.called_back.came(tokens.stream_sequence, arrived)),
                    false => self.ready.push_back(arrived),
                }
            }
            None => self.take_notice(&message),
        }
    }

    /// Handles a notice of the server about a request.
    fn take_notice(&mut self, message: &Message) {
        let pending = |name| message.headers.as_ref()?.get(name)?.as_str().parse().ok();
        let (pending, bytes) = (pending("Nats-Pending-Messages"), pending("Nats-Pending-Bytes"));
        match (message.status, pending) {
            // A message without a status is one from this client itself.
            (None, _) => {}
            // The server has nothing to hand out, or to hand out again. The end of a request does
            // not show that: a busy server may have come to it too late.
            (Some(StatusCode::IDLE_HEARTBEAT), _) => self.wait_no_longer(),
            (Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND), pending) => {
                self.window.expired(pending.unwrap_or(usize::MAX));
            }
            (Some(_), pending) if message.description.as_deref() == Some("Message Size Exceeds MaxBytes") => {
                self.is_large = bytes == Some(self.most_bytes);
                self.window.expired(pending.unwrap_or(usize::MAX));
            }
            (Some(_), pending) if message.description.as_deref() == Some("Batch Completed") => {
                self.window.expired(pending.unwrap_or(usize::MAX));
            }
            (Some(StatusCode::NO_RESPONDERS), _) => self.lose(Lost::Connection),
            (Some(status), _) => {
                let description = message.description.as_deref().unwrap_or("no description");
                self.lose(match description {
                    // The request has ended, and the deliveries have not.
                    "Leadership Change" | "Server Shutdown" => Lost::Connection,
                    "Consumer Deleted" => Lost::Deleted,
                    _ => {
                        let message = "the server ended the subscription; it is opened again";
                        let error = Error::new(ErrorKind::Unavailable, message).with_context("status", status);
                        Lost::Ended(error.with_context("description", description))
                    }
                });
            }
        }
    }

    /// Delivers what waits for messages that were sent back.
    pub(crate) fn wait_no_longer(&mut self) {
        self.ready.extend(self.called_back.end());
    }

    /// Does so after this time.
    pub(crate) fn wait_no_longer_than(&mut self, longest: Duration) {
        let late = self.called_back.end_after(longest);
        if !late.is_empty() {
            self.ready.extend(late);
            self.wake();
        }
    }

    /// Notes that the line is over, for this reason if it is the first.
    pub(crate) fn lose(&mut self, lost: Lost) {
        self.lost.get_or_insert(lost);
        self.wake();
    }

    /// Enters messages that the client could not read. From now on others are requested one by one.
    pub(crate) fn quarantine(&mut self, consumer: &Consumer, found: Vec<Quarantined>) {
        if found.is_empty() {
            return;
        }
        self.window.be_careful();
        self.has_delivered = true;
        for message in found {
            self.seen = self.seen.max(Some(message.sequence));
            let reply = reply_subject::acknowledge(&consumer.stream, &consumer.name, message.sequence);
            let (message, tenure, past) = (Arc::new(message), self.window.tenure(), Some(Past::here(1)));
            let slot = self.window.open(reply.into(), message.sequence, Some(Arc::clone(&message)));
            self.ready.push_back(Arrived { body: Body::Quarantined(message), slot, tenure, past });
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
        let mut arrived = self.ready.iter_mut().chain(self.called_back.kept_mut());
        let is_found = arrived.find(waiting).map(|arrived| arrived.past = Some(past)).is_some();
        drop(arrived);
        if is_found {
            self.wake();
        }
    }

    /// Ends the subscription, and takes messages that were not delivered out of the window.
    pub(crate) fn take_unseen(&mut self) -> Vec<Unsettled> {
        self.read_ahead();
        self.subscriber = None;
        self.wait_no_longer();
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

    pub(crate) fn take_request(&mut self) -> Option<Request> {
        if self.subscriber.is_none() || self.leaving {
            return None;
        }
        let messages = self.window.take_request(self.waker.is_some())?;
        if !std::mem::take(&mut self.is_large) {
            return Some(Request { messages, bytes: Some(self.most_bytes) });
        }
        self.window.expired(messages - 1);
        Some(Request { messages: 1, bytes: None })
    }
}
