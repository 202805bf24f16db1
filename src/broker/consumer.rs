//! The state that the deliveries of one subscription share.

use std::sync::Arc;

use opentelemetry::trace::TraceContextExt;

use super::dead_letter::DeadLetters;
use super::discarded::Discarded;
use super::held::Held;
use super::replay::ReplayMark;
use super::verdicts::Verdicts;
use super::waiting::Waiting;
use crate::context::propagation::{Origin, Reception};
use crate::driver::{Capabilities, Inbound};
use crate::error::Error;
use crate::message::{Guarantee, Topic};
use crate::telemetry::SubscriptionTelemetry;

/// The state that the deliveries of one subscription share.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) system: &'static str,
    pub(crate) topic: Topic,
    pub(crate) telemetry: Arc<SubscriptionTelemetry>,
    pub(crate) reception: Reception,
    pub(crate) replayed: ReplayMark,
    pub(crate) guarantee: Guarantee,
    pub(crate) capabilities: Capabilities,
    pub(crate) dead_letters: Option<DeadLetters>,
    pub(crate) discarded: Discarded,
    pub(crate) held: Held,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) verdicts: Verdicts,
}

impl Consumer {
    /// Reads the context that a message carries and decides how its process span relates to it.
    pub(crate) fn receive(&self, inbound: &Inbound) -> Origin {
        let extracted = self.telemetry.telemetry.settings.propagation.extract(&inbound.headers);
        extracted.rejections(|header, reason, count| self.telemetry.reject(header, reason, count));
        if inbound.unreadable_headers > 0 {
            self.telemetry.reject("other", "unreadable", inbound.unreadable_headers as usize);
        }
        let is_replayed = self.replayed.covers(inbound.timestamp.map(|stored| stored.time));
        let (context, dialect) = if extracted.context.span().span_context().is_valid() {
            (extracted.context, None)
        } else {
            match self.reception.translate(&inbound.headers, inbound.payload.as_deref()) {
                Some((context, dialect)) => (context, Some(dialect)),
                None => (extracted.context, None),
            }
        };
        let mut origin = self.reception.receive(context, dialect, &inbound.headers, is_replayed);
        if origin.is_withheld {
            origin.fields = Some(self.telemetry.telemetry.settings.propagation.fields().clone());
        }
        origin
    }

    /// Adds the system, the operation and the topic to an error.
    pub(crate) fn annotate(&self, error: Error, operation: &'static str) -> Error {
        error.with_system(self.system).with_operation(operation).with_context("topic", &self.topic)
    }
}
