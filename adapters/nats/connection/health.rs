//! The state of a client's connection.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_nats::connection::State;
use async_nats::{Client, Statistics};

/// The state of a client's connection. Each connection that the client makes is an epoch.
pub(crate) struct Health {
    client: Client,
    statistics: Arc<Statistics>,
}

impl Health {
    pub(crate) fn of(client: Client) -> Self {
        let statistics = client.statistics();
        Self { client, statistics }
    }

    /// Returns the number of the present or last connection.
    pub(crate) fn epoch(&self) -> u64 {
        self.statistics.connects.load(Ordering::Relaxed)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Returns `true` if the connection with this number is still open.
    pub(crate) fn is_same(&self, epoch: u64) -> bool {
        self.epoch() == epoch && self.is_connected()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (epoch, connected) = (self.epoch(), self.is_connected());
        f.debug_struct("Health").field("epoch", &epoch).field("connected", &connected).finish()
    }
}
