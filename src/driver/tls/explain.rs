//! The words for handshakes that fail.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError};

use crate::error::{Error, ErrorKind};

/// Returns the error of a handshake if this error, or one that it comes from, is of TLS. A client
/// certificate may be refused after the handshake, at the first read.
///
/// [`Unauthenticated`](ErrorKind::Unauthenticated) if one side does not prove to be what the other
/// expects; [`Unavailable`](ErrorKind::Unavailable) otherwise, for example if the other side does
/// not speak TLS.
pub fn explain_tls(error: &(dyn StdError + 'static)) -> Option<Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<TlsError>() {
            return Some(explained(error));
        }
        next = below(error);
    }
    None
}

/// Returns the error within this one. The source of an I/O error is that of the error within, and
/// so is that of an error that is shared, as clients do.
fn below<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.get_ref().map(|within| within as _);
    }
    if let Some(shared) = error.downcast_ref::<Arc<io::Error>>() {
        return Some(&**shared);
    }
    if let Some(shared) = error.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
        return Some(&**shared);
    }
    error.source()
}

fn explained(error: &TlsError) -> Error {
    let unauthenticated = |message: &'static str| Error::new(ErrorKind::Unauthenticated, message);
    match error {
        TlsError::InvalidCertificate(reason) => unauthenticated(of_certificate(reason)).with_source(error.clone()),
        TlsError::AlertReceived(alert) if is_about_identity(*alert) => unauthenticated(
            "the broker refuses the handshake: it wants a client certificate of an authority that it trusts, \
             see tls_cert and tls_key",
        )
        .with_source(error.clone()),
        TlsError::Other(other) => match other.0.downcast_ref::<Error>() {
            Some(file) => {
                Error::new(ErrorKind::Unavailable, "a file for TLS cannot be used").with_context("reason", file)
            }
            None => failed(error),
        },
        TlsError::InvalidMessage(_) => {
            let message = "the port does not speak TLS: check the port, or the scheme of the URL";
            Error::new(ErrorKind::Unavailable, message).with_source(error.clone())
        }
        _ => failed(error),
    }
}

fn failed(error: &TlsError) -> Error {
    Error::new(ErrorKind::Unavailable, "the handshake of TLS failed").with_source(error.clone())
}

fn of_certificate(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::UnknownIssuer => {
            "the certificate of the broker is of no authority that is trusted: name its file with tls_ca"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate of the broker is for another host: use its name in the URL, or tls_server_name"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate of the broker has expired: renew it, or check the clock of this machine"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate of the broker is not valid yet: check the clock of this machine"
        }
        _ => "the certificate of the broker is not valid",
    }
}

/// Returns `true` if the other side misses a certificate, or does not accept the one it got.
/// Servers with TLS 1.2 only say that the handshake failed.
fn is_about_identity(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure
    )
}
