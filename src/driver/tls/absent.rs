//! A stand-in for TLS in a build without it: a connector that cannot be made.

use std::error::Error as StdError;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Tls;
use crate::error::{Error, ErrorKind, Result};

/// A stream that is encrypted.
pub type TlsStream<S> = S;

/// Makes encrypted streams out of others. This build has no TLS, so there is none.
#[derive(Clone, Debug)]
pub enum TlsConnector {}

impl TlsConnector {
    /// Fails: this build has no TLS.
    ///
    /// # Errors
    /// [`ErrorKind::FeatureDisabled`].
    pub fn new(_tls: &Tls) -> Result<Self> {
        let message = "this build has no TLS: add `features = [\"tls\"]` to traced-broker in Cargo.toml";
        Err(Error::new(ErrorKind::FeatureDisabled, message))
    }

    /// Makes the handshake with a host over a stream to it.
    ///
    /// # Errors
    /// None: there is no connector to call it on.
    pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        _host: &str,
        _stream: S,
    ) -> io::Result<TlsStream<S>> {
        match *self {}
    }

    /// Makes the handshake, and explains its failure.
    ///
    /// # Errors
    /// None: there is no connector to call it on.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, _host: &str, _stream: S) -> Result<TlsStream<S>> {
        match *self {}
    }
}

/// Returns `None`: no error is of TLS in a build without it.
pub fn explain_tls(_error: &(dyn StdError + 'static)) -> Option<Error> {
    None
}
