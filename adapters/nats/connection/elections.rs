//! Publishes that no server takes at present, because the leader of their stream is being elected.
//!
//! They wait, with all that follow on their topic, so that none overtakes another. Then the first
//! is tried alone, and the others follow it in their order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::driver::{Confirmer, Outbound};
use crate::error::{Error, ErrorKind, PublishOutcome, Result};
use crate::message::{Receipt, Topic};

use super::super::headers::Schedule;

/// Maximum number of publishes of a topic that wait.
const ROOM: usize = 65_536;

/// A message to publish to a stream.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) topic: Topic,
    pub(crate) message: Outbound,
    /// `true` if the stream takes other topics too.
    pub(crate) is_shared: bool,
    /// The schedule of a delayed message.
    pub(crate) schedule: Option<Schedule>,
    pub(crate) confirmer: Confirmer<Receipt>,
}

impl Publish {
    fn answer(self, answer: Result<Receipt>) {
        // The sequence of a delayed message while it is kept is not its final one.
        let is_delayed = self.schedule.is_some();
        self.confirmer.confirm(answer.map(|mut receipt| {
            receipt.offset = receipt.offset.filter(|_| !is_delayed);
            receipt
        }));
    }
}

type Begin = Box<dyn Fn(&Topic) + Send + Sync>;

/// The topics whose streams have no leader.
pub(crate) struct Elections {
    /// Maximum time for which a message waits.
    wait: Duration,
    /// The number of lanes, to be read without the lock.
    open: AtomicUsize,
    lanes: Mutex<HashMap<Topic, Lane>>,
    /// Called with a topic that begins to wait.
    begin: OnceLock<Begin>,
}

/// The messages of one topic that wait.
#[derive(Debug, Default)]
struct Lane {
    /// Those that were refused, by the number of their request.
    refused: BTreeMap<u64, Waiting>,
    /// Those that were not sent yet.
    held: VecDeque<Waiting>,
    /// The highest number of a request whose message was stored. Those before it cannot be sent
    /// again without being overtaken.
    stored: u64,
}

#[derive(Debug)]
struct Waiting {
    publish: Box<Publish>,
    until: Instant,
}

impl Elections {
    pub(crate) fn new(wait: Duration) -> Self {
        Self { wait, open: AtomicUsize::new(0), lanes: Mutex::default(), begin: OnceLock::new() }
    }

    /// Sets the function that is called with a topic which begins to wait. It has to see to its
    /// end.
    pub(crate) fn on_begin(&self, begin: impl Fn(&Topic) + Send + Sync + 'static) {
        let _ = self.begin.set(Box::new(begin));
    }

    /// Keeps a message whose topic waits. Returns it if it can be sent now.
    pub(crate) fn hold(&self, publish: Publish) -> Option<Publish> {
        if self.open.load(Ordering::Acquire) == 0 {
            return Some(publish);
        }
        let mut lanes = self.lanes.lock();
        let Some(lane) = lanes.get_mut(&publish.topic) else { return Some(publish) };
        if lane.held.len() >= ROOM {
            drop(lanes);
            let error = Error::new(ErrorKind::Busy, "too many publishes wait for the leader of the stream");
            publish.answer(Err(error.with_context("limit", ROOM)));
            return None;
        }
        lane.held.push_back(self.waiting(Box::new(publish)));
        None
    }

    /// Takes the answer to a request. A message that was refused for want of a leader waits.
    pub(crate) fn answer(&self, number: u64, publish: Box<Publish>, answer: Result<Receipt>) {
        let is_open = self.open.load(Ordering::Acquire) > 0;
        match answer {
            Err(error) if is_passing(&error) && !self.wait.is_zero() => self.refuse(number, publish),
            Ok(_) if is_open => {
                if let Some(lane) = self.lanes.lock().get_mut(&publish.topic) {
                    lane.stored = lane.stored.max(number);
                }
                publish.answer(answer);
            }
            Err(error) if is_passing(&error) => publish.confirmer.give_back(publish.message, error),
            answer => publish.answer(answer),
        }
    }

    fn refuse(&self, number: u64, publish: Box<Publish>) {
        let topic = publish.topic.clone();
        let is_new = {
            let mut lanes = self.lanes.lock();
            let is_new = !lanes.contains_key(&topic);
            lanes.entry(topic.clone()).or_default().refused.insert(number, self.waiting(publish));
            self.open.store(lanes.len(), Ordering::Release);
            is_new
        };
        if is_new && let Some(begin) = self.begin.get() {
            begin(&topic);
        }
    }

    fn waiting(&self, publish: Box<Publish>) -> Waiting {
        Waiting { publish, until: Instant::now() + self.wait }
    }

    /// Takes the first message that waits, to try it alone. Fails those that have waited too long
    /// or were overtaken. `None` ends the wait: there are no more messages.
    pub(crate) fn first(&self, topic: &Topic) -> Option<Publish> {
        let mut failed = Vec::new();
        let first = self.change(topic, |lane| {
            failed = lane.sort();
            let now = Instant::now();
            while lane.held.front().is_some_and(|waiting| waiting.until <= now) {
                failed.extend(lane.held.pop_front());
            }
            let first = lane.held.pop_front();
            (first.is_none(), first)
        });
        failed.into_iter().for_each(|waiting| waiting.publish.answer(Err(no_leader())));
        first.flatten().map(|waiting| *waiting.publish)
    }

    /// Returns `true` if the message that was tried last was refused again.
    pub(crate) fn was_refused(&self, topic: &Topic) -> bool {
        self.lanes.lock().get(topic).is_some_and(|lane| !lane.refused.is_empty())
    }

    /// Ends the wait of a topic, and passes its messages to `publish` in their order. Others that
    /// are published meanwhile come after them.
    pub(crate) fn end(&self, topic: &Topic, mut publish: impl FnMut(Publish)) {
        loop {
            let mut overtaken = Vec::new();
            let next = self.change(topic, |lane| {
                overtaken = lane.sort();
                let next = lane.held.pop_front();
                (next.is_none(), next)
            });
            // Not under the lock: an answer frees a place, which publishes the next message.
            overtaken.into_iter().for_each(|waiting| waiting.publish.answer(Err(no_leader())));
            let Some(waiting) = next.flatten() else { return };
            publish(*waiting.publish);
        }
    }

    /// Changes the lane of a topic, and removes it if told so.
    fn change<T>(&self, topic: &Topic, change: impl FnOnce(&mut Lane) -> (bool, T)) -> Option<T> {
        let mut lanes = self.lanes.lock();
        let (is_over, result) = change(lanes.get_mut(topic)?);
        if is_over {
            lanes.remove(topic);
            self.open.store(lanes.len(), Ordering::Release);
        }
        Some(result)
    }
}

impl Lane {
    /// Puts those that were refused before the others, and returns those that were overtaken.
    fn sort(&mut self) -> Vec<Waiting> {
        let later = self.refused.split_off(&self.stored);
        for waiting in later.into_values().rev() {
            self.held.push_front(waiting);
        }
        std::mem::take(&mut self.refused).into_values().collect()
    }
}

/// Returns `true` if a message was refused, and will not be once there is a leader.
fn is_passing(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable && error.publish_outcome() == PublishOutcome::NotSent
}

/// Returns the error for a publish that no stream takes.
pub(crate) fn no_leader() -> Error {
    let message = "no stream takes this topic: it was deleted, or its cluster is electing a leader";
    Error::new(ErrorKind::Unavailable, message)
}

impl fmt::Debug for Elections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elections").field("open", &self.open).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Confirmation;

    const WAIT: Duration = Duration::from_secs(10);

    fn publish(payload: &'static str) -> (Publish, Confirmation<Receipt>) {
        let (confirmer, confirmation) = Confirmation::pending();
        let (topic, message) = (Topic::new("orders").unwrap(), Outbound::new(payload));
        (Publish { topic, message, is_shared: false, schedule: None, confirmer }, confirmation)
    }

    fn payload(publish: &Publish) -> String {
        String::from_utf8(publish.message.payload.clone().unwrap().to_vec()).unwrap()
    }

    fn refuse(elections: &Elections, number: u64, payload: &'static str) -> Confirmation<Receipt> {
        let (publish, confirmation) = publish(payload);
        elections.answer(number, Box::new(publish), Err(no_leader()));
        confirmation
    }

    #[tokio::test]
    async fn those_that_wait_are_sent_in_their_order() {
        let (elections, topic) = (Elections::new(WAIT), Topic::new("orders").unwrap());
        assert!(elections.hold(publish("before").0).is_some());
        let _two = refuse(&elections, 2, "two");
        let _one = refuse(&elections, 1, "one");
        let (three, _three) = publish("three");
        assert!(elections.hold(three).is_none());
        let first = elections.first(&topic).unwrap();
        assert_eq!(payload(&first), "one");
        // It is refused again.
        elections.answer(9, Box::new(first), Err(no_leader()));
        assert!(elections.was_refused(&topic));
        let first = elections.first(&topic).unwrap();
        assert_eq!((payload(&first).as_str(), elections.was_refused(&topic)), ("one", false));
        elections.answer(10, Box::new(first), Ok(Receipt::confirmed()));
        let mut sent = Vec::new();
        elections.end(&topic, |publish| sent.push(payload(&publish)));
        assert_eq!(sent, ["two", "three"]);
        assert!(elections.hold(publish("after").0).is_some());
    }

    /// An answer frees a place, which publishes the next message before the answer returns.
    #[tokio::test]
    async fn those_that_are_published_at_the_end_of_the_wait_come_last() {
        let (elections, topic) = (Elections::new(WAIT), Topic::new("orders").unwrap());
        let _waiting = [refuse(&elections, 1, "one"), refuse(&elections, 2, "two")];
        let (mut sent, mut next) = (Vec::new(), Some(publish("three").0));
        elections.end(&topic, |publish| {
            assert!(next.take().and_then(|next| elections.hold(next)).is_none());
            sent.push(payload(&publish));
        });
        assert_eq!(sent, ["one", "two", "three"]);
    }

    #[tokio::test]
    async fn one_that_was_overtaken_is_not_sent() {
        let (elections, topic) = (Elections::new(WAIT), Topic::new("orders").unwrap());
        let (one, three) = (refuse(&elections, 1, "one"), refuse(&elections, 3, "three"));
        let (two, stored) = publish("two");
        elections.answer(2, Box::new(two), Ok(Receipt::confirmed()));
        assert!(stored.await.is_ok());
        assert_eq!(payload(&elections.first(&topic).unwrap()), "three");
        assert_eq!(one.await.unwrap_err().publish_outcome(), PublishOutcome::NotSent);
        assert_eq!(three.await.unwrap_err().publish_outcome(), PublishOutcome::Unknown, "it was dropped");
    }

    #[tokio::test(start_paused = true)]
    async fn no_message_waits_longer_than_told() {
        let (elections, topic) = (Elections::new(WAIT), Topic::new("orders").unwrap());
        let one = refuse(&elections, 1, "one");
        tokio::time::advance(WAIT / 2).await;
        let (two, _two) = publish("two");
        assert!(elections.hold(two).is_none());
        tokio::time::advance(WAIT / 2).await;
        assert_eq!(payload(&elections.first(&topic).unwrap()), "two");
        assert_eq!(one.await.unwrap_err().publish_outcome(), PublishOutcome::NotSent);
        assert!(elections.first(&topic).is_none() && elections.hold(publish("after").0).is_some());
    }

    #[tokio::test]
    async fn none_waits_if_told_so() {
        let elections = Elections::new(Duration::ZERO);
        assert_eq!(refuse(&elections, 1, "one").await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(elections.hold(publish("after").0).is_some());
    }
}
