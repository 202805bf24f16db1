//! Header blocks: written and read through the client's types, and read from the raw bytes if the
//! client cannot read them.

pub(crate) mod header_names;
pub(crate) mod reply_subject;
pub(crate) mod time;

use crate::names::header;
use async_nats::header::{
    NATS_MESSAGE_ID, NATS_MESSAGE_TTL, NATS_SCHEDULE, NATS_SCHEDULE_TARGET, ParseHeaderNameError,
};
use async_nats::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::driver::Outbound;
use crate::error::{Error, ErrorKind, Result};
use crate::headers::Headers;

/// The prefix of headers that are addressed to the server, in lower case.
const RESERVED: &str = "nats-";
const VERSION: &str = "NATS/1.0";

const KEY_NAME: HeaderName = HeaderName::from_static(header::KEY);
const KEY_BASE64_NAME: HeaderName = HeaderName::from_static(header::KEY_BASE64);
const MESSAGE_ID_NAME: HeaderName = HeaderName::from_static(header::MESSAGE_ID);
const DELAYED_ID_NAME: HeaderName = HeaderName::from_static(header::DELAYED_ID);

/// The schedule of a delayed message.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// The schedule in the server's syntax.
    pub(crate) pattern: String,
    /// `true` if the message is not to expire while it is kept.
    pub(crate) lasting: bool,
}

/// A header block to send, and its size on the wire.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) headers: Option<HeaderMap>,
    pub(super) wire_len: usize,
}

/// Writes headers, key and id of a message. With a `scope`, the id counts for this topic alone,
/// because the stream takes others.
pub(super) fn write(message: &Outbound, scope: Option<&str>) -> Result<Block> {
    let mut block = Block { headers: None, wire_len: 0 };
    if let Some(id) = message.id.as_deref().filter(|id| !id.is_empty()) {
        let written = value(id.as_bytes()).map_err(|why| why.with_context("part", "message id"))?;
        match (message.is_copy, scope) {
            // The server would drop a copy under the id that it has seen.
            (true, _) => block.put(MESSAGE_ID_NAME, written),
            (false, None) => block.put(NATS_MESSAGE_ID, written),
            (false, Some(topic)) => {
                block.put(NATS_MESSAGE_ID, value(format!("{topic}/{id}").as_bytes())?);
                block.put(DELAYED_ID_NAME, written);
            }
        }
    }
    if let Some(key) = &message.key {
        match value(key) {
            Ok(text) => block.put(KEY_NAME, text),
            Err(_) => block.put(KEY_BASE64_NAME, value(STANDARD.encode(key).as_bytes())?),
        }
    }
    for (name, bytes) in message.headers.iter() {
        let shown = || name.escape_default().take(64).collect::<String>();
        let name = checked_name(name).map_err(|why| why.with_context("header", shown()))?;
        block.put(name, value(bytes).map_err(|why| why.with_context("header", shown()))?);
    }
    Ok(block)
}

impl Block {
    /// Adds the headers that make the server keep the message until it is due, and then publish it
    /// to `target`.
    pub(super) fn keep(&mut self, schedule: &Schedule, target: &str) -> Result<()> {
        let get = |name| self.headers.as_ref().and_then(|headers| headers.get(name)).cloned();
        if let (None, Some(id)) = (get(DELAYED_ID_NAME), get(NATS_MESSAGE_ID)) {
            self.put(DELAYED_ID_NAME, id);
        }
        self.put(NATS_SCHEDULE, value(schedule.pattern.as_bytes())?);
        self.put(NATS_SCHEDULE_TARGET, value(target.as_bytes())?);
        if schedule.lasting {
            self.put(NATS_MESSAGE_TTL, value(b"never")?);
        }
        Ok(())
    }

    fn put(&mut self, name: HeaderName, value: HeaderValue) {
        const AROUND: usize = VERSION.len() + 4;
        let name_len = AsRef::<str>::as_ref(&name).len();
        let before = if self.headers.is_none() { AROUND } else { self.wire_len };
        self.wire_len = before + name_len + 2 + value.as_str().len() + 2;
        self.headers.get_or_insert_default().append(name, value);
    }
}

fn checked_name(name: &str) -> Result<HeaderName> {
    if name.is_empty() {
        return Err(invalid("a NATS header has a name"));
    }
    if name.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED)) {
        return Err(invalid(
            "headers that begin with Nats- are instructions to the server; the message id has its own setter",
        ));
    }
    if is_key(name) {
        return Err(invalid("this header holds the message's key: set the key instead"));
    }
    if name.eq_ignore_ascii_case(header::DELAYED_ID) {
        return Err(invalid("this header holds the message's id: set the id instead"));
    }
    name.parse().map_err(|error: ParseHeaderNameError| {
        invalid("the name of a NATS header is visible ASCII without a colon").with_source(error)
    })
}

fn value(bytes: &[u8]) -> Result<HeaderValue> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| invalid("a NATS header holds UTF-8 text").with_source(error))?;
    if text.trim().len() != text.len() {
        // Readers remove white space, and the value that arrives should be the one that was sent.
        return Err(invalid("the value of a NATS header neither begins nor ends with white space"));
    }
    text.parse().map_err(|_| invalid("the value of a NATS header has no line break"))
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidMessage, message)
}

fn is_key(name: &str) -> bool {
    name.eq_ignore_ascii_case(header::KEY) || name.eq_ignore_ascii_case(header::KEY_BASE64)
}

/// The contents of a header block.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) headers: Headers,
    pub(super) key: Option<Bytes>,
    pub(super) id: Option<String>,
    pub(super) unreadable: u32,
}

/// Reads a header block that the client has parsed. Different names come in no particular order,
/// because the client does not keep it.
pub(super) fn read(block: Option<&HeaderMap>) -> Contents {
    let Some(block) = block else {
        return Contents::default();
    };
    let (mut count, mut bytes) = (0, 0);
    for (name, values) in block.iter() {
        count += values.len();
        bytes += values.iter().map(|value| AsRef::<str>::as_ref(name).len() + value.as_str().len()).sum::<usize>();
    }
    let mut contents = Contents { headers: Headers::with_capacity(count, bytes), ..Contents::default() };
    for (name, values) in block.iter() {
        for value in values {
            contents.put(name.as_ref(), value.as_str().as_bytes());
        }
    }
    contents.with_id_of_copy()
}

/// Reads the bytes of any header block: lines that are headers become headers, others are counted.
pub(super) fn read_raw(block: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let mut lines = block.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).peekable();
    if lines.next_if(|line| line.starts_with(VERSION.as_bytes())).is_none() {
        contents.unreadable += 1;
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').filter(|_| !is_folded(line));
        let parts = colon.and_then(|at| Some((std::str::from_utf8(line.get(..at)?).ok()?, line.get(at + 1..)?)));
        let Some((name, first)) = parts else {
            contents.unreadable += 1;
            continue;
        };
        let mut value = first.to_vec();
        while let Some(more) = lines.next_if(|line| is_folded(line)) {
            value.extend_from_slice(more);
        }
        contents.put(name, value.trim_ascii());
    }
    contents.with_id_of_copy()
}

fn is_folded(line: &[u8]) -> bool {
    line.first().is_some_and(u8::is_ascii_whitespace)
}

impl Contents {
    fn put(&mut self, name: &str, value: &[u8]) {
        let reserved = name.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED));
        if reserved {
            if name.eq_ignore_ascii_case("nats-msg-id") {
                self.put_id(value);
            }
        } else if name.eq_ignore_ascii_case(header::DELAYED_ID) {
            // The sender's own id, which the other one may only contain.
            self.id = None;
            self.put_id(value);
        } else if name.eq_ignore_ascii_case(header::KEY) {
            self.key = Some(Bytes::copy_from_slice(value));
        } else if name.eq_ignore_ascii_case(header::KEY_BASE64) {
            match STANDARD.decode(value) {
                Ok(key) => self.key = Some(key.into()),
                Err(_) => self.unreadable += 1,
            }
        } else {
            self.headers.append(name, value);
        }
    }

    /// Reads the id of a copy, which is in a header of this library: see [`write`].
    fn with_id_of_copy(mut self) -> Self {
        if self.id.is_none() {
            self.id = self.headers.get_str(header::MESSAGE_ID).map(str::to_owned);
        }
        self
    }

    fn put_id(&mut self, value: &[u8]) {
        if let (false, Ok(id)) = (value.is_empty(), std::str::from_utf8(value)) {
            self.id.get_or_insert_with(|| id.to_owned());
        }
    }
}

/// Returns `true` if the client can read a header block. The client gives up its connection over
/// any other.
///
/// Mirrors the client's own parser line by line: both must agree, see the tests.
pub(super) fn is_readable(block: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(block) else {
        return false;
    };
    let mut lines = text.lines().peekable();
    let Some(rest) = lines.next().and_then(|line| line.strip_prefix(VERSION)) else {
        return false;
    };
    let rest = rest.trim();
    let status = rest.split_once(' ').map_or(rest, |(status, _)| status.trim());
    if !status.is_empty() && status.parse::<StatusCode>().is_err() {
        return false;
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let Some((name, first)) = line.split_once(':') else {
            return false;
        };
        let mut value = first.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        if name.parse::<HeaderName>().is_err() || value.trim_end().contains('\r') {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbound(headers: &[(&str, &[u8])]) -> Outbound {
        Outbound { headers: headers.iter().copied().collect(), ..Outbound::default() }
    }

    #[test]
    fn what_nats_cannot_carry_is_refused() {
        let refused: [(&str, &[u8]); 14] = [
            ("", b"x"),
            ("a b", b"x"),
            ("a:b", b"x"),
            ("a\r\nb", b"x"),
            ("na\u{ef}ve", b"x"),
            ("Nats-Rollup", b"all"),
            ("nats-ttl", b"1"),
            ("Message-Key", b"x"),
            ("message-key-base64", b"eA=="),
            ("a", b"\xff"),
            ("a", b"x\r\nb: y"),
            ("a", b"x\ny"),
            ("a", b" x"),
            ("a", "x\u{a0}".as_bytes()),
        ];
        for (name, value) in refused {
            let error = write(&outbound(&[(name, value)]), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidMessage, "{name:?} {value:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_and_its_size_is_right() {
        let mut message = outbound(&[("a", b"1"), ("b", b""), ("a", "\u{fc}".as_bytes())]);
        message.key = Some(Bytes::from_static(b"customer 7"));
        message.id = Some("id-1".to_owned());
        let block = write(&message, None).unwrap();
        let lines = ["Nats-Msg-Id: id-1", "message-key: customer 7", "a: 1", "b: ", "a: \u{fc}"];
        let wire = format!("NATS/1.0\r\n{}\r\n\r\n", lines.join("\r\n"));
        assert_eq!(block.wire_len, wire.len());
        for contents in [read(block.headers.as_ref()), read_raw(wire.as_bytes())] {
            assert_eq!(contents.key, message.key);
            assert_eq!(contents.id, message.id);
            assert_eq!(contents.headers.len(), 3);
            assert_eq!(contents.headers.get_all("a").collect::<Vec<_>>(), [&b"1"[..], "\u{fc}".as_bytes()]);
            assert_eq!(contents.headers.get("b"), Some(&b""[..]));
            assert_eq!(contents.unreadable, 0);
        }
        assert!(is_readable(wire.as_bytes()));
        assert_eq!(write(&outbound(&[]), None).unwrap().wire_len, 0);
    }

    #[test]
    fn any_key_comes_back() {
        for key in [&b""[..], b"plain", b" x", b"x\n", b"\0\xff\xfe", b"a: b", "\u{1f511}".as_bytes()] {
            let message = Outbound { key: Some(Bytes::copy_from_slice(key)), ..outbound(&[]) };
            let block = write(&message, None).unwrap();
            assert_eq!(read(block.headers.as_ref()).key.as_deref(), Some(key));
        }
    }

    #[test]
    fn of_a_bad_block_the_readable_lines_are_kept() {
        let block = b"NATS/1.0 abc\r\ntraceparent: 00-1\r\nno colon\r\nraw: \xff\xfe \r\nfold: a\r\n b\r\n\xff: x\r\ncr: a\rb\r\n\r\n";
        assert!(!is_readable(block));
        let contents = read_raw(block);
        let headers: Vec<_> = contents.headers.iter().collect();
        let expected: [(&str, &[u8]); 4] =
            [("traceparent", b"00-1"), ("raw", b"\xff\xfe"), ("fold", b"a b"), ("cr", b"a\rb")];
        assert_eq!(headers, expected);
        assert_eq!(contents.unreadable, 2);
    }

    #[test]
    fn bad_blocks_are_told_from_odd_ones() {
        let bad: [&[u8]; 9] = [
            b"",
            b"HTTP/1.1\r\n\r\n",
            b"NATS/1.0 abc\r\n\r\n",
            b"NATS/1.0 99\r\n\r\n",
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\na b: c\r\n\r\n",
            b"NATS/1.0\r\n folded: first\r\n\r\n",
            b"NATS/1.0\r\na: \xff\r\n\r\n",
            b"NATS/1.0\r\na: b\rc\r\n\r\n",
        ];
        for block in bad {
            assert!(!is_readable(block), "{:?}", block.escape_ascii().to_string());
        }
        let odd: [&[u8]; 6] = [
            b"NATS/1.0",
            b"NATS/1.0 503 No Responders\r\n\r\n",
            b"NATS/1.0\r\n: no name\r\n\r\n",
            b"NATS/1.0\r\na: b\r\n c\r\n\r\n",
            b"NATS/1.0\r\na: b\r\r\n\r\n",
            b"NATS/1.0\r\n\r\na:b",
        ];
        for block in odd {
            assert!(is_readable(block), "{:?}", block.escape_ascii().to_string());
        }
    }
}
