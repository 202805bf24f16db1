//! A foreign producer, which writes messages below the telemetry, with arbitrary headers.

use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

use super::case_context::CaseContext;
use super::failure::{Checked, check, check_eq};
use crate::driver::capability::HeaderValues;
use crate::driver::{Driver, DriverExt, Outbound};
use crate::error::{ErrorKind, PublishOutcome};
use crate::message::Topic;

/// A valid `traceparent`, of a span that is never exported.
pub(super) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Returns the context that [`TRACEPARENT`] encodes.
pub(super) fn context() -> SpanContext {
    let (trace, span) = (TraceId::from(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736), SpanId::from(0x00f0_67aa_0ba9_02b7));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default())
}

/// Creates the remote context of a sender.
pub(super) fn remote(trace: u128, span: u64, flags: TraceFlags) -> Context {
    let context = SpanContext::new(TraceId::from(trace), SpanId::from(span), flags, true, TraceState::default());
    Context::new().with_remote_span_context(context)
}

/// A foreign producer on the topic of the case.
pub(super) struct Foreign {
    driver: Arc<dyn Driver>,
    topic: Topic,
}

impl Foreign {
    pub(super) async fn on(case: &CaseContext, driver: Arc<dyn Driver>) -> Checked<Self> {
        let topic = Topic::new(&case.topic)?;
        driver.declare(&topic).await?;
        Ok(Self { driver, topic })
    }

    /// Publishes a message with these headers. Returns `false` if the broker refuses them, which it
    /// may do for values that are not plain text.
    pub(super) async fn publish(&self, payload: &str, pairs: &[(&str, &[u8])]) -> Checked<bool> {
        let message = Outbound {
            payload: Some(payload.to_owned().into()),
            key: Some("one".into()),
            headers: pairs.iter().copied().collect(),
            ..Outbound::default()
        };
        let Err(error) = self.driver.enqueue(&self.topic, message).await else { return Ok(true) };
        let plain = pairs.iter().all(|(_, value)| is_plain_text(value));
        let text_only = self.driver.capabilities().header_values == HeaderValues::Text;
        check!(!plain || text_only, "plain headers such as those of {payload} are taken: {error}");
        check!(matches!(error.kind(), ErrorKind::InvalidMessage | ErrorKind::TooLarge), "the kind of {error}");
        check_eq!(error.publish_outcome(), PublishOutcome::NotSent, "the outcome of {payload}");
        Ok(false)
    }
}

fn is_plain_text(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| !text.chars().any(char::is_control))
}
