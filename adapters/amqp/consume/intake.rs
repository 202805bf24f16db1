//! Taking messages from the client's consumer, until the end of the channel or of the intake.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use lapin::Consumer;
use lapin::message::Delivery;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::retry::{Counted, RetryTarget};
use super::settle::Settler;

/// Interval of looks at a channel. The client reports the end of a consumer only to a task that
/// takes its messages, which may be busy.
const LOOK: Duration = Duration::from_millis(200);

/// A message that was fetched, and the time at which it was seen first.
pub(crate) struct Fetched {
    pub(crate) at: Instant,
    pub(crate) delivery: Delivery,
}

/// The messages of one channel that were fetched and not handed out.
pub(crate) struct Intake {
    pub(crate) settler: Arc<Settler>,
    pub(crate) retry_target: Arc<RetryTarget>,
    state: Mutex<State>,
}

struct State {
    /// The client's consumer, until the intake is stopped.
    consumer: Option<Consumer>,
    /// The same for looks at the channel: each wakes the task that polled it last.
    looking: Option<Consumer>,
    /// Messages taken from the consumer by a look at the channel, at most as many as the prefetch.
    fetched: VecDeque<Fetched>,
    has_ended: bool,
}

impl Intake {
    /// Starts to look after the channel. `time_limit` is the server's for unsettled messages.
    pub(crate) fn start(
        consumer: Consumer,
        settler: Arc<Settler>,
        retry_target: Arc<RetryTarget>,
        time_limit: Option<Duration>,
        queue: String,
    ) -> Arc<Self> {
        let looking = Some(consumer.clone());
        let state = State { consumer: Some(consumer), looking, fetched: VecDeque::new(), has_ended: false };
        let intake = Arc::new(Self { settler, retry_target, state: Mutex::new(state) });
        let looks = Looks {
            settler: Arc::downgrade(&intake.settler),
            intake: Arc::downgrade(&intake),
            retry_target: Arc::clone(&intake.retry_target),
            time_limit,
            queue,
            has_warned: false,
        };
        intake.settler.live().engine.spawn(looks.keep());
        intake
    }

    /// Returns the next message of this channel, or `None` when the channel has ended.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Fetched>> {
        let mut state = self.state.lock();
        if self.settler.is_over() {
            // The broker redelivers on the next channel what was fetched on this one.
            return Poll::Ready(None);
        }
        match state.fetched.pop_front() {
            Some(fetched) => Poll::Ready(Some(fetched)),
            None => state.poll_consumer(cx, false),
        }
    }

    /// Stops the deliveries, and returns to the broker the messages that were fetched. The channel
    /// stays open until the last delivery that was handed out is settled or dropped.
    pub(crate) fn stop(&self) {
        let (consumer, mut fetched) = {
            let mut state = self.state.lock();
            state.looking = None;
            (state.consumer.take(), std::mem::take(&mut state.fetched))
        };
        let Some(mut consumer) = consumer.filter(|_| !self.settler.is_over()) else { return };
        let (settler, retry_target) = (Arc::clone(&self.settler), Arc::clone(&self.retry_target));
        settler.bring_now();
        self.settler.live().engine.spawn(async move {
            settler.cancel(&consumer).await;
            while let Some(Some(item)) = consumer.next().now_or_never() {
                fetched.extend(item.ok().map(|delivery| Fetched { at: Instant::now(), delivery }));
            }
            for Fetched { delivery, .. } in fetched {
                retry_target.give_back_fetched(&settler, delivery);
            }
        });
    }

    /// Notes the messages that have arrived, and returns to the broker those that have waited for
    /// longer than `patience`. Returns `false` if the consumer has ended.
    fn look(&self, patience: Option<Duration>) -> bool {
        let mut late = Vec::new();
        let has_ended = {
            let mut state = self.state.lock();
            let mut context = Context::from_waker(Waker::noop());
            while let Poll::Ready(Some(fetched)) = state.poll_consumer(&mut context, true) {
                state.fetched.push_back(fetched);
            }
            if let Some(patience) = patience {
                let due = state.fetched.partition_point(|fetched| fetched.at.elapsed() >= patience);
                late.extend(state.fetched.drain(..due));
            }
            state.has_ended
        };
        for Fetched { delivery, .. } in late {
            self.retry_target.give_back_fetched(&self.settler, delivery);
        }
        !has_ended
    }
}

impl State {
    fn poll_consumer(&mut self, cx: &mut Context<'_>, is_look: bool) -> Poll<Option<Fetched>> {
        let consumer = if is_look { &mut self.looking } else { &mut self.consumer };
        let Some(consumer) = consumer else { return Poll::Pending };
        while !self.has_ended {
            match ready!(consumer.poll_next_unpin(cx)) {
                Some(Ok(delivery)) => return Poll::Ready(Some(Fetched { at: Instant::now(), delivery })),
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
        self.stop();
    }
}

/// The task that looks at a channel: it notices its end although no other task polls, and returns
/// messages before the server ends the channel because of them.
struct Looks {
    settler: Weak<Settler>,
    intake: Weak<Intake>,
    retry_target: Arc<RetryTarget>,
    time_limit: Option<Duration>,
    queue: String,
    has_warned: bool,
}

impl Looks {
    async fn keep(mut self) {
        while let Some(settler) = self.settler.upgrade() {
            let is_live = !settler.is_over() && self.intake_goes_on();
            if !is_live {
                settler.abandon();
                return;
            }
            self.watch_the_time(&settler);
            let live = Arc::clone(settler.live());
            drop(settler);
            // An error means that the connection reported nothing.
            let _ = timeout(LOOK, live.changed.notified()).await;
        }
    }

    fn intake_goes_on(&self) -> bool {
        let patience = self.time_limit.map(|limit| limit / 2);
        self.intake.upgrade().is_none_or(|intake| intake.look(patience))
    }

    /// Warns of deliveries at half of their time, and gives them back before it is up.
    fn watch_the_time(&mut self, settler: &Arc<Settler>) {
        let Some(limit) = self.time_limit else { return };
        let (queue, limit_s) = (&self.queue, limit.as_secs());
        let held = settler.held_for(limit / 2);
        if held > 0 && !self.has_warned {
            tracing::warn!(queue, held, limit_s, "messages have been unsettled for half of the server's time limit");
        }
        self.has_warned = held > 0;
        let (given_back, to_copy) = settler.give_back_held_for(limit / 10 * 9);
        for (tag, original) in to_copy {
            self.retry_target.put_back(settler, tag, Duration::ZERO, original, Counted::Failed);
        }
        if given_back > 0 {
            let message = "messages were given back unsettled, before the server would end their channel";
            tracing::warn!(queue, given_back, limit_s, message);
        }
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
            intake.stop();
        }
    }

    /// Stops the intake for good.
    pub(crate) fn stop(&self) {
        let mut current = self.0.lock();
        current.is_stopped = true;
        if let Some(intake) = current.intake.upgrade() {
            intake.stop();
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
