//! The task that looks after a channel: its end, the time of its deliveries, and its queue.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lapin::types::ShortString;
use tokio::time::timeout;

use super::super::publish::routes::Interest;
use super::super::topology::bindings::Bindings;
use super::intake::Intake;
use super::retry::{Counted, RetryTarget};
use super::settle::Settler;
use super::time_limit::TimeLimit;

/// Interval of looks at a channel. The client reports the end of a consumer only to a task that
/// takes its messages, which may be busy.
const LOOK: Duration = Duration::from_millis(200);

/// Interval at which exchanges and bindings that were deleted are made again.
const RESTORE: Duration = Duration::from_secs(5);
/// The same while messages were published in vain.
const RESTORE_BROKEN: Duration = Duration::from_secs(1);

/// Starts to look after the channel of an intake.
pub(crate) fn start(intake: &Arc<Intake>, bindings: Bindings, interest: &Arc<Interest>) {
    let looks = Looks {
        settler: Arc::downgrade(&intake.settler),
        intake: Arc::downgrade(intake),
        retry_target: Arc::clone(&intake.retry_target),
        queue: intake.queue().clone(),
        time_limit: intake.time_limit(),
        has_warned: false,
        bindings,
        interest: Arc::downgrade(interest),
        restored: Instant::now(),
    };
    intake.settler.live().engine.spawn(looks.keep());
}

/// The task that looks at a channel: it notices its end although no other task polls, and returns
/// messages before the server ends the channel because of them.
struct Looks {
    settler: Weak<Settler>,
    intake: Weak<Intake>,
    retry_target: Arc<RetryTarget>,
    queue: ShortString,
    time_limit: Arc<TimeLimit>,
    has_warned: bool,
    bindings: Bindings,
    interest: Weak<Interest>,
    /// The time at which the bindings were last seen to.
    restored: Instant,
}

impl Looks {
    async fn keep(mut self) {
        while let Some(settler) = self.settler.upgrade() {
            let is_live = !settler.is_over() && self.intake_goes_on();
            if !is_live {
                self.intake.upgrade().iter().for_each(|intake| intake.learn());
                settler.abandon();
                return;
            }
            self.watch_the_time(&settler);
            self.restore(&settler).await;
            let live = Arc::clone(settler.live());
            drop(settler);
            // An error means that the connection reported nothing.
            let _ = timeout(LOOK, live.changed.notified()).await;
        }
    }

    fn intake_goes_on(&self) -> bool {
        self.intake.upgrade().is_none_or(|intake| intake.look(self.time_limit.get().map(|limit| limit / 2)))
    }

    /// Makes again, at intervals, what was deleted at the broker.
    async fn restore(&mut self, settler: &Settler) {
        let since = self.restored.elapsed();
        if !self.bindings.may_restore() || since < RESTORE_BROKEN || since < RESTORE && !self.is_broken() {
            return;
        }
        if let Err(error) = self.bindings.restore(settler.live(), &self.queue).await {
            tracing::debug!(queue = self.queue.as_str(), %error, "the bindings of a queue were not restored");
        }
        self.restored = Instant::now();
    }

    fn is_broken(&self) -> bool {
        self.interest.upgrade().is_some_and(|interest| interest.is_broken())
    }

    /// Warns of deliveries at half of their time, and gives them back before it is up.
    fn watch_the_time(&mut self, settler: &Arc<Settler>) {
        let Some(limit) = self.time_limit.get() else { return };
        let (queue, limit_s) = (self.queue.as_str(), limit.as_secs());
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
