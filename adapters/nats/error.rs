//! Maps errors of the client and the server to those of the library.

use std::fmt;

use async_nats::{ConnectError, ConnectErrorKind, PublishError, PublishErrorKind, SubscribeError};
use serde::Deserialize;
use serde_json::Value;

use crate::driver::explain_tls;
use crate::error::{Error, ErrorKind};

/// Maps a failure to connect; `hosts` are the servers that were tried, without credentials.
pub(super) fn connect(error: ConnectError, hosts: &str) -> Error {
    if let Some(explained) = explain_tls(&error) {
        return explained.with_context("server", hosts);
    }
    let (kind, message) = match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            (ErrorKind::Unauthenticated, "the server refused the credentials: check user, password, token or key")
        }
        ConnectErrorKind::ServerParse => (ErrorKind::InvalidConfig, "the address of the server is not valid"),
        ConnectErrorKind::Dns => {
            (ErrorKind::Unavailable, "the name of the server cannot be resolved: check the host in the URL")
        }
        ConnectErrorKind::Tls => {
            (ErrorKind::Unavailable, "the TLS connection failed: check the certificates and the option tls")
        }
        ConnectErrorKind::TimedOut | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => (
            ErrorKind::Unavailable,
            "the server cannot be reached: check that it runs, and host, port and tls in the URL",
        ),
    };
    Error::new(kind, message).with_context("server", hosts).with_source(error)
}

/// Maps a failure to put a publish into the client's queue: it was certainly not sent.
pub(super) fn enqueue(error: PublishError) -> Error {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => {
            Error::new(ErrorKind::TooLarge, "the message is larger than the server accepts").with_source(error)
        }
        PublishErrorKind::InvalidSubject => {
            Error::new(ErrorKind::InvalidConfig, "the subject is not valid").with_source(error)
        }
        PublishErrorKind::Send => ended().with_source(error),
    }
}

pub(super) fn subscribe(error: SubscribeError) -> Error {
    Error::new(ErrorKind::Unavailable, "the client refused the subscription").with_source(error)
}

/// Returns the error for a client that has given up its connection for good.
pub(super) fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the client has ended: connect again")
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the broker is closed")
}

/// Returns the error while the connection is down: the message was not sent.
pub(super) fn disconnected() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to the server is lost and being restored")
}

/// Returns the error for a delivery whose connection or consumer is gone.
pub(super) fn settlement_lost() -> Error {
    Error::new(
        ErrorKind::SettlementLost,
        "the connection this delivery came from is gone: the server redelivers the message",
    )
}

/// The server's refusal of a request or publish.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    /// The class of the failure, similar to an HTTP status.
    #[serde(default)]
    code: u16,
    /// The exact failure; the server keeps these numbers stable.
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Refusal {
    /// Reads the refusal from an answer of the API.
    pub(super) fn read(error: &Value) -> Self {
        let number = |field: &str| error[field].as_u64().unwrap_or_default();
        Self {
            code: u16::try_from(number("code")).unwrap_or_default(),
            err_code: number("err_code"),
            description: error["description"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal.err_code {
            10_014 | 10_037 | 10_059 => ErrorKind::NotFound,
            10_013 | 10_058 | 10_065 | 10_071 | 10_093 | 10_099 | 10_100 | 10_105 | 10_148 | 10_164 | 10_166
            | 10_188 | 10_204 => ErrorKind::Conflict,
            10_054 | 10_097 => ErrorKind::TooLarge,
            10_002 | 10_023 | 10_026 | 10_027 | 10_028 | 10_047 | 10_077 | 10_122 | 10_167 => ErrorKind::Busy,
            10_035 | 10_039 | 10_076 => ErrorKind::Unsupported,
            10_004..=10_009 | 10_118 | 10_119 => ErrorKind::Unavailable,
            _ => match refusal.code {
                403 => ErrorKind::PermissionDenied,
                404 => ErrorKind::NotFound,
                503 => ErrorKind::Unavailable,
                _ => ErrorKind::Rejected,
            },
        };
        Error::new(kind, "the server refused").with_context("code", refusal.err_code).with_source(refusal)
    }
}

/// Returns the error for an answer that does not follow the server's protocol.
pub(super) fn unreadable<E: std::error::Error + Send + Sync + 'static>(error: E) -> Error {
    Error::new(ErrorKind::Unexpected, "the server's answer cannot be read").with_source(error)
}
