//! A clock that goes on when a model says so.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};

// All tasks of a run are on one thread.
thread_local!(static CLOCK: RefCell<Clock> = const { RefCell::new(Clock::new()) });

struct Clock {
    now: Instant,
    sleepers: Vec<(Instant, Waker)>,
}

impl Clock {
    const fn new() -> Self {
        Self { now: Instant(Duration::ZERO), sleepers: Vec::new() }
    }
}

/// A time of the model's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        CLOCK.with_borrow(|clock| clock.now)
    }

    pub(crate) fn checked_add(self, by: Duration) -> Option<Self> {
        self.0.checked_add(by).map(Self)
    }
}

/// Completes at a time of the model's clock.
#[derive(Debug)]
pub(crate) struct Sleep(Instant);

impl Sleep {
    pub(crate) fn deadline(&self) -> Instant {
        self.0
    }

    pub(crate) fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0 = deadline;
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        CLOCK.with_borrow_mut(|clock| {
            if self.0 <= clock.now {
                return Poll::Ready(());
            }
            clock.sleepers.push((self.0, cx.waker().clone()));
            Poll::Pending
        })
    }
}

pub(crate) fn sleep_until(deadline: Instant) -> Sleep {
    Sleep(deadline)
}

pub(crate) fn sleep(duration: Duration) -> Sleep {
    Sleep(Instant(Instant::now().0.saturating_add(duration)))
}

/// The time of a [`timeout`] is up.
#[derive(Debug)]
pub(crate) struct Elapsed;

pub(crate) async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    match select(std::pin::pin!(future), sleep(limit)).await {
        Either::Left((result, _)) => Ok(result),
        Either::Right(_) => Err(Elapsed),
    }
}

/// Moves the clock, and wakes the tasks whose time has come.
pub(crate) fn advance(by: Duration) {
    super::step();
    let woken: Vec<Waker> = CLOCK.with_borrow_mut(|clock| {
        clock.now = Instant(clock.now.0 + by);
        let now = clock.now;
        clock.sleepers.extract_if(.., |(deadline, _)| *deadline <= now).map(|(_, waker)| waker).collect()
    });
    woken.into_iter().for_each(Waker::wake);
}

pub(super) fn begin() {
    CLOCK.replace(Clock::new());
}
