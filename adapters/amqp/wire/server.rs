//! The server's version, which the client does not show.

use std::sync::atomic::{AtomicU32, Ordering};

use super::bytes::Reader;
use super::table::{Entries, Value};

/// The version in the server's first frame.
#[derive(Debug, Default)]
pub(crate) struct Server {
    /// The first number, or 0 if it is not known.
    major: AtomicU32,
}

impl Server {
    /// Reads the arguments of `connection.start`: the version of the protocol, and the table of the
    /// server's properties.
    pub(crate) fn note(&self, mut arguments: Reader<'_>) {
        let Some(table) = arguments.u16().and_then(|_protocol| arguments.long_string()) else { return };
        let Some(Value::Bytes(version)) = Entries::new(table).find("version") else { return };
        let digits = version.split(|byte| *byte == b'.').next().and_then(|digits| std::str::from_utf8(digits).ok());
        self.major.store(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0), Ordering::Release);
    }

    /// Returns the first number of the version, once the connection is open.
    pub(crate) fn major(&self) -> Option<u32> {
        Some(self.major.load(Ordering::Acquire)).filter(|major| *major > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn major(version: &[u8]) -> Option<u32> {
        let value = [&b"S"[..], &(version.len() as u32).to_be_bytes(), version].concat();
        let table = [&b"\x07product"[..], b"S\0\0\0\x08RabbitMQ", b"\x07version", &value].concat();
        let arguments = [&b"\0\x09"[..], &(table.len() as u32).to_be_bytes(), &table, b"\0\0\0\x05PLAIN"].concat();
        let server = Server::default();
        server.note(Reader::new(&arguments));
        server.major()
    }

    #[test]
    fn the_first_number_of_the_version_is_read() {
        assert_eq!(major(b"3.10.8"), Some(3));
        assert_eq!(major(b"4.1.0-beta.2"), Some(4));
        for strange in [&b""[..], b"\xff", b"four", b"99999999999999999999.1"] {
            assert_eq!(major(strange), None);
        }
        let server = Server::default();
        server.note(Reader::new(b"\0\x09\xff\xff\xff\xff"));
        assert_eq!(server.major(), None);
    }
}
