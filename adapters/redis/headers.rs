//! The form of a message in a stream entry: written and read.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::names::header;
use ::redis::{Cmd, RedisWrite};
use bytes::Bytes;

use crate::driver::Outbound;
use crate::headers::Headers;

use super::config::Trim;
use super::connection::fields::Fields;

/// The options of an `XADD`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Append {
    /// The trimming of the stream.
    pub(super) trim: Option<Trim>,
    /// Does not create a missing stream.
    pub(super) must_exist: bool,
}

/// Returns the command that appends a message to a stream.
pub(super) fn append(stream: &str, how: Append, message: &Outbound) -> Cmd {
    let Outbound { payload, key, id, headers, .. } = message;
    let payload = payload.as_deref().unwrap_or_default();
    // The same id may be among the headers, put there by a broker that has no other place for it.
    let id = id.as_deref().filter(|id| headers.get_str(header::MESSAGE_ID) != Some(id));
    let bytes = stream.len() + payload.len() + key.as_ref().map_or(0, Bytes::len) + headers.byte_len() + 64;
    // Words: up to 7 of the command itself, and two for each of payload, key, id and the headers.
    let mut command = Cmd::with_capacity(13 + 2 * headers.len(), bytes);
    command.write_arg(b"XADD");
    command.write_arg(stream.as_bytes());
    if how.must_exist {
        command.write_arg(b"NOMKSTREAM");
    }
    match how.trim {
        Some(Trim::Length(entries)) => {
            command.arg("MAXLEN").arg("~").arg(entries);
        }
        Some(Trim::Age(age)) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let oldest = u64::try_from(now.saturating_sub(age).as_millis()).unwrap_or(u64::MAX);
            command.arg("MINID").arg("~").arg(oldest);
        }
        None => {}
    }
    command.write_arg(b"*");
    put(&mut command, header::REDIS_PAYLOAD.as_bytes(), payload);
    if let Some(key) = key {
        put(&mut command, header::REDIS_KEY.as_bytes(), key);
    }
    if let Some(id) = id {
        put(&mut command, header::MESSAGE_ID.as_bytes(), id.as_bytes());
    }
    for (name, value) in headers.iter() {
        let replaced = id.is_some() && name.eq_ignore_ascii_case(header::MESSAGE_ID);
        if needs_escape(name) {
            put(&mut command, [header::REDIS_ESCAPE, name].concat().as_bytes(), value);
        } else if !replaced {
            put(&mut command, name.as_bytes(), value);
        }
    }
    command
}

/// Returns the size of the largest field of a message, in bytes.
pub(super) fn largest_field(message: &Outbound) -> usize {
    let sizes = [message.payload.as_deref(), message.key.as_deref(), message.id.as_deref().map(str::as_bytes)];
    let headers =
        message.headers.iter().map(|(name, value)| (header::REDIS_ESCAPE.len() + name.len()).max(value.len()));
    sizes.into_iter().flatten().map(<[u8]>::len).chain(headers).max().unwrap_or_default()
}

/// The contents of the fields of an entry.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) payload: Option<Bytes>,
    pub(super) key: Option<Bytes>,
    pub(super) id: Option<String>,
    pub(super) headers: Headers,
    /// Number of fields whose name is not UTF-8, or that have no value.
    pub(super) unreadable: u32,
}

/// Reads the fields of an entry. The payload is copied once, out of the answer in which it came.
pub(super) fn read(fields: &Fields) -> Content {
    let mut read =
        Content { headers: room_for(fields), unreadable: u32::from(fields.is_uneven()), ..Content::default() };
    for field in fields.iter() {
        match field {
            Some((name, value)) => read.take(name, value),
            None => read.unreadable += 1,
        }
    }
    read.id = read.headers.get_str(header::MESSAGE_ID).map(str::to_owned);
    read
}

impl Content {
    fn take(&mut self, name: &[u8], value: &[u8]) {
        // The first one counts; a second one is kept as a header.
        if name == header::REDIS_PAYLOAD.as_bytes() && self.payload.is_none() {
            self.payload = Some(Bytes::copy_from_slice(value));
        } else if name == header::REDIS_KEY.as_bytes() && self.key.is_none() {
            self.key = Some(Bytes::copy_from_slice(value));
        } else if let Ok(name) = std::str::from_utf8(name) {
            self.headers.append(name.strip_prefix(header::REDIS_ESCAPE).unwrap_or(name), value);
        } else {
            self.unreadable += 1;
        }
    }
}

fn put(command: &mut Cmd, name: &[u8], value: &[u8]) {
    command.write_arg(name);
    command.write_arg(value);
}

fn needs_escape(name: &str) -> bool {
    name == header::REDIS_PAYLOAD || name == header::REDIS_KEY || name.starts_with(header::REDIS_ESCAPE)
}

/// Returns headers with capacity for the fields, so that they are filled without growing.
fn room_for(fields: &Fields) -> Headers {
    let is_header =
        |(name, _): &(&[u8], &[u8])| *name != header::REDIS_PAYLOAD.as_bytes() && *name != header::REDIS_KEY.as_bytes();
    let lengths = fields.iter().flatten().filter(is_header).map(|(name, value)| name.len() + value.len());
    match lengths.fold((0, 0), |(count, bytes), length| (count + 1, bytes + length)) {
        (0, _) => Headers::new(),
        (count, bytes) => Headers::with_capacity(count, bytes),
    }
}

#[cfg(test)]
mod tests {
    use ::redis::Value;

    use super::*;

    const PLAIN: Append = Append { trim: None, must_exist: false };

    fn arguments(command: &Cmd) -> Vec<Vec<u8>> {
        let arguments = command.args_iter().map(|argument| match argument {
            ::redis::Arg::Simple(bytes) => bytes.to_vec(),
            _ => Vec::new(),
        });
        arguments.collect()
    }

    fn round_trip(message: &Outbound) -> Content {
        let fields = arguments(&append("s", PLAIN, message)).split_off(3);
        read(&Fields::Values(fields.into_iter().map(Value::BulkString).collect()))
    }

    fn message(headers: &[(&str, &[u8])]) -> Outbound {
        let headers = headers.iter().copied().collect();
        Outbound { payload: Some(Bytes::from_static(b"x")), headers, ..Outbound::default() }
    }

    #[test]
    fn writes_headers_under_their_own_names() {
        let mut message = message(&[("traceparent", b"00-ab"), ("payload", b"p"), ("header:a", b""), ("Key", b"k")]);
        message.key = Some(Bytes::from_static(b"\xff"));
        let how = Append { trim: Some(Trim::Length(9)), must_exist: true };
        let words = arguments(&append("orders", how, &message));
        let expected: [&[u8]; 18] = [
            b"XADD",
            b"orders",
            b"NOMKSTREAM",
            b"MAXLEN",
            b"~",
            b"9",
            b"*",
            b"payload",
            b"x",
            b"key",
            b"\xff",
            b"traceparent",
            b"00-ab",
            b"header:payload",
            b"p",
            b"header:header:a",
            b"",
            b"Key",
        ];
        assert_eq!(words[..18], expected);
        assert_eq!(words[18..], [b"k"]);
    }

    #[test]
    fn reads_back_what_was_written() {
        let headers: [(&str, &[u8]); 7] = [
            ("payload", b"1"),
            ("key", b"\0\r\n"),
            ("header:", b"2"),
            ("header:header:", b"3"),
            ("", b"4"),
            ("a", b"5"),
            ("a", b"6"),
        ];
        let mut message = message(&headers);
        message.payload = Some(Bytes::new());
        message.key = Some(Bytes::new());
        let read = round_trip(&message);
        assert_eq!(read.headers, message.headers);
        assert_eq!((read.payload, read.key, read.id, read.unreadable), (message.payload, message.key, None, 0));
    }

    #[test]
    fn writes_one_id() {
        let mut message = message(&[("Message-Id", b"old"), ("a", b"1")]);
        message.id = Some("new".to_owned());
        let read = round_trip(&message);
        assert_eq!(read.id.as_deref(), Some("new"));
        assert_eq!(read.headers, [("message-id", "new"), ("a", "1")].into_iter().collect());
        message.headers = read.headers;
        assert_eq!(round_trip(&message).headers, message.headers, "the same id is left where it is");
    }

    #[test]
    fn reads_what_others_write() {
        let text = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
        let fields = [
            text(b"payload"),
            text(b"first"),
            text(b"payload"),
            text(b"second"),
            text(b"\xff\xfe"),
            text(b"x"),
            text(b"nil"),
            Value::Nil,
            text(b"alone"),
        ];
        let read = read(&Fields::Values(fields.to_vec()));
        assert_eq!(read.payload.as_deref(), Some(&b"first"[..]));
        assert_eq!(read.headers, [("payload", "second")].into_iter().collect());
        assert_eq!(read.unreadable, 3);
    }

    #[test]
    fn reserves_what_the_headers_need() {
        let headers: Vec<(String, Vec<u8>)> = (0..50).map(|n| (format!("name-{n}"), vec![7; n])).collect();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let message = Outbound { payload: Some(Bytes::from_static(b"x")), headers, ..Outbound::default() };
        let fields = arguments(&append("s", PLAIN, &message)).split_off(3);
        let fields = Fields::Values(fields.into_iter().map(Value::BulkString).collect());
        let mut counted = None;
        let allocations = allocation_counter::measure(|| counted = Some(read(&fields)));
        assert_eq!(counted.unwrap().headers, message.headers);
        assert_eq!(allocations.count_total, 2, "one for all headers, one for the payload");
    }

    #[test]
    fn measures_the_largest_field() {
        let mut message = message(&[("a", &[0; 10])]);
        assert_eq!(largest_field(&message), 10);
        message.key = Some(vec![0; 11].into());
        assert_eq!(largest_field(&message), 11);
    }
}
