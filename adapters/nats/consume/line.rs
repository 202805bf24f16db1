//! The connections over which a session reads and settles.

use async_nats::{Client, Subject};

use super::super::connection::health::Health;
use super::super::connection::link::Link;

/// The pair of connections for which a session is known to be good: after the loss of either one,
/// the server may be another, or may have forgotten.
pub(crate) struct Line {
    pub(crate) client: Client,
    health: Health,
    epoch: u64,
    settling: u64,
    /// The subject to which the messages come. Each line has its own, so that messages still on
    /// their way to an earlier one are not counted in this one.
    pub(crate) inbox: Subject,
}

impl Line {
    pub(crate) fn new(client: Client, link: &Link) -> Self {
        let health = Health::of(client.clone());
        let (epoch, settling, inbox) = (health.epoch(), link.health().epoch(), client.new_inbox().into());
        Self { client, health, epoch, settling, inbox }
    }

    /// Returns the client and the subject to which messages are requested.
    pub(crate) fn ends(&self) -> (Client, Subject) {
        (self.client.clone(), self.inbox.clone())
    }

    /// Returns `true` if messages still come over this line.
    pub(crate) fn reads(&self) -> bool {
        self.health.is_same(self.epoch)
    }

    /// Returns `true` if deliveries can be settled as they came.
    pub(crate) fn settles(&self, link: &Link) -> bool {
        self.reads() && link.health().is_same(self.settling)
    }

    /// Returns `true` if only the connection for reading was lost: a message on it may be one that
    /// the client cannot read. One client for both always is suspected.
    pub(crate) fn is_lost_alone(&self, link: &Link, is_shared: bool) -> bool {
        !self.reads() && (is_shared || link.health().epoch() == self.settling)
    }
}
