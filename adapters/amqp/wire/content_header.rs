//! Rewrites the content header of a message, so that the client's parser can read it.
//!
//! Any publisher may write the header table and short strings of a message, and the broker passes
//! them on. The client parses tables recursively, expects every name to be UTF-8, and gives up the
//! connection over input that it cannot read. The broker then redelivers the same message. The
//! table is therefore passed to the client as plain bytes: as one byte array, under the empty name,
//! in a new table. [`table`](super::table) reads these bytes later, in the order of the wire. Bytes
//! of short strings that are not UTF-8 become question marks.

use super::bytes::Reader;
use super::table::without_largest;

/// The name of the entry that holds the original table.
pub(crate) const RAW_TABLE: &str = "";

/// The length of the part before the properties: class, weight, body size.
pub(crate) const PREFIX: usize = 12;
/// The bytes that wrapping adds to a table: its own length, the entry's empty name, its type.
const WRAPPING: usize = 6;
/// A replacement for a malformed header table: it reads as one unreadable entry.
const UNREADABLE: &[u8] = b"?";

const CONTINUATION: u16 = 1;
const HEADERS: u16 = 1 << 13;

/// The properties in their order, each with its flag.
const PROPERTIES: [(u16, Property); 14] = [
    (1 << 15, Property::Text), // content-type
    (1 << 14, Property::Text), // content-encoding
    (HEADERS, Property::Table),
    (1 << 12, Property::Fixed(1)), // delivery-mode
    (1 << 11, Property::Fixed(1)), // priority
    (1 << 10, Property::Text),     // correlation-id
    (1 << 9, Property::Text),      // reply-to
    (1 << 8, Property::Text),      // expiration
    (1 << 7, Property::Text),      // message-id
    (1 << 6, Property::Fixed(8)),  // timestamp
    (1 << 5, Property::Text),      // type
    (1 << 4, Property::Text),      // user-id
    (1 << 3, Property::Text),      // app-id
    (1 << 2, Property::Text),      // cluster-id
];

#[derive(Clone, Copy)]
enum Property {
    Text,
    Table,
    Fixed(usize),
}

/// Returns the size of the body and the header table of a content header, as far as they can be
/// read.
pub(crate) fn inspect(payload: &[u8]) -> Option<(u64, &[u8])> {
    let mut reader = Reader::new(payload);
    reader.take(4)?;
    let body_size = u64::from_be_bytes(reader.array()?);
    let flags = read_flags(&mut reader).unwrap_or_default();
    let mut table = &[][..];
    for (flag, property) in PROPERTIES.into_iter().filter(|(flag, _)| flags & flag != 0) {
        let Some(value) = read(&mut reader, property) else { break };
        if flag == HEADERS {
            table = value;
        }
    }
    Some((body_size, table))
}

/// Appends the content header in a form that the client can read, of at most `limit` bytes.
///
/// A table that would exceed the limit loses its largest entries; malformed properties are left
/// out. Returns `None` if the body size is missing: then the broker does not speak the protocol.
pub(crate) fn rewrite(payload: &[u8], limit: usize, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    let prefix = payload.get(..PREFIX)?;
    out.extend_from_slice(prefix);
    let excess = (payload.len() + WRAPPING).saturating_sub(limit);
    if write_properties(Reader::new(&payload[PREFIX..]), excess, out).is_none() || out.len() - start > limit {
        out.truncate(start + PREFIX);
        out.extend_from_slice(&HEADERS.to_be_bytes());
        wrap_table(UNREADABLE, out);
    }
    Some(())
}

fn write_properties(mut reader: Reader<'_>, excess: usize, out: &mut Vec<u8>) -> Option<()> {
    let flags = read_flags(&mut reader)?;
    out.extend_from_slice(&flags.to_be_bytes());
    for (_, property) in PROPERTIES.into_iter().filter(|(flag, _)| flags & flag != 0) {
        let value = read(&mut reader, property)?;
        match property {
            Property::Text => write_text(value, out),
            Property::Table if excess > 0 => wrap_table(&without_largest(value, excess), out),
            Property::Table => wrap_table(value, out),
            Property::Fixed(_) => out.extend_from_slice(value),
        }
    }
    reader.is_empty().then_some(())
}

/// Reads the flags of the properties. Further words of flags may follow; this class does not use
/// them.
fn read_flags(reader: &mut Reader<'_>) -> Option<u16> {
    let flags = reader.u16()?;
    let mut last = flags;
    while last & CONTINUATION != 0 {
        last = reader.u16()?;
    }
    Some(flags & !0b11)
}

fn read<'a>(reader: &mut Reader<'a>, property: Property) -> Option<&'a [u8]> {
    match property {
        Property::Text => reader.short_string(),
        Property::Table => reader.long_string(),
        Property::Fixed(length) => reader.take(length),
    }
}

fn wrap_table(table: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(table.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&(length + WRAPPING as u32).to_be_bytes());
    out.extend_from_slice(&[0, b'x']);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(table);
}

/// Appends a short string with its length, as valid UTF-8.
pub(crate) fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(text.len() as u8);
    if std::str::from_utf8(text).is_ok() {
        out.extend_from_slice(text);
    } else {
        out.extend(text.iter().map(|byte| if byte.is_ascii() { *byte } else { b'?' }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{Entries, Value};
    use super::*;

    const PLENTY: usize = 131_072;

    fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        payload.extend_from_slice(&flags.to_be_bytes());
        payload.extend_from_slice(properties);
        payload
    }

    fn rewritten(payload: &[u8], limit: usize) -> Vec<u8> {
        let mut out = Vec::new();
        rewrite(payload, limit, &mut out).unwrap();
        out
    }

    /// Returns the table as the client finds it: the bytes under the empty name.
    fn raw_table(payload: &[u8]) -> Vec<u8> {
        let (_, table) = inspect(payload).unwrap();
        match Entries::new(table).collect::<Vec<_>>()[..] {
            [Some((b"", Value::Bytes(raw)))] => raw.to_vec(),
            ref other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_table_travels_untouched() {
        let table = b"\x01\xffF\0\0\0\x01?";
        let mut properties = b"\x02ct\0\0\0\x08".to_vec();
        properties.extend_from_slice(table);
        properties.extend_from_slice(b"\x02\x02id");
        let out = rewritten(&header(1 << 15 | HEADERS | 1 << 12 | 1 << 7, &properties), PLENTY);
        assert_eq!(raw_table(&out), table);
        assert!(out.starts_with(&header(1 << 15 | HEADERS | 1 << 12 | 1 << 7, b"\x02ct")));
        assert!(out.ends_with(b"\x02\x02id"), "what comes after the table stays");
        assert_eq!(inspect(&out).unwrap().0, 5);
    }

    #[test]
    fn short_texts_become_readable() {
        let out = rewritten(&header(1 << 7 | 1 << 2, b"\x03a\xffb\x02ok"), PLENTY);
        assert_eq!(out, header(1 << 7 | 1 << 2, b"\x03a?b\x02ok"));
    }

    #[test]
    fn malformed_properties_are_one_unreadable_header() {
        let cases = [
            header(HEADERS, b"\0\0\0\xff"),
            header(1 << 15, b"\x09short"),
            header(1 << 6, b"\0"),
            header(0, b"trailing"),
            header(CONTINUATION, b""),
            header(0, b"")[..12].to_vec(),
        ];
        for payload in cases {
            let out = rewritten(&payload, PLENTY);
            assert_eq!(raw_table(&out), UNREADABLE, "{payload:?}");
            assert_eq!(out[..12], payload[..12]);
        }
    }

    #[test]
    fn further_flags_are_dropped() {
        let out = rewritten(&header(1 << 12 | CONTINUATION, b"\0\x02\x07"), PLENTY);
        assert_eq!(out, header(1 << 12, b"\x07"));
    }

    #[test]
    fn a_table_over_the_limit_loses_its_largest_entry() {
        let table = [&b"\x01aS\0\0\0\x28"[..], &[b'.'; 40], b"\x01bt\x01"].concat();
        let properties = [&(table.len() as u32).to_be_bytes()[..], &table, &[2]].concat();
        let payload = header(HEADERS | 1 << 12, &properties);
        let fits = payload.len() + WRAPPING;
        assert_eq!(raw_table(&rewritten(&payload, fits)), table);
        let out = rewritten(&payload, fits - 1);
        assert!(out.len() < fits);
        assert_eq!(Entries::new(&raw_table(&out)).find("b"), Some(Value::Flag(true)));
        assert_eq!(out.last(), Some(&2));
    }

    #[test]
    fn a_header_without_a_body_size_is_refused() {
        assert_eq!(rewrite(&[0, 60, 0, 0, 0], PLENTY, &mut Vec::new()), None);
    }
}
