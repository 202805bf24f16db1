//! The client's connection, for applications.

use std::sync::Arc;

use super::Live;

/// A handle to the client's connection, a [`lapin::Connection`]. It keeps the connection open until
/// the driver is closed or the connection is lost.
#[derive(Debug)]
pub struct Client(Arc<Live>);

impl Client {
    pub(in super::super) fn new(live: Arc<Live>) -> Self {
        Self(live)
    }
}

impl std::ops::Deref for Client {
    type Target = lapin::Connection;

    fn deref(&self) -> &lapin::Connection {
        &self.0.connection
    }
}
