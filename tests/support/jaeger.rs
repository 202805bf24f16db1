//! A trace backend that receives spans and answers queries.

use super::{Kind, Server};

/// A running Jaeger with its traces in memory. Dropping it ends it, as with every [`Server`].
pub(crate) struct Jaeger {
    server: Server,
}

impl Jaeger {
    /// Starts a Jaeger on free ports, after building it if it is missing, and waits until it
    /// accepts spans and answers queries.
    ///
    /// # Panics
    /// If that fails, with the end of its log.
    pub(crate) fn start() -> Self {
        Self { server: Server::start(Kind::Jaeger) }
    }

    /// Returns the address of the query page, which is also the base of both query APIs:
    /// `http://127.0.0.1:12345`.
    pub(crate) fn query_url(&self) -> String {
        self.server.url()
    }

    /// Returns the OTLP/HTTP endpoint, without `/v1/traces`: `http://127.0.0.1:12346`.
    pub(crate) fn otlp_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port() + 1)
    }

    /// Returns the server, for a test that kills or pauses it.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }
}
