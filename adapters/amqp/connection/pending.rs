//! Futures that wait for the broker's answer and are completed even if the caller drops them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use crate::driver::Confirmation;
use crate::error::Result;

/// A running operation. If it is dropped before its end, a task completes it, because the client
/// keeps every dropped confirm as long as the channel lives.
struct Pending<T: Send + 'static> {
    answer: Option<BoxFuture<'static, Result<T>>>,
}

/// Polls the future once before returning. The future continues as it is awaited, or else in a
/// task.
pub(crate) fn begin<T: Send + Unpin + 'static>(
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
