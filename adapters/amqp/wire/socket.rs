//! The socket below a connection, plain or encrypted. No other file knows if TLS is built in.

use std::error::Error as StdError;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::driver::Tls;
#[cfg(feature = "_tls")]
use crate::driver::TlsConnector;
use crate::error::{Error, Result};

/// Bytes in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// An open socket.
pub(crate) type Socket = Box<dyn Duplex>;

/// The handshake of new connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handshake {
    #[cfg(feature = "_tls")]
    tls: Option<TlsConnector>,
}

impl Handshake {
    /// Creates a handshake, one of TLS if there are settings of it.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) if a file cannot be used.
    #[cfg(feature = "_tls")]
    pub(crate) fn new(tls: Option<&Tls>) -> Result<Self> {
        Ok(Self { tls: tls.map(TlsConnector::new).transpose()? })
    }

    /// Creates a handshake without TLS.
    ///
    /// # Errors
    /// [`FeatureDisabled`](crate::ErrorKind::FeatureDisabled) if there are settings of TLS.
    #[cfg(not(feature = "_tls"))]
    pub(crate) fn new(tls: Option<&Tls>) -> Result<Self> {
        let message = "this build has no TLS: add `features = [\"tls\"]` to traced-broker in Cargo.toml";
        match tls {
            None => Ok(Self::default()),
            Some(_) => Err(Error::new(crate::ErrorKind::FeatureDisabled, message)),
        }
    }

    /// Makes the handshake with the host, if there are settings of TLS.
    ///
    /// # Errors
    /// Those of the handshake.
    pub(crate) async fn make(&self, host: &str, socket: TcpStream) -> Result<Socket> {
        #[cfg(feature = "_tls")]
        if let Some(tls) = &self.tls {
            return Ok(Box::new(tls.connect(host, socket).await?));
        }
        let _unused = host;
        Ok(Box::new(socket))
    }
}

/// Returns the error of a handshake, if it comes only after it: a certificate that the broker
/// refuses.
#[cfg(feature = "_tls")]
pub(crate) fn refused_handshake(error: &(dyn StdError + 'static)) -> Option<Error> {
    crate::driver::explain_tls(error)
}

/// Returns `None`: without TLS there is no handshake.
#[cfg(not(feature = "_tls"))]
pub(crate) fn refused_handshake(_error: &(dyn StdError + 'static)) -> Option<Error> {
    None
}

#[cfg(all(test, not(feature = "_tls")))]
mod tests {
    use super::*;

    #[test]
    fn tls_that_is_not_built_in_names_its_feature() {
        let error = Handshake::new(Some(&Tls::new())).unwrap_err();
        assert!(
            error.kind() == crate::ErrorKind::FeatureDisabled && error.to_string().contains("[\"tls\"]"),
            "{error}"
        );
    }
}
