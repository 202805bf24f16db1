//! Connections that are encrypted, and whose ends know each other.

#[cfg(not(feature = "_tls"))]
mod absent;
#[cfg(feature = "_tls")]
mod connect;
#[cfg(feature = "_tls")]
mod explain;
#[cfg(feature = "_tls")]
mod fresh;
mod pem;
mod plaintext;

use std::path::Path;

use self::pem::Pem;
use super::broker_url::UrlOptions;
use crate::error::{Error, ErrorKind, Result};

#[cfg(not(feature = "_tls"))]
pub use absent::{TlsConnector, TlsStream, explain_tls};
#[cfg(feature = "_tls")]
pub use connect::{TlsConnector, TlsStream};
#[cfg(feature = "_tls")]
pub use explain::explain_tls;
pub use plaintext::Plaintext;
#[cfg(feature = "tls-aws-lc-rs")]
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
#[cfg(all(feature = "_tls", not(feature = "tls-aws-lc-rs")))]
use tokio_rustls::rustls::crypto::ring::default_provider;

/// The settings of TLS, the same for every broker: the authorities to trust, the certificate to
/// present, and the name that the certificate of the broker has to be for.
///
/// By default the authorities are the system's, no certificate is presented, and the name is the
/// host of the URL. Files are read anew at each connect, so that they can be replaced while the
/// program runs. Nothing switches the checks off.
///
/// | option of a URL | setter |
/// |---|---|
/// | `tls_ca` | [`authorities_file`](Self::authorities_file) |
/// | `tls_cert`, `tls_key` | [`identity_files`](Self::identity_files) |
/// | `tls_server_name` | [`server_name`](Self::server_name) |
///
/// ```
/// use traced_broker::Tls;
///
/// let tls = Tls::new()
///     .authorities_file("/etc/mq/ca.pem")
///     .identity_files("/etc/mq/app.pem", "/etc/mq/app.key")
///     .server_name("mq.internal");
/// assert!(format!("{tls:?}").contains("/etc/mq/app.key"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    authorities: Option<Pem>,
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
}

impl Tls {
    /// Creates settings that trust the authorities of the system.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities whose certificates are in this PEM file, and no others.
    pub fn authorities_file(self, path: impl AsRef<Path>) -> Self {
        Self { authorities: Some(Pem::file(path)), ..self }
    }

    /// Trusts the authorities with these certificates in PEM, and no others.
    pub fn authorities_pem(self, text: impl Into<Vec<u8>>) -> Self {
        Self { authorities: Some(Pem::text(text)), ..self }
    }

    /// Presents the certificate of the first PEM file, followed by those of its authorities, with
    /// the private key of the second. Both may be in one file.
    pub fn identity_files(self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        Self { identity: Some((Pem::file(certificate), Pem::file(key))), ..self }
    }

    /// Presents this certificate, followed by those of its authorities, with this private key, both
    /// in PEM.
    pub fn identity_pem(self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self { identity: Some((Pem::text(certificate), Pem::text(key))), ..self }
    }

    /// Expects a certificate for this host name or IP address in place of the host of the URL.
    pub fn server_name(self, name: impl Into<String>) -> Self {
        Self { server_name: Some(name.into()), ..self }
    }

    /// Takes the options of TLS from a URL. Returns `None` if there are none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if only one of `tls_cert` and `tls_key` is there.
    pub fn take(options: &mut UrlOptions) -> Result<Option<Self>> {
        let authorities = options.take::<String>("tls_ca")?;
        let certificate = options.take::<String>("tls_cert")?;
        let key = options.take::<String>("tls_key")?;
        let server_name = options.take::<String>("tls_server_name")?;
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((Pem::file(certificate), Pem::file(key))),
            (None, None) => None,
            _ => return Err(invalid("the options tls_cert and tls_key belong together")),
        };
        let tls = Self { authorities: authorities.map(Pem::file), identity, server_name };
        Ok((tls != Self::default()).then_some(tls))
    }

    /// Takes the options of TLS from a URL whose scheme says if there is TLS.
    ///
    /// # Errors
    /// As [`take`](Self::take), and [`ErrorKind::InvalidConfig`] if there are options without TLS:
    /// a connection that is not what they ask for is never made.
    pub fn of_scheme(is_tls: bool, options: &mut UrlOptions) -> Result<Option<Self>> {
        match (Self::take(options)?, is_tls) {
            (Some(_), false) => Err(invalid("the options tls_… need the scheme with TLS, such as amqps://")),
            (tls, true) => Ok(Some(tls.unwrap_or_default())),
            (None, false) => Ok(None),
        }
    }

    /// Returns the certificates of the authorities in PEM as they are now, or `None` for the
    /// system's.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the file cannot be read; it is named.
    pub fn read_authorities(&self) -> Result<Option<Vec<u8>>> {
        self.authorities.as_ref().map(|pem| pem.read("tls_ca")).transpose()
    }

    /// Returns the file of the authorities, for clients that read it themselves.
    pub fn authorities_path(&self) -> Option<&Path> {
        self.authorities.as_ref()?.path()
    }

    /// Returns the files of the certificate and of the private key, for clients that read them
    /// themselves.
    pub fn identity_paths(&self) -> Option<(&Path, &Path)> {
        let (certificate, key) = self.identity.as_ref()?;
        certificate.path().zip(key.path())
    }

    /// Returns the certificates and the private key to present in PEM as they are now, if there are
    /// any.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if a file cannot be read; it is named.
    pub fn read_identity(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let read = |(certificate, key): &(Pem, Pem)| Ok((certificate.read("tls_cert")?, key.read("tls_key")?));
        self.identity.as_ref().map(read).transpose()
    }

    /// Returns the name that the certificate of the broker has to be for, if it is not the host's.
    pub fn expected_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::BrokerUrl;

    fn of(url: &str, is_tls: bool) -> Result<Option<Tls>> {
        Tls::of_scheme(is_tls, &mut BrokerUrl::parse(url).unwrap().options())
    }

    #[test]
    fn options_are_those_of_the_builder() {
        let url = "amqps://mq?tls_ca=/ca.pem&tls_cert=/app.pem&tls_key=/app.key&tls_server_name=n";
        let built = Tls::new().authorities_file("/ca.pem").identity_files("/app.pem", "/app.key").server_name("n");
        assert_eq!(of(url, true).unwrap(), Some(built));
        assert_eq!(of("amqps://mq", true).unwrap(), Some(Tls::new()));
        assert_eq!(of("amqp://mq", false).unwrap(), None);
    }

    #[test]
    fn options_that_cannot_apply_are_refused() {
        for (url, is_tls) in [("amqp://mq?tls_ca=/ca.pem", false), ("amqps://mq?tls_cert=/app.pem", true)] {
            assert_eq!(of(url, is_tls).unwrap_err().kind(), ErrorKind::InvalidConfig);
        }
    }

    #[test]
    fn files_that_cannot_be_read_are_named_with_their_option() {
        let tls = Tls::new().authorities_file("/no/ca.pem").identity_files("/no/app.pem", "/no/app.key");
        let error = tls.read_authorities().unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidConfig && error.to_string().contains("/no/ca.pem"), "{error}");
        let error = tls.read_identity().unwrap_err().to_string();
        assert!(error.contains("tls_cert") && error.contains("/no/app.pem"), "{error}");
    }

    #[test]
    fn keys_are_not_printed() {
        let tls = Tls::new().identity_pem("certificate", "s3cret");
        assert!(!format!("{tls:?}").contains("s3cret"));
    }
}
