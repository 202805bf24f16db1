//! A trace backend to send spans to and ask for traces.

use super::{Kind, Server};

/// A running Jaeger with its traces in memory. Dropping it ends it, as it does every [`Server`].
pub(crate) struct Jaeger {
    server: Server,
}

impl Jaeger {
    /// Starts one on free ports, builds it first when it is missing, and waits until it takes spans and answers questions.
    ///
    /// # Panics
    /// When that fails, with the end of its log.
    pub(crate) fn start() -> Self {
        Self { server: Server::start(Kind::Jaeger) }
    }

    /// The query page, with both query APIs below it: `http://127.0.0.1:12345`.
    pub(crate) fn query_url(&self) -> String {
        self.server.url()
    }

    /// Where it takes OTLP over HTTP, to be followed by `/v1/traces`: `http://127.0.0.1:12346`.
    pub(crate) fn otlp_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port() + 1)
    }

    /// The server, for a test that kills or pauses it.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }
}
