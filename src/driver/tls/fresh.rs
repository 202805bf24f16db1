//! Authorities and certificates that are read anew at each handshake.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    self, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme,
};

use super::Tls;
use crate::error::{Error, ErrorKind, Result};

/// The files of the settings, as a handshake asks for them.
pub(super) struct Fresh {
    tls: Tls,
    /// The name to expect in place of the host's.
    pub(super) name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Fresh {
    /// Reads everything once, so that what is wrong is an error of the caller.
    pub(super) fn new(tls: Tls, provider: Arc<CryptoProvider>) -> Result<Self> {
        let name = tls.server_name.clone().map(ServerName::try_from).transpose().map_err(|error| {
            let message = "the option tls_server_name is a host name or an IP address";
            Error::new(ErrorKind::InvalidConfig, message).with_source(error)
        })?;
        let fresh = Self { tls, name, provider };
        fresh.verifier()?;
        fresh.identity()?;
        Ok(fresh)
    }

    /// Returns the verifier of the broker's certificate.
    fn verifier(&self) -> Result<Arc<WebPkiServerVerifier>> {
        let roots = match &self.tls.authorities {
            Some(pem) => Arc::new(parse(&pem.read("tls_ca")?).map_err(|message| pem.refused(message, "tls_ca"))?),
            None => system_roots()?,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider)).build();
        verifier.map_err(|error| invalid("the certificate authorities cannot be used").with_source(error))
    }

    /// Returns the certificate to present, with its key.
    fn identity(&self) -> Result<Option<Arc<CertifiedKey>>> {
        let Some((chain_pem, key_pem)) = &self.tls.identity else { return Ok(None) };
        let (chain, key) = (chain_pem.read("tls_cert")?, key_pem.read("tls_key")?);
        let parsed: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
        let chain = parsed.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| chain_pem.refused("no certificate is in the PEM text", "tls_cert"))?;
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|error| key_pem.refused("no private key is in the PEM text", "tls_key").with_source(error))?;
        let pair = CertifiedKey::from_der(chain, key, &self.provider)
            .map_err(|error| key_pem.refused("the key does not belong to tls_cert", "tls_key").with_source(error))?;
        Ok(Some(Arc::new(pair)))
    }
}

/// Returns the certificates in a PEM text, at least one.
fn parse(text: &[u8]) -> std::result::Result<RootCertStore, &'static str> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|_| "the PEM text is damaged")?;
        roots.add(certificate).map_err(|_| "the PEM text has a certificate that is not one of an authority")?;
    }
    if roots.is_empty() { Err("no certificate is in the PEM text") } else { Ok(roots) }
}

/// Returns the authorities of the system, read once: there are more than a hundred.
fn system_roots() -> Result<Arc<RootCertStore>> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let mut roots = RootCertStore::empty();
    let mut found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let error = invalid("the system has no certificate authorities: install them, or name a file with tls_ca");
        return Err(match found.errors.pop() {
            Some(source) => error.with_source(source),
            None => error,
        });
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

impl ServerCertVerifier for Fresh {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let verifier = self.verifier().map_err(|error| rustls::Error::Other(OtherError(Arc::new(error))))?;
        let name = self.name.as_ref().unwrap_or(server_name);
        verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let supported = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, supported)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let supported = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, supported)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

impl ResolvesClientCert for Fresh {
    fn resolve(&self, _root_hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let identity = self.identity().unwrap_or_else(|error| {
            tracing::warn!(%error, "the certificate to present cannot be used, so none is presented");
            None
        });
        identity.filter(|identity| identity.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        self.tls.identity.is_some()
    }
}

impl fmt::Debug for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tls.fmt(f)
    }
}
