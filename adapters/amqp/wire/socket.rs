//! The socket below a connection, plain or encrypted.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::driver::{Tls, TlsConnector};
use crate::error::Result;

/// Bytes in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// An open socket.
pub(crate) type Socket = Box<dyn Duplex>;

/// The handshake of new connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handshake(Option<TlsConnector>);

impl Handshake {
    /// Creates a handshake of TLS if there are settings for it, or one that does nothing.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) if a file cannot be used;
    /// [`FeatureDisabled`](crate::ErrorKind::FeatureDisabled) in a build without TLS.
    pub(crate) fn new(tls: Option<&Tls>) -> Result<Self> {
        tls.map(TlsConnector::new).transpose().map(Self)
    }

    /// Makes the handshake with this host.
    ///
    /// # Errors
    /// Those of [`TlsConnector::connect`].
    pub(crate) async fn make(&self, host: &str, socket: TcpStream) -> Result<Socket> {
        Ok(match &self.0 {
            Some(tls) => Box::new(tls.connect(host, socket).await?),
            None => Box::new(socket),
        })
    }
}
