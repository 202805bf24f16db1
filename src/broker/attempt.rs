//! One run of a handler, within its span.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use opentelemetry::context::FutureExt as _;
use tokio::time::timeout;

use super::settlement::{Processed, Settlement};
use crate::context::ambient;
use crate::error::Result;
use crate::message::{HandlerError, Panicked, Received, TimedOut};
use crate::names::event;
use crate::telemetry::span::ProcessSpan;

/// An attempt whose handler has run; the delivery is not settled yet, and the span has not ended.
pub(crate) struct Attempt {
    pub(crate) span: ProcessSpan,
    pub(crate) error: Option<HandlerError>,
}

impl Attempt {
    /// Runs `handler` on the message within the span, for at most `limit`.
    pub(super) async fn run<H, F, T>(
        mut span: ProcessSpan,
        message: Received,
        handler: H,
        limit: Option<Duration>,
    ) -> Self
    where
        H: FnOnce(Received) -> F,
        F: Future<Output = Result<T, HandlerError>>,
    {
        let work = async move {
            let parts = message.parts.clone();
            handler(message).await.map(drop).map_err(|mut error| {
                parts.undecodable.get().into_iter().for_each(|text| error.reject_by_text(text));
                error
            })
        };
        let result = contained(&mut span, limit, work).await;
        span.mark_handled();
        Self { span, error: result.err() }
    }

    /// Ends the span with the settlement of the delivery.
    pub(super) fn end(self, settled: Result<Settlement>) -> Result<Processed> {
        let Self { mut span, error } = self;
        match settled {
            Ok(settlement) => {
                span.finish(settlement.as_str());
                Ok(Processed { settlement, error })
            }
            Err(failure) => {
                span.fail(failure.kind().as_str(), || failure.to_string());
                span.finish(Settlement::None.as_str());
                Err(failure)
            }
        }
    }
}

/// Runs a handler within its span, for at most `limit`. A panic becomes an error, and the span
/// records every error.
pub(crate) async fn contained<T>(
    span: &mut ProcessSpan,
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, HandlerError>>,
) -> Result<T, HandlerError> {
    let work = AssertUnwindSafe(work).catch_unwind().with_context(ambient::entered(span.context().clone()));
    let outcome = match limit {
        None => work.await,
        Some(limit) => {
            let mut work = pin!(Some(work));
            let outcome = match work.as_mut().as_pin_mut() {
                Some(work) => timeout(limit, work).await,
                None => return Err(HandlerError::retry(TimedOut(limit))),
            };
            // Dropping a handler that was cut off runs code of the application.
            let dropped = catch_unwind(AssertUnwindSafe(|| work.set(None)));
            match (outcome, dropped) {
                (Ok(outcome), _) => outcome,
                (Err(_), Ok(())) => Ok(Err(HandlerError::retry(TimedOut(limit)))),
                (Err(_), Err(panic)) => Err(panic),
            }
        }
    };
    let result = outcome.unwrap_or_else(|panic| Err(HandlerError::retry(Panicked::with(&*panic))));
    if let Err(error) = &result {
        span.fail(error.error_type(), || error.describe());
        log_exception(span, error);
    }
    result
}

/// Logs the failure of a handler within its span, as the event that the semantic conventions define
/// ([messaging exceptions](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-exceptions/)).
fn log_exception(span: &ProcessSpan, error: &HandlerError) {
    if tracing::enabled!(target: event::TARGET, tracing::Level::ERROR) {
        let _entered = span.context().clone().attach();
        tracing::error!(
            name: event::PROCESS_EXCEPTION,
            target: event::TARGET,
            { exception.r#type = error.error_type(), exception.message = error.describe() },
            "a handler failed"
        );
    }
}
