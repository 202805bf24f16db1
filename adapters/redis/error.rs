//! Maps errors of the client to those of the library.

use ::redis::{ErrorKind as ClientErrorKind, RedisError};

use crate::error::{Error, ErrorKind};

/// The `messaging.system` of this adapter.
pub(super) const SYSTEM: &str = "redis";

/// Returns the library's error for a command that failed; `what` names it, as in `read the stream`.
pub(super) fn command_failed(what: &str, error: RedisError) -> Error {
    let kind = kind_of(&error);
    let advice = match kind {
        ErrorKind::Unavailable => "the server cannot do this now, or the connection was lost",
        ErrorKind::Timeout => "the server did not answer in time",
        ErrorKind::Busy => "the server is out of memory or busy",
        ErrorKind::Unauthenticated => "the server requires valid credentials: set them in the URL",
        ErrorKind::PermissionDenied => "the user's ACL does not allow the command or the key",
        ErrorKind::Conflict => "the key holds something other than a stream",
        ErrorKind::NotFound => "the stream or its consumer group does not exist",
        ErrorKind::Unsupported => "the server is one of a cluster, or too old: Redis 7.0 is needed",
        ErrorKind::Rejected => "the server refused",
        _ => "the client failed",
    };
    let refused = if kind == ErrorKind::PermissionDenied { error.detail().map(str::to_owned) } else { None };
    let failed = Error::new(kind, format!("cannot {what}: {advice}")).with_system(SYSTEM).with_source(error);
    // It names the command.
    match refused {
        Some(refused) => failed.with_context("server_says", refused),
        None => failed,
    }
}

/// Returns the kind of an error: by the error code at the start of Redis's answer if there is one,
/// otherwise by the client's kind.
pub(super) fn kind_of(error: &RedisError) -> ErrorKind {
    if let Some(code) = error.code() {
        return match code {
            "LOADING" | "MASTERDOWN" | "READONLY" | "NOREPLICAS" | "MISCONF" => ErrorKind::Unavailable,
            // It has no code of its own.
            "ERR" if error.detail().is_some_and(|detail| detail.starts_with("max number of clients")) => {
                ErrorKind::Unavailable
            }
            "OOM" | "BUSY" => ErrorKind::Busy,
            "NOAUTH" | "WRONGPASS" => ErrorKind::Unauthenticated,
            "NOPERM" => ErrorKind::PermissionDenied,
            "WRONGTYPE" => ErrorKind::Conflict,
            "NOGROUP" | "UNBLOCKED" => ErrorKind::NotFound,
            "MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN" | "TRYAGAIN" => ErrorKind::Unsupported,
            _ => ErrorKind::Rejected,
        };
    }
    match error.kind() {
        ClientErrorKind::Io if error.is_timeout() => ErrorKind::Timeout,
        ClientErrorKind::Io => ErrorKind::Unavailable,
        ClientErrorKind::AuthenticationFailed => ErrorKind::Unauthenticated,
        ClientErrorKind::InvalidClientConfig => ErrorKind::InvalidConfig,
        ClientErrorKind::RESP3NotSupported => ErrorKind::Unsupported,
        _ => ErrorKind::Unexpected,
    }
}

/// Returns the error for an answer whose shape is not documented.
pub(super) fn unexpected_reply(what: &str) -> Error {
    Error::new(ErrorKind::Unexpected, format!("cannot {what}: the server's answer has an unexpected form"))
        .with_system(SYSTEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(answer: &'static [u8]) -> ErrorKind {
        kind_of(&::redis::parse_redis_value(answer).unwrap().extract_error().unwrap_err())
    }

    #[test]
    fn maps_the_codes_of_redis() {
        assert_eq!(kind(b"-LOADING Redis is loading the dataset in memory\r\n"), ErrorKind::Unavailable);
        assert_eq!(kind(b"-READONLY You can't write against a read only replica.\r\n"), ErrorKind::Unavailable);
        assert_eq!(kind(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"), ErrorKind::Busy);
        assert_eq!(kind(b"-NOAUTH Authentication required.\r\n"), ErrorKind::Unauthenticated);
        assert_eq!(kind(b"-NOPERM this user has no permissions\r\n"), ErrorKind::PermissionDenied);
        assert_eq!(kind(b"-WRONGTYPE Operation against a key\r\n"), ErrorKind::Conflict);
        assert_eq!(kind(b"-NOGROUP No such key\r\n"), ErrorKind::NotFound);
        assert_eq!(kind(b"-MOVED 3999 127.0.0.1:6381\r\n"), ErrorKind::Unsupported);
        assert_eq!(kind(b"-MISCONF Redis is configured to save RDB snapshots\r\n"), ErrorKind::Unavailable);
        assert_eq!(kind(b"-ERR max number of clients reached\r\n"), ErrorKind::Unavailable);
        assert_eq!(kind(b"-ERR anything\r\n"), ErrorKind::Rejected);
    }

    #[test]
    fn tells_a_time_out_from_a_broken_connection() {
        let io = |kind: std::io::ErrorKind| kind_of(&RedisError::from(std::io::Error::from(kind)));
        assert_eq!(io(std::io::ErrorKind::TimedOut), ErrorKind::Timeout);
        assert_eq!(io(std::io::ErrorKind::BrokenPipe), ErrorKind::Unavailable);
        assert_eq!(io(std::io::ErrorKind::ConnectionRefused), ErrorKind::Unavailable);
    }
}
