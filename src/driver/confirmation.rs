//! The broker's answer to an operation in progress.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};

/// The future answer of the broker to an operation that has already begun. Dropping it does not
/// undo the operation.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::driver::Confirmation;
/// use traced_broker::{Error, ErrorKind, Receipt};
///
/// let known = Confirmation::ready(Ok(Receipt::confirmed().with_offset(7)));
/// assert_eq!(known.await?.offset, Some(7));
///
/// // The client has sent the message already; the future only awaits its answer.
/// let answer = async { Err(Error::new(ErrorKind::Rejected, "the queue is full")) };
/// let running: Confirmation<Receipt> = Confirmation::running(answer);
/// assert_eq!(running.await.unwrap_err().kind(), ErrorKind::Rejected);
/// # Ok(()) }
/// ```
#[must_use = "a confirmation must be awaited to learn the outcome"]
pub struct Confirmation<T>(State<T>);

enum State<T> {
    Ready(Option<Result<T>>),
    Waiting(oneshot::Receiver<Result<T>>),
    Running(BoxFuture<'static, Result<T>>),
}

impl<T> Confirmation<T> {
    /// Creates an answer that is already known.
    pub fn ready(result: Result<T>) -> Self {
        Self(State::Ready(Some(result)))
    }

    /// Creates an answer that another task gives. If that task drops its [`Confirmer`], the answer
    /// is [`ErrorKind::Unavailable`] with an unknown outcome, which is right for any publish that
    /// was in progress.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::driver::Confirmation;
    /// use traced_broker::{ErrorKind, PublishOutcome, Receipt};
    ///
    /// let (confirmer, confirmation) = Confirmation::pending();
    /// tokio::spawn(async { confirmer.confirm(Ok(Receipt::confirmed())) });
    /// assert!(confirmation.await?.confirmed);
    ///
    /// let (confirmer, confirmation) = Confirmation::<Receipt>::pending();
    /// drop(confirmer); // as when the connection is lost
    /// let error = confirmation.await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unavailable);
    /// assert_eq!(error.publish_outcome(), PublishOutcome::Unknown);
    /// # Ok(()) }
    /// ```
    pub fn pending() -> (Confirmer<T>, Self) {
        let (sender, receiver) = oneshot::channel();
        (Confirmer(sender), Self(State::Waiting(receiver)))
    }

    /// Creates an answer from a client's own future. The operation must already have begun.
    pub fn running(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(State::Running(Box::pin(future)))
    }
}

impl<T: Unpin> Future for Confirmation<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match &mut self.0 {
            State::Ready(result) => Poll::Ready(result.take().unwrap_or_else(|| Err(unanswered()))),
            State::Waiting(receiver) => {
                Pin::new(receiver).poll(cx).map(|answer| answer.unwrap_or_else(|_| Err(unanswered())))
            }
            State::Running(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for Confirmation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confirmation")
    }
}

fn unanswered() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection ended before the broker answered").with_unknown_outcome()
}

/// The side of a [`Confirmation`] that gives the answer.
pub struct Confirmer<T>(oneshot::Sender<Result<T>>);

impl<T> Confirmer<T> {
    /// Gives the answer. It is ignored if the [`Confirmation`] was dropped.
    pub fn confirm(self, result: Result<T>) {
        let _ = self.0.send(result);
    }
}

impl<T> fmt::Debug for Confirmer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confirmer")
    }
}
