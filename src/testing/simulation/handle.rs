//! The handle of a delivery over the simulated network.

use std::sync::Arc;

use super::session::{Session, settlement_lost};
use crate::driver::{AttributeValue, Confirmation, DeliveryHandle, Disposition};

/// Settles a delivery over the connection it came from.
#[derive(Debug)]
pub(super) struct Handle {
    session: Arc<Session>,
    /// The handle at the broker; `None` once it is settled.
    inner: Option<Box<dyn DeliveryHandle>>,
}

impl Handle {
    pub(super) fn new(session: Arc<Session>, inner: Box<dyn DeliveryHandle>) -> Self {
        Self { session, inner: Some(inner) }
    }
}

impl DeliveryHandle for Handle {
    fn settle(mut self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        match self.inner.take() {
            Some(inner) if !self.session.is_lost() => self.session.settle(inner, disposition),
            _ => Confirmation::ready(Err(settlement_lost())),
        }
    }

    fn failed(&self, attempts: u32) {
        self.inner.iter().for_each(|inner| inner.failed(attempts));
    }

    fn begin_trial(&self) -> Confirmation<()> {
        self.inner.as_ref().map_or_else(|| Confirmation::ready(Ok(())), |inner| inner.begin_trial())
    }

    fn set_aside(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.set_aside())
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        self.inner.iter().for_each(|inner| inner.attributes(visit));
    }
}

impl Drop for Handle {
    /// Brings a message back that was dropped unsettled, at once.
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take()
            && !self.session.is_lost()
        {
            drop(self.session.settle(inner, Disposition::GiveBack));
        }
    }
}
