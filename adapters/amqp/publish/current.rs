//! The channel that messages go to, and the change from one channel to the next.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::connection::link::{closed, disconnected};
use super::channel::PublishChannel;
use crate::driver::{Confirmer, Outbound};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Topic};

/// A message for the next channel.
type Held = (Topic, Outbound, Confirmer<Receipt>);

/// The channel that messages go to.
#[derive(Debug)]
pub(crate) struct CurrentChannel {
    state: Mutex<State>,
    /// Maximum number of messages that are held.
    room: usize,
    /// Notified when a change of channels is over.
    changed: Notify,
}

#[derive(Debug)]
enum State {
    Open(Arc<PublishChannel>),
    /// The confirms of the old channel are awaited, so that no message overtakes another. Messages
    /// are held meanwhile.
    Changing(Arc<PublishChannel>, Vec<Held>),
    Down(ErrorKind),
}

impl CurrentChannel {
    pub(crate) fn new(channel: Arc<PublishChannel>, room: usize) -> Self {
        Self { state: Mutex::new(State::Open(channel)), room, changed: Notify::new() }
    }

    /// Returns the channel for messages whose order does not matter.
    ///
    /// # Errors
    /// There is none now.
    pub(crate) fn get(&self) -> Result<Arc<PublishChannel>> {
        match &*self.state.lock() {
            State::Open(channel) | State::Changing(channel, _) => Ok(Arc::clone(channel)),
            State::Down(kind) => Err(disconnected(*kind)),
        }
    }

    /// Publishes a message on the channel, or holds it for the next one.
    pub(crate) fn publish(
        &self,
        topic: &Topic,
        message: Outbound,
        confirmer: Confirmer<Receipt>,
        publish: impl FnOnce(Arc<PublishChannel>, &Topic, Outbound, Confirmer<Receipt>),
    ) {
        let mut state = self.state.lock();
        let error = match &mut *state {
            State::Open(channel) => {
                let channel = Arc::clone(channel);
                drop(state);
                return publish(channel, topic, message, confirmer);
            }
            State::Changing(_, held) if held.len() < self.room => {
                return held.push((topic.clone(), message, confirmer));
            }
            State::Changing(..) => Error::new(ErrorKind::Busy, "too many publishes wait for a channel"),
            State::Down(kind) => disconnected(*kind),
        };
        drop(state);
        confirmer.confirm(Err(error));
    }

    /// Begins to hold messages.
    pub(crate) fn hold(&self) {
        let mut state = self.state.lock();
        if let State::Open(channel) = &*state {
            *state = State::Changing(Arc::clone(channel), Vec::new());
        }
    }

    /// Publishes what was held on this channel, in order, and all further messages.
    pub(crate) fn release(
        &self,
        channel: &Arc<PublishChannel>,
        publish: impl Fn(Arc<PublishChannel>, &Topic, Outbound, Confirmer<Receipt>),
    ) {
        // Under the lock, or messages published now would overtake the last of these.
        let mut state = self.state.lock();
        if let State::Changing(_, held) = &mut *state {
            for (topic, message, confirmer) in std::mem::take(held) {
                publish(Arc::clone(channel), &topic, message, confirmer);
            }
            *state = State::Open(Arc::clone(channel));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Takes another channel, or none, unless the publisher was closed. Returns `false` if it was.
    pub(crate) fn set(&self, channel: Result<Arc<PublishChannel>, ErrorKind>) -> bool {
        let mut state = self.state.lock();
        let is_open = !matches!(*state, State::Down(ErrorKind::Closed));
        if is_open {
            *state = match channel {
                Ok(channel) => State::Open(channel),
                Err(kind) => State::Down(kind),
            };
        }
        is_open
    }

    /// Waits until no messages are held.
    pub(crate) async fn unheld(&self) {
        loop {
            let changed = self.changed.notified();
            if !matches!(*self.state.lock(), State::Changing(..)) {
                return;
            }
            changed.await;
        }
    }

    /// Gives the channel up for good. Messages that are held are not sent.
    pub(crate) fn close(&self) {
        let last = std::mem::replace(&mut *self.state.lock(), State::Down(ErrorKind::Closed));
        if let State::Changing(_, held) = last {
            held.into_iter().for_each(|(_, _, confirmer)| confirmer.confirm(Err(closed())));
        }
    }
}
