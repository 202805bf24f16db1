//! The handle of one delivery.

use std::sync::Arc;

use super::super::headers::copy::Original;
use super::retry::RetryTarget;
use super::settle::Settler;
use crate::driver::{AttributeValue, Confirmation, DeliveryHandle, Disposition};
use crate::error::{Error, ErrorKind};
use crate::names::attribute;

/// The handle of one delivery.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) settler: Arc<Settler>,
    pub(crate) tag: u64,
    /// `true` if the message was acknowledged when it was handed out.
    pub(crate) at_most_once: bool,
    pub(crate) retry_target: Arc<RetryTarget>,
    pub(crate) original: Original,
}

impl DeliveryHandle for Handle {
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        let result = match (self.at_most_once, disposition) {
            (false, Disposition::Retry(delay)) if !delay.is_zero() => {
                return self.retry_target.retry(self.settler, self.tag, delay, self.original);
            }
            (false, disposition) => self.settler.settle(self.tag, disposition),
            (true, Disposition::Retry(_) | Disposition::GiveBack) => {
                Err(Error::new(ErrorKind::Unsupported, "an at-most-once subscription cannot retry"))
            }
            (true, _) => Ok(()),
        };
        Confirmation::ready(result)
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        visit(attribute::RABBITMQ_DELIVERY_TAG, self.tag.cast_signed().into());
        let routing_key = self.original.routing_key.as_str();
        if !routing_key.is_empty() {
            visit(attribute::RABBITMQ_ROUTING_KEY, routing_key.into());
        }
    }
}
