//! Work in progress: futures that run side by side, each in the lane of a key.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::lanes::{Lane, Lanes};

/// Futures that run side by side.
pub(super) struct Tasks<F> {
    running: FuturesUnordered<Running<F>>,
    /// The allocation of work that ended at its first poll, for reuse.
    spare: Option<Pin<Box<F>>>,
}

impl<F: Future> Tasks<F> {
    pub(super) fn new() -> Self {
        Self { running: FuturesUnordered::new(), spare: None }
    }

    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Starts the work, which occupies its lane from now on, or returns its result if it ends at
    /// once. Work that ends at once needs neither a place among the running work nor an allocation.
    pub(super) fn begin(
        &mut self,
        work: F,
        lane: Lane,
        lanes: &mut Lanes,
        cx: &mut Context<'_>,
    ) -> Option<(Lane, F::Output)> {
        let mut work = match self.spare.take() {
            Some(mut spare) => {
                spare.as_mut().set(work);
                spare
            }
            None => Box::pin(work),
        };
        match work.as_mut().poll(cx) {
            Poll::Ready(output) => {
                self.spare = Some(work);
                Some((lane, output))
            }
            Poll::Pending => {
                let lane = lanes.occupy(lane);
                self.running.push(Running { lane, work });
                None
            }
        }
    }

    /// Returns the result of work that has ended; ready with `None` when no work is running.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Lane, F::Output)>> {
        if self.running.is_empty() { Poll::Ready(None) } else { self.running.poll_next_unpin(cx) }
    }
}

/// Running work, and the lane that it occupies.
struct Running<F> {
    lane: Lane,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Running<F> {
    type Output = (Lane, F::Output);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(Lane, F::Output)> {
        self.work.as_mut().poll(cx).map(|output| (self.lane.take(), output))
    }
}
