//! The loop of a consumer: takes messages, runs as many handlers as allowed, and drains.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::delayed::Delayed;
use super::lanes::{Lane, Lanes};
use super::report::Report;
use super::solo::{AGAIN, Solo};
use super::tasks::Tasks;
use super::work::{End, Fate, Handled};
use crate::broker::{Deliveries, Delivery};
use crate::error::{Error, Result};
use crate::telemetry::{WaitingGauge, WaitingReason};

/// Maximum number of messages that are started before other tasks get a turn on the thread.
const TURN: usize = 64;

/// Time for which cancelled handlers in tasks of their own are waited for.
const CANCELLING: Duration = Duration::from_secs(1);

/// A running consumer. `start` makes the future that handles a delivery, and `conclude` the one
/// that settles it.
///
/// A message takes a place among the handlers until its handler has ended. Settling it, or
/// publishing its dead letter, goes on beside them, and its place in the prefetch bounds that.
pub(super) struct Runner<S, F, C, G> {
    deliveries: Deliveries,
    start: S,
    conclude: C,
    concurrency: usize,
    handling: Tasks<F>,
    concluding: Tasks<G>,
    lanes: Lanes,
    /// Deliveries that may be worked on as soon as there is room.
    ready: VecDeque<(Delivery, Lane)>,
    /// Deliveries to be tried again later; their lanes are occupied.
    delayed: Delayed,
    /// The delivery whose handler runs alone.
    solo: Solo,
    /// The conclusions of messages whose handlers ran alone.
    concluding_alone: Tasks<G>,
    /// The numbers of messages that wait in `delayed` and in `lanes`.
    waiting: [WaitingGauge; 2],
    report: Report,
    /// The reason for which the consumer stops by itself.
    failure: Option<Error>,
}

impl<S, F, C, G> Runner<S, F, C, G>
where
    S: Fn(Delivery) -> F,
    F: Future<Output = Handled>,
    C: Fn(Fate) -> G,
    G: Future<Output = End>,
{
    pub(super) fn new(deliveries: Deliveries, start: S, conclude: C, concurrency: usize, lanes: Lanes) -> Self {
        let waiting = [WaitingReason::Retry, WaitingReason::Lane];
        let waiting = waiting.map(|reason| WaitingGauge::new(deliveries.telemetry(), reason));
        Self {
            deliveries,
            start,
            conclude,
            concurrency,
            handling: Tasks::new(),
            concluding: Tasks::new(),
            lanes,
            ready: VecDeque::new(),
            delayed: Delayed::default(),
            solo: Solo::None,
            concluding_alone: Tasks::new(),
            waiting,
            report: Report::default(),
            failure: None,
        }
    }

    /// Runs until `shutdown` ends, the subscription does, or the consumer has to stop.
    pub(super) async fn run_until(&mut self, shutdown: impl Future) {
        let mut shutdown = pin!(shutdown);
        poll_fn(|cx| match shutdown.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => {
                let turn = self.poll_turn(cx);
                self.tell_waiting();
                turn
            }
        })
        .await;
    }

    /// Stops the intake, gives back what has not begun, lets running handlers and settlements
    /// finish within `time`, and ends the subscription.
    pub(super) async fn drain(mut self, time: Duration, cancel: &CancellationToken) -> Result<Report> {
        let deadline = Instant::now() + time;
        let stopped = self.deliveries.stop();
        let mut unbegun: Vec<Delivery> = self.ready.drain(..).map(|(delivery, _)| delivery).collect();
        unbegun.extend(self.lanes.clear());
        unbegun.extend(self.solo.take().map(|(delivery, _)| delivery));
        unbegun.extend(self.delayed.take_all());
        self.report.abandoned += unbegun.len() as u64;
        // A source that goes on would hand the returned messages to this consumer again.
        if stopped {
            unbegun.drain(..).for_each(Delivery::give_back);
        }
        let _ = timeout_at(deadline, poll_fn(|cx| self.poll_running(cx))).await;
        if self.handling.len() > 0 {
            cancel.cancel();
            let _ = timeout_at(Instant::now() + CANCELLING, poll_fn(|cx| self.poll_cancelled(cx))).await;
        }
        let Self { handling, concluding, concluding_alone, deliveries, mut report, failure, .. } = self;
        report.abandoned += handling.len() as u64;
        report.unsettled += (concluding.len() + concluding_alone.len()) as u64;
        // Cancels the unfinished handlers: their spans end, and their messages go back. Dropping
        // them runs code of the application.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(handling))) {
            let panic = crate::message::describe_panic(&*panic);
            tracing::warn!(panic, "a handler panicked when it was cancelled");
        }
        drop((concluding, concluding_alone));
        // Ends the subscription first, so that it does not get the returned messages again.
        drop(deliveries);
        unbegun.into_iter().for_each(Delivery::give_back);
        match failure {
            None => Ok(report),
            Some(error) => Err(error.with_operation("consume").with_context("report", report)),
        }
    }

    /// Starts as much work as allowed and records the work that has ended; ready when the
    /// subscription has ended or the consumer has to stop.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURN {
            let _ = self.poll_running(cx);
            if self.failure.is_some() {
                return Poll::Ready(());
            }
            if self.handling.len() >= self.concurrency {
                return Poll::Pending;
            }
            if self.solo.holds_up(self.handling.len(), self.concluding_alone.len()) {
                match self.solo.poll_impatient(cx) {
                    Poll::Ready(Some((delivery, lane, delay))) => self.put_off(delivery, lane, delay),
                    Poll::Ready(None) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
            let next = match self.solo.take() {
                Some(next) => Poll::Ready(Some(next)),
                None => self.poll_startable(cx),
            };
            match next {
                Poll::Ready(Some((delivery, lane))) => self.begin(delivery, lane, cx),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Records the work that has ended; ready when no work is running.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut idle = true;
        loop {
            match self.handling.poll_next(cx) {
                Poll::Ready(Some((lane, handled))) => self.conclude(lane, handled, cx),
                Poll::Ready(None) => break,
                Poll::Pending => {
                    idle = false;
                    break;
                }
            }
        }
        while let Some((lane, end)) = self.next_concluded(cx) {
            self.finish(lane, end);
        }
        if idle && self.concluding.len() + self.concluding_alone.len() == 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    fn next_concluded(&mut self, cx: &mut Context<'_>) -> Option<(Lane, End)> {
        let tasks = [&mut self.concluding_alone, &mut self.concluding];
        tasks.into_iter().find_map(|tasks| match tasks.poll_next(cx) {
            Poll::Ready(concluded) => concluded,
            Poll::Pending => None,
        })
    }

    /// Waits for handlers that were cancelled; ready when none is running.
    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = self.poll_running(cx);
        if self.handling.len() == 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Returns the next message that may be worked on; messages that were taken before come first.
    fn poll_startable(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Delivery, Lane)>> {
        if let Some(next) = self.ready.pop_front() {
            return Poll::Ready(Some(next));
        }
        if let Poll::Ready(due) = self.delayed.poll_due(cx) {
            return Poll::Ready(Some(due));
        }
        while self.lanes.has_room() {
            match self.deliveries.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(delivery))) => {
                    if let Some(startable) = self.lanes.enter(delivery) {
                        return Poll::Ready(Some(startable));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::warn!(%error, "a subscription reported an error and continues");
                    self.report.errors += 1;
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    fn tell_waiting(&mut self) {
        let [retry, lane] = &mut self.waiting;
        retry.tell(self.delayed.len());
        lane.tell(self.lanes.waiting());
    }

    /// Lets a delivery wait in its lane.
    fn put_off(&mut self, delivery: Delivery, lane: Lane, delay: Duration) {
        let lane = self.lanes.occupy(lane);
        self.delayed.insert(delivery, lane, delay);
    }

    fn begin(&mut self, delivery: Delivery, lane: Lane, cx: &mut Context<'_>) {
        if delivery.runs_alone() {
            if self.handling.len() > 0 {
                self.solo = Solo::wait(delivery, lane);
                return;
            }
            match Solo::begin() {
                Some(running) => self.solo = running,
                None => return self.put_off(delivery, lane, AGAIN),
            }
        }
        let work = (self.start)(delivery);
        if let Some((lane, handled)) = self.handling.begin(work, lane, &mut self.lanes, cx) {
            self.conclude(lane, handled, cx);
        }
    }

    fn conclude(&mut self, lane: Lane, Handled(fate): Handled, cx: &mut Context<'_>) {
        let ran_alone = self.solo.settle();
        match fate {
            Fate::Lost => self.report.lost += 1,
            Fate::Cancelled => self.report.abandoned += 1,
            fate => {
                let work = (self.conclude)(fate);
                let concluding = if ran_alone { &mut self.concluding_alone } else { &mut self.concluding };
                if let Some((lane, end)) = concluding.begin(work, lane, &mut self.lanes, cx) {
                    self.finish(lane, end);
                }
                return;
            }
        }
        self.ready.extend(self.lanes.leave(lane));
    }

    fn finish(&mut self, lane: Lane, end: End) {
        match end {
            End::Settled(settled) => self.report.count(&settled),
            End::Skipped => self.report.skipped += 1,
            End::Again(delivery, delay) => {
                self.report.retried += 1;
                return self.put_off(*delivery, lane, delay);
            }
            End::Stop(delivery, decision, error) => {
                tracing::error!(
                    topic = %delivery.message().topic(), %error,
                    "the consumer stops: a dead letter is refused for good; its message is kept"
                );
                delivery.leave_unburied(decision);
                self.failure.get_or_insert(error);
            }
        }
        self.ready.extend(self.lanes.leave(lane));
    }
}
