//! The loop of a consumer: takes messages, runs as many handlers as allowed, and drains.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

use super::delayed::Delayed;
use super::lanes::{Lane, Lanes};
use super::report::Report;
use super::work::End;
use crate::broker::{Deliveries, Delivery};

/// Maximum number of messages that are started before other tasks get a turn on the thread.
const TURN: usize = 64;

/// A running consumer. `start` makes the future that works on a delivery.
pub(super) struct Runner<S, F> {
    deliveries: Deliveries,
    start: S,
    concurrency: usize,
    running: FuturesUnordered<Running<F>>,
    /// The allocation of work that ended at its first poll, for reuse.
    spare: Option<Pin<Box<F>>>,
    lanes: Lanes,
    /// Deliveries that may be worked on as soon as there is room.
    ready: VecDeque<(Delivery, Lane)>,
    /// Deliveries to be tried again later; their lanes are occupied.
    delayed: Delayed,
    report: Report,
}

impl<S, F> Runner<S, F>
where
    S: Fn(Delivery) -> F,
    F: Future<Output = End>,
{
    pub(super) fn new(deliveries: Deliveries, start: S, concurrency: usize, lanes: Lanes) -> Self {
        Self {
            deliveries,
            start,
            concurrency,
            running: FuturesUnordered::new(),
            spare: None,
            lanes,
            ready: VecDeque::new(),
            delayed: Delayed::default(),
            report: Report::default(),
        }
    }

    /// Runs until `shutdown` ends or the subscription does.
    pub(super) async fn run_until(&mut self, shutdown: impl Future) {
        let mut shutdown = pin!(shutdown);
        poll_fn(|cx| match shutdown.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => self.poll_turn(cx),
        })
        .await;
    }

    /// Lets running handlers finish within `time`, gives the rest back, and ends the subscription.
    pub(super) async fn drain(mut self, time: Duration) -> Report {
        let mut unbegun: Vec<Delivery> = self.ready.drain(..).map(|(delivery, _)| delivery).collect();
        unbegun.extend(self.lanes.clear());
        let _ = timeout(time, poll_fn(|cx| self.poll_running(cx))).await;
        unbegun.extend(self.delayed.take_all());
        self.report.abandoned += (unbegun.len() + self.running.len()) as u64;
        // Cancels the unfinished handlers: their spans end, and their messages go back.
        drop(self.running);
        // Ends the subscription first, so that it does not get the returned messages again.
        drop(self.deliveries);
        unbegun.into_iter().for_each(Delivery::give_back);
        self.report
    }

    /// Starts as much work as allowed and records the work that has ended; ready when the
    /// subscription has ended.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURN {
            let _ = self.poll_running(cx);
            if self.running.len() >= self.concurrency {
                return Poll::Pending;
            }
            match self.poll_startable(cx) {
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
        while !self.running.is_empty() {
            match self.running.poll_next_unpin(cx) {
                Poll::Ready(Some((lane, end))) => self.finish(lane, end),
                Poll::Ready(None) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
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

    /// Starts the work on a delivery. Work that ends at once needs neither a place among the
    /// running work nor an allocation.
    fn begin(&mut self, delivery: Delivery, lane: Lane, cx: &mut Context<'_>) {
        let work = (self.start)(delivery);
        let mut work = match self.spare.take() {
            Some(mut spare) => {
                spare.as_mut().set(work);
                spare
            }
            None => Box::pin(work),
        };
        match work.as_mut().poll(cx) {
            Poll::Ready(end) => {
                self.spare = Some(work);
                self.finish(lane, end);
            }
            Poll::Pending => {
                let lane = self.lanes.occupy(lane);
                self.running.push(Running { lane, work });
            }
        }
    }

    fn finish(&mut self, lane: Lane, end: End) {
        match end {
            End::Settled(settled) => self.report.count(&settled),
            End::Skipped => self.report.skipped += 1,
            End::Cancelled => self.report.abandoned += 1,
            End::Again(delivery, delay) => {
                self.report.retried += 1;
                let lane = self.lanes.occupy(lane);
                self.delayed.insert(*delivery, lane, delay);
                return;
            }
        }
        self.ready.extend(self.lanes.leave(lane));
    }
}

/// Running work, and the lane that it occupies.
struct Running<F> {
    lane: Lane,
    work: Pin<Box<F>>,
}

impl<F: Future<Output = End>> Future for Running<F> {
    type Output = (Lane, End);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(Lane, End)> {
        self.work.as_mut().poll(cx).map(|end| (self.lane.take(), end))
    }
}
