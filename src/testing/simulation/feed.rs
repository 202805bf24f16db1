//! The messages of a subscription over the simulated network, across lost connections.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::handle::Handle;
use super::session::{Session, away};
use crate::driver::{Inbound, Source};
use crate::error::Result;
use crate::message::{Start, Subscription};

/// A subscription that was opened over a connection; `None` if the client was closed.
pub(super) type Opened = BoxFuture<'static, Option<Result<(Arc<Session>, Source)>>>;

/// The way to open a subscription again, once there is a connection.
pub(super) type Open = Box<dyn Fn(Subscription) -> Opened + Send>;

/// The stream of a subscription. It subscribes again after a lost connection.
pub(super) struct Feed(Arc<Mutex<State>>);

struct State {
    subscription: Subscription,
    open: Open,
    now: Now,
}

/// The present stage of a feed.
enum Now {
    Opening(Opened),
    Open { session: Arc<Session>, source: Source, lost: Pin<Box<dyn Future<Output = ()> + Send>> },
    Stopped,
    Closed,
}

impl Feed {
    pub(super) fn new(subscription: Subscription, session: Arc<Session>, source: Source, open: Open) -> Self {
        Self(Arc::new(Mutex::new(State { subscription, open, now: Now::open(session, source) })))
    }

    /// Returns the action that stops the intake.
    pub(super) fn stop(&self) -> impl FnOnce() + Send + use<> {
        let state = Arc::clone(&self.0);
        move || {
            let mut state = state.lock();
            match &mut state.now {
                Now::Open { source, .. } => {
                    source.stop();
                }
                Now::Opening(_) => state.now = Now::Stopped,
                Now::Stopped | Now::Closed => {}
            }
        }
    }
}

impl Now {
    fn open(session: Arc<Session>, source: Source) -> Self {
        let lost = Box::pin(session.lost());
        Self::Open { session, source, lost }
    }
}

impl State {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Inbound>>> {
        loop {
            match &mut self.now {
                Now::Opening(opened) => match std::task::ready!(opened.poll_unpin(cx)) {
                    Some(Ok((session, source))) => self.now = Now::open(session, source),
                    Some(Err(error)) => {
                        self.now = Now::Opening((self.open)(self.subscription.clone()));
                        return Poll::Ready(Some(Err(error)));
                    }
                    None => self.now = Now::Closed,
                },
                Now::Open { session, source, lost } => {
                    if lost.poll_unpin(cx).is_ready() {
                        self.now = Now::Opening((self.open)(self.subscription.clone()));
                        return Poll::Ready(Some(Err(away())));
                    }
                    // The broker ends its source when the connection breaks; the client has not
                    // noticed yet.
                    let Some(item) = std::task::ready!(source.poll_next(cx)) else { return Poll::Pending };
                    let session = Arc::clone(session);
                    return Poll::Ready(Some(item.map(|inbound| self.take(session, inbound))));
                }
                Now::Stopped => return Poll::Pending,
                Now::Closed => return Poll::Ready(None),
            }
        }
    }

    fn take(&mut self, session: Arc<Session>, mut inbound: Inbound) -> Inbound {
        // A reader has no place at the broker: it goes on behind the last message.
        if let (None, Some(offset)) = (self.subscription.group_name(), inbound.offset) {
            self.subscription = self.subscription.clone().start(Start::Offset(offset.unsigned_abs() + 1));
        }
        inbound.handle = Box::new(Handle::new(session, inbound.handle));
        inbound
    }
}

impl Stream for Feed {
    type Item = Result<Inbound>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.lock().poll(cx)
    }
}
