//! Taking messages from the client's consumer, until the end of the channel or of the intake.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use lapin::Consumer;
use lapin::message::Delivery;
use lapin::types::ShortString;
use parking_lot::Mutex;

use super::retry::RetryTarget;
use super::settle::Settler;
use super::time_limit::TimeLimit;
use crate::driver::{DeliveryHandle, Disposition};

/// A message that was fetched, and the time at which it was seen first.
pub(crate) struct Fetched {
    pub(crate) at: Instant,
    pub(crate) delivery: Delivery,
}

/// The messages of one channel that were fetched and not handed out.
pub(crate) struct Intake {
    pub(crate) settler: Arc<Settler>,
    pub(crate) retry_target: Arc<RetryTarget>,
    queue: ShortString,
    time_limit: Arc<TimeLimit>,
    state: Mutex<State>,
}

struct State {
    /// The client's consumer; `None` while it is replaced, and once the intake is stopped.
    consumer: Option<Consumer>,
    /// The same for looks at the channel: each wakes the task that polled it last.
    looking: Option<Consumer>,
    /// Messages taken from the consumer by a look at the channel, at most as many as the prefetch.
    fetched: VecDeque<Fetched>,
    /// The number of deliveries that were set aside since this consumer began.
    aside: usize,
    /// The number of messages that came, now and at the last look.
    came: u64,
    seen: u64,
    /// `true` if none came between the last two looks.
    comes_none: bool,
    /// `true` while the consumer is replaced.
    is_renewing: bool,
    is_stopped: bool,
    /// The task that waits while the consumer is replaced.
    waker: Option<Waker>,
    has_ended: bool,
}

impl Intake {
    pub(crate) fn new(
        consumer: Consumer,
        settler: Arc<Settler>,
        retry_target: Arc<RetryTarget>,
        queue: ShortString,
        time_limit: Arc<TimeLimit>,
    ) -> Arc<Self> {
        Arc::new(Self { settler, retry_target, queue, time_limit, state: Mutex::new(State::new(consumer)) })
    }

    /// Returns the server's limit of time for unsettled messages.
    pub(crate) fn time_limit(&self) -> Arc<TimeLimit> {
        Arc::clone(&self.time_limit)
    }

    /// Learns why the server ended the channel.
    pub(crate) fn learn(&self) {
        let mut context = Context::from_waker(Waker::noop());
        let mut state = self.state.lock();
        if let Some(looking) = &mut state.looking {
            // What was fetched comes again.
            while let Poll::Ready(Some(item)) = looking.poll_next_unpin(&mut context) {
                item.err().iter().for_each(|error| self.time_limit.learn(self.queue.as_str(), error));
            }
        }
    }

    /// Returns the name of the queue.
    pub(crate) fn queue(&self) -> &ShortString {
        &self.queue
    }

    /// Returns the next message of this channel, or `None` when the channel has ended.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Fetched>> {
        let mut state = self.state.lock();
        if self.settler.is_over() {
            // The broker redelivers on the next channel what was fetched on this one.
            drop(state);
            self.learn();
            return Poll::Ready(None);
        }
        match state.fetched.pop_front() {
            Some(fetched) => Poll::Ready(Some(fetched)),
            None => state.poll_consumer(cx, false),
        }
    }

    /// Stops the deliveries, and returns to the broker the messages that were fetched, behind those
    /// that are held. The channel stays open until the last delivery that was handed out is settled
    /// or dropped.
    pub(crate) fn stop(&self, held: Vec<Box<dyn DeliveryHandle>>) {
        let (consumer, mut fetched) = {
            let mut state = self.state.lock();
            state.is_stopped = true;
            state.looking = None;
            (state.consumer.take(), std::mem::take(&mut state.fetched))
        };
        if self.settler.is_over() {
            return;
        }
        let (settler, retry_target) = (Arc::clone(&self.settler), Arc::clone(&self.retry_target));
        settler.bring_now();
        self.settler.live().engine.spawn(async move {
            // Without a consumer, its replacement is under way, and ends it.
            if let Some(mut consumer) = consumer {
                fetched.extend(cancelled(&settler, &mut consumer).await);
            }
            for handle in held {
                // An error means that the broker has the message already.
                drop(handle.settle(Disposition::GiveBack));
            }
            for Fetched { delivery, .. } in fetched {
                retry_target.give_back_fetched(&settler, delivery);
            }
        });
    }

    /// Notes that a delivery waits in this process, and is not to count any more. Returns `false`
    /// if the intake is stopped.
    ///
    /// The bound belongs to the consumer at the broker, which cannot change it: once a quarter of
    /// the prefetch waits, or less of it and no message comes, the consumer is replaced on the same
    /// channel by one with as many places as are free.
    pub(crate) fn set_aside(self: &Arc<Self>, tag: u64) -> bool {
        let mut state = self.state.lock();
        if state.is_stopped || state.has_ended || !self.settler.set_aside(tag) {
            return false;
        }
        state.aside += 1;
        state.comes_none = false;
        self.replace(&mut state);
        true
    }

    /// Replaces the consumer if it is worth it.
    fn replace(self: &Arc<Self>, state: &mut State) {
        if let Some(last) = state.take_replaced(self.settler.prefetch()) {
            let intake = Arc::clone(self);
            self.settler.live().engine.spawn(async move {
                let mut last = Some(last);
                while let Some(consumer) = last {
                    last = intake.renew(consumer).await;
                }
            });
        }
    }

    /// Replaces the consumer by one that has as many places as are free. Returns the new one if it
    /// is to be replaced, too.
    ///
    /// A third one, with one place, is there meanwhile: a queue may be deleted with its last
    /// consumer, and the free places are known only after the last one has ended.
    async fn renew(&self, mut last: Consumer) -> Option<Consumer> {
        let between = self.settler.consume(&self.queue, 1).await;
        let mut fetched = cancelled(&self.settler, &mut last).await;
        let next = match between {
            Ok(mut between) => {
                let in_client = {
                    let mut state = self.state.lock();
                    // Those that are set aside from here on call for another replacement.
                    state.aside = 0;
                    fetched.len() + state.fetched.len() + 1
                };
                let mut next = self.settler.consume(&self.queue, self.settler.free_places(in_client)).await;
                fetched.extend(cancelled(&self.settler, &mut between).await);
                // Tags tell the order of the messages, which the three of them had.
                next.iter_mut().for_each(|next| fetched.extend(buffered(next)));
                fetched.sort_by_key(|fetched| fetched.delivery.delivery_tag);
                next
            }
            Err(error) => Err(error),
        };
        let (waker, late, again) = {
            let mut state = self.state.lock();
            state.is_renewing = false;
            state.fetched.extend(fetched);
            let mut late = None;
            match next {
                Ok(next) if state.is_stopped => late = Some(next),
                Ok(next) => state.take_from(next),
                Err(error) => {
                    // The subscription goes on with another channel.
                    tracing::warn!(queue = %self.queue, %error, "a RabbitMQ consumer was not replaced");
                    state.has_ended = true;
                }
            }
            let waker = state.waker.take();
            (waker, late, state.take_replaced(self.settler.prefetch()))
        };
        waker.into_iter().for_each(Waker::wake);
        if let Some(mut late) = late {
            let mut fetched: Vec<Fetched> = std::mem::take(&mut self.state.lock().fetched).into();
            fetched.extend(cancelled(&self.settler, &mut late).await);
            for Fetched { delivery, .. } in fetched {
                self.retry_target.give_back_fetched(&self.settler, delivery);
            }
        }
        again
    }

    /// Notes the messages that have arrived, and returns to the broker those that have waited for
    /// longer than `patience`. Returns `false` if the consumer has ended.
    pub(crate) fn look(self: &Arc<Self>, patience: Option<Duration>) -> bool {
        let mut late = Vec::new();
        let has_ended = {
            let mut state = self.state.lock();
            let came = state.came;
            let mut context = Context::from_waker(Waker::noop());
            while let Poll::Ready(Some(fetched)) = state.poll_consumer(&mut context, true) {
                state.fetched.push_back(fetched);
            }
            if let Some(patience) = patience {
                let due = state.fetched.partition_point(|fetched| fetched.at.elapsed() >= patience);
                late.extend(state.fetched.drain(..due));
            }
            state.comes_none = came == state.seen && state.fetched.is_empty();
            state.seen = state.came;
            self.replace(&mut state);
            state.has_ended
        };
        for Fetched { delivery, .. } in late {
            self.retry_target.give_back_fetched(&self.settler, delivery);
        }
        !has_ended
    }
}

/// Cancels the consumer, and returns the messages that it had fetched.
async fn cancelled(settler: &Settler, consumer: &mut Consumer) -> Vec<Fetched> {
    settler.cancel(consumer).await;
    buffered(consumer)
}

/// Returns the messages that the client has for a consumer.
fn buffered(consumer: &mut Consumer) -> Vec<Fetched> {
    let mut fetched = Vec::new();
    while let Some(Some(item)) = consumer.next().now_or_never() {
        fetched.extend(item.ok().map(|delivery| Fetched { at: Instant::now(), delivery }));
    }
    fetched
}

impl State {
    fn new(consumer: Consumer) -> Self {
        let mut state = Self {
            consumer: None,
            looking: None,
            fetched: VecDeque::new(),
            aside: 0,
            came: 0,
            seen: 0,
            comes_none: false,
            is_renewing: false,
            is_stopped: false,
            waker: None,
            has_ended: false,
        };
        state.take_from(consumer);
        state
    }

    /// Takes out the consumer if its replacement gets enough places.
    fn take_replaced(&mut self, prefetch: u16) -> Option<Consumer> {
        let enough = if self.comes_none { 1 } else { usize::from(prefetch / 4).max(1) };
        if self.aside < enough {
            return None;
        }
        let last = self.consumer.take()?;
        self.comes_none = false;
        self.looking = None;
        self.is_renewing = true;
        Some(last)
    }

    /// Takes messages from this consumer from now on.
    fn take_from(&mut self, consumer: Consumer) {
        self.looking = Some(consumer.clone());
        self.consumer = Some(consumer);
    }

    fn poll_consumer(&mut self, cx: &mut Context<'_>, is_look: bool) -> Poll<Option<Fetched>> {
        if self.is_renewing && !is_look {
            self.waker = Some(cx.waker().clone());
        }
        if self.has_ended {
            return Poll::Ready(None);
        }
        let consumer = if is_look { &mut self.looking } else { &mut self.consumer };
        let Some(consumer) = consumer else { return Poll::Pending };
        while !self.has_ended {
            match ready!(consumer.poll_next_unpin(cx)) {
                Some(Ok(delivery)) => {
                    self.came += 1;
                    return Poll::Ready(Some(Fetched { at: Instant::now(), delivery }));
                }
                // The end of the stream follows.
                Some(Err(error)) => tracing::debug!(%error, "a RabbitMQ consumer ended"),
                None => self.has_ended = true,
            }
        }
        Poll::Ready(None)
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.stop(Vec::new());
    }
}

/// The intake of a subscription, over its channels.
#[derive(Default)]
pub(crate) struct CurrentIntake(Mutex<Current>);

#[derive(Default)]
struct Current {
    intake: Weak<Intake>,
    is_stopped: bool,
}

impl CurrentIntake {
    /// Notes the intake of the newest channel, which is stopped at once if the subscription was.
    pub(crate) fn is_now(&self, intake: &Arc<Intake>) {
        let mut current = self.0.lock();
        current.intake = Arc::downgrade(intake);
        if current.is_stopped {
            intake.stop(Vec::new());
        }
    }

    /// Stops the intake for good, and returns what is held.
    pub(crate) fn stop(&self, held: Vec<Box<dyn DeliveryHandle>>) {
        let mut current = self.0.lock();
        current.is_stopped = true;
        if let Some(intake) = current.intake.upgrade() {
            intake.stop(held);
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.lock().is_stopped
    }
}

impl std::fmt::Debug for CurrentIntake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CurrentIntake").field("is_stopped", &self.is_stopped()).finish_non_exhaustive()
    }
}
