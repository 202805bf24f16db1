//! What waits for an answer of the broker, and goes on when nobody wants to know any more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use crate::driver::Confirmation;
use crate::error::Result;

/// Dropped before its end, it ends in a task: the client keeps every confirm that is dropped, for as long as the channel lives.
struct Pending<T: Send + 'static> {
    answer: Option<BoxFuture<'static, Result<T>>>,
}

/// Starts at once, before this returns, and goes on as it is awaited, or else by itself.
pub(super) fn begin<T: Send + Unpin + 'static>(
    answer: impl Future<Output = Result<T>> + Send + 'static,
) -> Confirmation<T> {
    let mut answer = answer.boxed();
    match answer.poll_unpin(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Confirmation::ready(answer),
        Poll::Pending => Confirmation::running(Pending { answer: Some(answer) }),
    }
}

impl<T: Send + 'static> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(answer) = self.answer.as_mut() else { return Poll::Pending };
        let result = ready!(answer.as_mut().poll(cx));
        self.answer = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for Pending<T> {
    fn drop(&mut self) {
        if let (Some(answer), Ok(runtime)) = (self.answer.take(), Handle::try_current()) {
            runtime.spawn(answer);
        }
    }
}
