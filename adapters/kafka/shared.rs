//! The parts of a connection.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rdkafka::ClientConfig;

use super::config::{INSTANCE_ID, KafkaBuilder};
use super::consume::control::Control;
use super::publish::Publisher;
use crate::driver::Destination;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Subscription;

/// The state that all calls on a connection share.
pub(super) struct Shared {
    pub(super) settings: KafkaBuilder,
    /// The resulting client configuration, for further clients of the application.
    pub(super) client: ClientConfig,
    pub(super) publisher: Publisher,
    /// The destination of every topic, once the cluster is known.
    pub(super) destination: OnceLock<Destination>,
    pub(super) subscriptions: Mutex<Vec<Arc<Control>>>,
    pub(super) closed: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the configuration, whose values may be secrets.
        let mut shown = f.debug_struct("Shared");
        shown.field("settings", &self.settings).field("publisher", &self.publisher);
        shown.field("subscriptions", &self.subscriptions).field("closed", &self.closed).finish_non_exhaustive()
    }
}

impl Shared {
    /// Refuses a second member with the same `group.instance.id`: the broker would take it for the
    /// first one and expel that.
    pub(super) fn check_instance(&self, subscription: &Subscription) -> Result<()> {
        let Some(group) = subscription.group_name() else { return Ok(()) };
        let is_other = |control: &Arc<Control>| !control.is_ending() && control.group() == Some(group);
        if self.client.get(INSTANCE_ID).is_some() && self.subscriptions.lock().iter().any(is_other) {
            let message = "this connection has a member of the group already, and both would have the same \
                           group.instance.id; use a connection for each";
            return Err(Error::new(ErrorKind::Conflict, message).with_context("group", group));
        }
        Ok(())
    }

    pub(super) fn destination(&self) -> Destination {
        self.destination.get().cloned().unwrap_or_default()
    }
}
