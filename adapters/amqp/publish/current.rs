//! The channel that messages go to, and the change from one channel to the next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::config::Settings;
use super::super::connection::link::{closed, disconnected};
use super::channel::PublishChannel;
use super::stranded::Parcel;
use crate::error::{Error, ErrorKind, Result};

/// Maximum time that a message waits for a channel.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A message for the next channel.
struct Held {
    parcel: Parcel,
    until: Instant,
}

/// The channel that messages go to.
#[derive(Debug)]
pub(crate) struct CurrentChannel {
    state: Mutex<State>,
    /// Maximum number of messages that are held.
    room: usize,
    /// Maximum time for which a message is held.
    patience: Duration,
    /// Notified when a change of channels is over.
    changed: Notify,
}

enum State {
    Open(Arc<PublishChannel>),
    /// The confirms of the old channel are awaited, so that no message overtakes another. Messages
    /// are held meanwhile.
    Changing(Arc<PublishChannel>, VecDeque<Held>),
    /// There is no channel. Messages are held until there is one.
    Down(VecDeque<Held>),
    Closed,
}

impl CurrentChannel {
    pub(crate) fn new(channel: Arc<PublishChannel>, settings: &Settings) -> Self {
        Self {
            state: Mutex::new(State::Open(channel)),
            room: settings.max_in_flight,
            // Less than the limit of a publish, which is of unknown outcome once that is over.
            patience: LONGEST_WAIT.min(settings.delivery_timeout / 10 * 9),
            changed: Notify::new(),
        }
    }

    /// Returns the channel for messages whose order does not matter.
    ///
    /// # Errors
    /// There is none now.
    pub(crate) fn get(&self) -> Result<Arc<PublishChannel>> {
        match &*self.state.lock() {
            State::Open(channel) | State::Changing(channel, _) => Ok(Arc::clone(channel)),
            State::Down(_) => Err(disconnected(ErrorKind::Unavailable)),
            State::Closed => Err(closed()),
        }
    }

    /// Waits for a channel, as long as a message may be held.
    ///
    /// # Errors
    /// There was none in time.
    pub(crate) async fn opened(&self) -> Result<()> {
        let opened = async {
            loop {
                let changed = self.changed.notified();
                match self.get() {
                    Err(error) if error.kind() == ErrorKind::Unavailable => changed.await,
                    result => return result.map(drop),
                }
            }
        };
        tokio::time::timeout(self.patience, opened).await.unwrap_or_else(|_| self.get().map(drop))
    }

    /// Publishes a message on the channel, or holds it for the next one.
    pub(crate) fn publish(&self, parcel: Parcel, publish: impl FnOnce(Arc<PublishChannel>, Parcel)) {
        let mut state = self.state.lock();
        if matches!(&*state, State::Open(channel) if !channel.is_open()) {
            // Before the end is noticed elsewhere.
            *state = State::Down(VecDeque::new());
        }
        let error = match &mut *state {
            State::Open(channel) => {
                let channel = Arc::clone(channel);
                drop(state);
                return publish(channel, parcel);
            }
            State::Changing(_, held) | State::Down(held) if held.len() < self.room => {
                let until = Instant::now() + self.patience;
                return held.push_back(Held { parcel, until });
            }
            State::Changing(..) | State::Down(_) => {
                Error::new(ErrorKind::Busy, "too many publishes wait for a channel").with_context("limit", self.room)
            }
            State::Closed => closed(),
        };
        drop(state);
        parcel.confirmer.confirm(Err(error));
    }

    /// Begins to hold messages, while there still is a channel.
    pub(crate) fn hold(&self) {
        let mut state = self.state.lock();
        if let State::Open(channel) = &*state {
            *state = State::Changing(Arc::clone(channel), VecDeque::new());
        }
    }

    /// Holds messages, because the channel has ended. Returns `false` if the publisher was closed.
    pub(crate) fn lost(&self) -> bool {
        let mut state = self.state.lock();
        let held = match &mut *state {
            State::Closed => return false,
            State::Open(_) => VecDeque::new(),
            State::Changing(_, held) | State::Down(held) => std::mem::take(held),
        };
        *state = State::Down(held);
        true
    }

    /// Holds messages that the last channel did not take, before all others.
    pub(crate) fn hold_first(&self, parcels: Vec<Parcel>) {
        let mut state = self.state.lock();
        let until = Instant::now() + self.patience;
        match &mut *state {
            State::Changing(_, held) | State::Down(held) => {
                parcels.into_iter().rev().for_each(|parcel| held.push_front(Held { parcel, until }));
            }
            // Messages are released only by the task that holds these.
            State::Open(_) | State::Closed => {
                drop(state);
                parcels.into_iter().for_each(|parcel| parcel.confirmer.confirm(Err(closed())));
            }
        }
    }

    /// Publishes what was held on this channel, in order, and all further messages. Returns `false`
    /// if the publisher was closed.
    pub(crate) fn release(&self, channel: &Arc<PublishChannel>, publish: impl Fn(Parcel)) -> bool {
        // Under the lock, or messages published now would overtake the last of these.
        let mut state = self.state.lock();
        let held = match &mut *state {
            State::Closed => return false,
            State::Open(_) => VecDeque::new(),
            State::Changing(_, held) | State::Down(held) => std::mem::take(held),
        };
        held.into_iter().for_each(|held| publish(held.parcel));
        *state = State::Open(Arc::clone(channel));
        drop(state);
        self.changed.notify_waiters();
        true
    }

    /// Gives up messages that were held for as long as they may be, or all of them if the broker
    /// refuses this program for a reason that does not pass.
    pub(crate) fn expire(&self, reason: ErrorKind) {
        let mut late = Vec::new();
        if let State::Down(held) = &mut *self.state.lock() {
            let now = Instant::now();
            while held.front().is_some_and(|held| held.until <= now || !reason.is_retryable()) {
                late.extend(held.pop_front());
            }
        }
        late.into_iter().for_each(|held| held.parcel.confirmer.confirm(Err(disconnected(reason))));
    }

    /// Waits until no messages are held while there is a channel.
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
        let last = std::mem::replace(&mut *self.state.lock(), State::Closed);
        self.changed.notify_waiters();
        if let State::Changing(_, held) | State::Down(held) = last {
            held.into_iter().for_each(|held| held.parcel.confirmer.confirm(Err(closed())));
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open(_) => "Open",
            Self::Changing(..) => "Changing",
            Self::Down(_) => "Down",
            Self::Closed => "Closed",
        })
    }
}
