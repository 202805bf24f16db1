//! Maps the client's errors to kinds.

use std::io;

use lapin::{Error as ClientError, ErrorKind as ClientErrorKind};

use crate::driver::explain_tls;
use crate::error::{Error, ErrorKind};

/// The reply codes of AMQP 0-9-1, section 1.2 "AMQP-defined constants".
mod code {
    pub(super) const CONTENT_TOO_LARGE: u16 = 311;
    pub(super) const CONNECTION_FORCED: u16 = 320;
    pub(super) const INVALID_PATH: u16 = 402;
    pub(super) const ACCESS_REFUSED: u16 = 403;
    pub(super) const NOT_FOUND: u16 = 404;
    pub(super) const RESOURCE_LOCKED: u16 = 405;
    pub(super) const PRECONDITION_FAILED: u16 = 406;
    pub(super) const RESOURCE_ERROR: u16 = 506;
    pub(super) const NOT_ALLOWED: u16 = 530;
}

/// The operation during which the client reported an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum During {
    Connect,
    Declare,
    Publish,
    Consume,
}

/// Creates an error with the client's error as its source.
pub(super) fn client_error(error: ClientError, during: During) -> Error {
    // With TLS 1.3 the first read tells of a client certificate that the broker refuses.
    if let (During::Connect, Some(refused)) = (during, explain_tls(&error)) {
        return refused;
    }
    let (kind, message) = match error.kind() {
        ClientErrorKind::ProtocolError(refusal) => refused(refusal.get_id(), refusal.get_message().as_str(), during),
        ClientErrorKind::IOError(cause) => (ErrorKind::Unavailable, io_message(cause, during)),
        ClientErrorKind::InvalidChannel(_)
        | ClientErrorKind::InvalidChannelState(..)
        | ClientErrorKind::InvalidConnectionState(_)
        | ClientErrorKind::RuntimeShutdownError(_) => (ErrorKind::Unavailable, LOST),
        ClientErrorKind::MissingHeartbeatError => {
            (ErrorKind::Unavailable, "the connection was closed: the broker sent no heartbeat")
        }
        ClientErrorKind::ChannelsLimitReached => {
            (ErrorKind::Busy, "the broker allows no further channel on this connection")
        }
        ClientErrorKind::InvalidProtocolVersion(_) | ClientErrorKind::ParsingError(_) => {
            (ErrorKind::Unavailable, NO_AMQP)
        }
        _ => (ErrorKind::Unexpected, "the client reported an error"),
    };
    Error::new(kind, message).with_source(error)
}

/// The message for a connection that was lost during an operation.
pub(super) const LOST: &str = "the connection to the broker was lost";

const NO_AMQP: &str =
    "the server does not speak AMQP 0-9-1: check host and port, and use amqps:// if the port expects TLS";

fn refused(code: u16, text: &str, during: During) -> (ErrorKind, &'static str) {
    match (code, during) {
        (code::ACCESS_REFUSED, During::Connect) => {
            (ErrorKind::Unauthenticated, "the broker refused the user name or password")
        }
        (code::NOT_ALLOWED | code::INVALID_PATH, During::Connect) if text.contains("not found") => {
            (ErrorKind::NotFound, "the virtual host does not exist: it is the path of the URL")
        }
        (code::ACCESS_REFUSED | code::NOT_ALLOWED, _) => {
            (ErrorKind::PermissionDenied, "the broker does not permit this to the user")
        }
        (code::NOT_FOUND, _) => (ErrorKind::NotFound, "the exchange or queue does not exist"),
        (code::RESOURCE_LOCKED, _) => (ErrorKind::Conflict, "the queue is exclusive to another connection"),
        (code::PRECONDITION_FAILED, During::Publish) if text.contains("larger than") => {
            (ErrorKind::TooLarge, "the payload is larger than the broker accepts: see its max_message_size")
        }
        (code::CONTENT_TOO_LARGE, _) => (ErrorKind::TooLarge, "the payload is larger than the broker accepts"),
        (code::PRECONDITION_FAILED, During::Declare) => (
            ErrorKind::Conflict,
            "it already exists with other properties: delete it, or use topology=check to use it as it is",
        ),
        (code::CONNECTION_FORCED, _) => (ErrorKind::Unavailable, "the broker closed the connection"),
        (code::RESOURCE_ERROR, _) => (ErrorKind::Busy, "the broker is short of resources"),
        _ => (ErrorKind::Rejected, "the broker refused the operation"),
    }
}

fn io_message(cause: &io::Error, during: During) -> &'static str {
    match (during, cause.kind()) {
        (During::Connect, io::ErrorKind::ConnectionRefused) => {
            "nothing listens there: check host and port, and whether the broker runs"
        }
        (During::Connect, io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            "the server closed the connection: check that it is an AMQP port and the broker has started, \
             and use amqps:// if the port expects TLS"
        }
        (During::Connect, io::ErrorKind::InvalidData) => NO_AMQP,
        (During::Connect, _) => "the broker cannot be reached: check host, port and network",
        _ => LOST,
    }
}
