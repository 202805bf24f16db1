//! The broker's answer to an operation in progress.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Outbound;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;

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
        (Confirmer(Some(To::Waiting(sender))), Self(State::Waiting(receiver)))
    }

    /// Creates an answer from a client's own future. The operation must already have begun.
    pub fn running(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(State::Running(Box::pin(future)))
    }
}

impl<T: Send + Unpin + 'static> Confirmation<T> {
    /// Passes the answer on: at once if it is known, otherwise in a task of the current tokio
    /// runtime. If that runtime ends first, or there is none, the confirmer is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::Receipt;
    /// use traced_broker::driver::Confirmation;
    ///
    /// let (confirmer, confirmation) = Confirmation::pending();
    /// let answer = async { Ok(Receipt::confirmed()) }; // of a client that sends at the call
    /// Confirmation::running(answer).pass_to(confirmer);
    /// assert!(confirmation.await?.confirmed);
    /// # Ok(()) }
    /// ```
    pub fn pass_to(mut self, confirmer: Confirmer<T>) {
        match Pin::new(&mut self).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => confirmer.confirm(answer),
            Poll::Pending => {
                if let Ok(runtime) = Handle::try_current() {
                    runtime.spawn(async move { confirmer.confirm(self.await) });
                }
            }
        }
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

/// The side that gives the answer to an operation, once. Giving it never blocks, and may be done
/// under a lock of the driver.
///
/// Dropping it unanswered is an answer too: [`ErrorKind::Unavailable`] with an unknown outcome,
/// which is right for any publish that was in progress.
///
/// ```
/// use traced_broker::driver::{Confirmation, Outbound};
/// use traced_broker::{Error, ErrorKind, PublishOutcome, Receipt};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// let (confirmer, confirmation) = Confirmation::pending();
/// confirmer.confirm(Ok(Receipt::confirmed().with_offset(7)));
/// assert_eq!(confirmation.await?.offset, Some(7));
///
/// let (confirmer, confirmation) = Confirmation::<Receipt>::pending();
/// let missing = Error::new(ErrorKind::NotFound, "the topic was deleted");
/// confirmer.give_back(Outbound::new("shoes"), missing); // certainly not sent
/// let error = confirmation.await.unwrap_err();
/// assert_eq!(error.publish_outcome(), PublishOutcome::NotSent);
/// # Ok(()) }
/// ```
#[must_use = "an operation without an answer counts as failed with an unknown outcome"]
pub struct Confirmer<T>(Option<To<T>>);

enum To<T> {
    Waiting(oneshot::Sender<Result<T>>),
    Place(Arc<dyn Place<T>>),
}

/// A receiver of an answer that is not a [`Confirmation`].
pub(crate) trait Place<T>: Send + Sync {
    /// Takes the answer, and the message if it was certainly not sent and may be sent again.
    fn answer(&self, answer: Result<T>, message: Option<Box<Outbound>>);
}

impl<T> Confirmer<T> {
    /// Creates the side that answers to this place.
    pub(crate) fn to(place: Arc<dyn Place<T>>) -> Self {
        Self(Some(To::Place(place)))
    }

    /// Gives the answer. It is ignored if the caller no longer waits for it.
    pub fn confirm(mut self, result: Result<T>) {
        self.answer(result, None);
    }

    fn answer(&mut self, result: Result<T>, message: Option<Box<Outbound>>) {
        match self.0.take() {
            Some(To::Waiting(sender)) => drop(sender.send(result)),
            Some(To::Place(place)) => place.answer(result, message),
            None => {}
        }
    }
}

impl Confirmer<Receipt> {
    /// Answers with an error that is certainly not sent, and gives the message back, because its
    /// topic may have been deleted.
    ///
    /// The layer above declares the topic again and publishes the message once more. If that fails
    /// too, the sender gets the error.
    pub fn give_back(mut self, message: Outbound, error: Error) {
        self.answer(Err(error), Some(Box::new(message)));
    }
}

impl<T> Drop for Confirmer<T> {
    fn drop(&mut self) {
        // A dropped sender is an answer by itself.
        if let Some(To::Place(place)) = self.0.take() {
            place.answer(Err(unanswered()), None);
        }
    }
}

impl<T> fmt::Debug for Confirmer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confirmer")
    }
}
