//! The handle of one delivery.

use std::sync::{Arc, Weak};

use super::super::headers::copy::Original;
use super::super::trials::Suspect;
use super::intake::Intake;
use super::retry::RetryTarget;
use super::settle::Settler;
use crate::driver::{AttributeValue, Confirmation, DeliveryHandle, Disposition};
use crate::error::{Error, ErrorKind};
use crate::names::attribute;

/// The handle of one delivery.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) intake: Weak<Intake>,
    pub(crate) settler: Arc<Settler>,
    pub(crate) tag: u64,
    /// `true` if the message was acknowledged when it was handed out.
    pub(crate) at_most_once: bool,
    pub(crate) retry_target: Arc<RetryTarget>,
    pub(crate) original: Original,
    /// The message as one that may end the process of its handler.
    pub(crate) suspect: Option<Arc<Suspect>>,
}

impl DeliveryHandle for Handle {
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        let Self { settler, tag, at_most_once, retry_target, original, suspect, intake: _ } = *self;
        let settled = match (at_most_once, disposition) {
            (false, Disposition::Ack) => settler.ack(tag),
            (false, Disposition::Discard) => settler.discard(tag),
            (false, Disposition::GiveBack) => retry_target.give_back(&settler, tag, original),
            (false, Disposition::Retry(delay)) => return retry_target.retry(settler, tag, delay, original),
            (true, Disposition::Ack | Disposition::Discard) => Ok(()),
            (true, Disposition::Retry(_) | Disposition::GiveBack) => {
                Err(Error::new(ErrorKind::Unsupported, "an at-most-once subscription cannot retry"))
            }
        };
        let suspect = suspect.filter(|_| matches!(disposition, Disposition::Ack | Disposition::Discard));
        if let (Some(suspect), Ok(())) = (suspect, &settled) {
            suspect.settled();
        }
        Confirmation::ready(settled)
    }

    /// Keeps the count for the time at which the message is given back: it is written only then,
    /// because the copy goes to the end of the queue.
    fn failed(&self, attempts: u32) {
        self.suspect.iter().for_each(|suspect| suspect.withdraw());
        if !self.at_most_once {
            self.settler.note_failed(self.tag, attempts, &self.original);
        }
    }

    fn begin_trial(&self) -> Confirmation<()> {
        self.suspect.as_ref().map_or_else(|| Confirmation::ready(Ok(())), |suspect| suspect.begin())
    }

    fn set_aside(&self) -> bool {
        !self.at_most_once && self.intake.upgrade().is_some_and(|intake| intake.set_aside(self.tag))
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        visit(attribute::RABBITMQ_DELIVERY_TAG, self.tag.cast_signed().into());
        let routing_key = self.original.routing_key.as_str();
        if !routing_key.is_empty() {
            visit(attribute::RABBITMQ_ROUTING_KEY, routing_key.into());
        }
    }
}
