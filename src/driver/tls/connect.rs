//! The handshake over an open stream.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::ServerName;

use super::explain::explain_tls;
use super::fresh::Fresh;
use super::{Tls, default_provider};
use crate::error::{Error, ErrorKind, Result};

/// A stream that is encrypted.
pub type TlsStream<S> = tokio_rustls::client::TlsStream<S>;

/// Makes encrypted streams out of others.
#[derive(Clone, Debug)]
pub struct TlsConnector {
    config: Arc<ClientConfig>,
    /// The name to ask for in place of the host's.
    name: Option<ServerName<'static>>,
}

impl TlsConnector {
    /// Reads the settings. Each handshake reads the files again.
    ///
    /// The cryptography is that of the process, if
    /// [one is installed](https://docs.rs/rustls/latest/rustls/crypto/struct.CryptoProvider.html#method.install_default),
    /// or else that of the feature `tls-aws-lc-rs`, or else `ring`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if a file cannot be read, or is not what it should be.
    pub fn new(tls: &Tls) -> Result<Self> {
        let provider = provider();
        let fresh = Arc::new(Fresh::new(tls.clone(), Arc::clone(&provider))?);
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| {
            Error::new(ErrorKind::InvalidConfig, "the provider of cryptography has no version of TLS")
                .with_source(error)
        })?;
        let name = fresh.name.clone();
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::clone(&fresh) as _);
        let mut config = builder.with_client_cert_resolver(fresh);
        // A session that is resumed is one of the former certificates.
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), name })
    }

    /// Returns the settings for clients that make the handshake on their own. They check the name
    /// that is expected, but ask for that of the host.
    pub fn config(&self) -> ClientConfig {
        (*self.config).clone()
    }

    /// Makes the handshake with a host over a stream to it.
    ///
    /// # Errors
    /// Those of the stream, and those that [`explain_tls`] knows.
    pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        tokio_rustls::TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }

    /// Makes the handshake, and explains its failure.
    ///
    /// # Errors
    /// Those of [`explain_tls`]; [`ErrorKind::Unavailable`] if the connection ends meanwhile.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, host: &str, stream: S) -> Result<TlsStream<S>> {
        self.handshake(host, stream).await.map_err(|error| match explain_tls(&error) {
            Some(explained) => explained,
            None => {
                let message = "the connection ended in the handshake of TLS: the port may not be one for TLS";
                Error::new(ErrorKind::Unavailable, message).with_source(error)
            }
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(default_provider()))
}
