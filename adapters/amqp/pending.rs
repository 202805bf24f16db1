//! A publish that waits for its confirm, and goes on waiting when nobody wants the answer any more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use crate::error::Result;
use crate::message::Receipt;

/// Dropped before its end, it ends in a task: the client keeps every confirm that is dropped, for as long as the channel lives.
pub(super) struct Pending {
    answer: Option<BoxFuture<'static, Result<Receipt>>>,
}

impl Pending {
    pub(super) fn new(answer: BoxFuture<'static, Result<Receipt>>) -> Self {
        Self { answer: Some(answer) }
    }
}

impl Future for Pending {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(answer) = self.answer.as_mut() else { return Poll::Pending };
        let result = ready!(answer.as_mut().poll(cx));
        self.answer = None;
        Poll::Ready(result)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let (Some(answer), Ok(runtime)) = (self.answer.take(), Handle::try_current()) {
            runtime.spawn(answer);
        }
    }
}
