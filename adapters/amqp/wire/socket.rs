//! The socket below a connection, plain or encrypted. No other file knows if TLS is built in.

use std::error::Error as StdError;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::super::error::{During, client_error};
use crate::driver::Tls;
#[cfg(feature = "_tls")]
use crate::driver::TlsConnector;
use crate::error::{Error, Result};

/// Bytes in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// An open socket.
pub(crate) type Socket = Box<dyn Duplex>;

/// Opens sockets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dialer {
    #[cfg(feature = "_tls")]
    tls: Option<TlsConnector>,
}

impl Dialer {
    /// Creates a dialer; its sockets are encrypted if there are settings of TLS.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) if a file cannot be used.
    #[cfg(feature = "_tls")]
    pub(crate) fn new(tls: Option<&Tls>) -> Result<Self> {
        Ok(Self { tls: tls.map(TlsConnector::new).transpose()? })
    }

    /// Creates a dialer without TLS.
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

    /// Opens a socket to the host, and makes the handshake of TLS with it.
    ///
    /// # Errors
    /// Those of [`client_error`] and of the handshake.
    pub(crate) async fn dial(&self, host: &str, port: u16) -> Result<Socket> {
        let socket = connect(host, port).await.map_err(|error| client_error(error.into(), During::Connect))?;
        #[cfg(feature = "_tls")]
        if let Some(tls) = &self.tls {
            return Ok(Box::new(tls.connect(host, socket).await?));
        }
        Ok(Box::new(socket))
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(socket) => return socket.set_nodelay(true).map(|()| socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
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
        let error = Dialer::new(Some(&Tls::new())).unwrap_err();
        assert!(
            error.kind() == crate::ErrorKind::FeatureDisabled && error.to_string().contains("[\"tls\"]"),
            "{error}"
        );
    }
}
