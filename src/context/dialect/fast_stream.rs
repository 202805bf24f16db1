//! FastStream's entries of Redis Streams: one field, `__data__`, with headers and data together.
//!
//! The binary format is big-endian: 8 bytes of [`MAGIC`], the version 1 (16 bits), the offset of
//! the headers and the offset of the data (32 bits each). The headers begin with their number (16
//! bits); each consists of key and value, each preceded by its length (16 bits). Before version
//! 0.7, it may be a JSON object with the members `data` and `headers`.

use opentelemetry::Context;
use serde::Deserialize;

use super::MAX_ENVELOPE;
use super::bytes::Reader;
use super::json::{self, Members};
use super::renamed::Found;
use crate::headers::Headers;

const MAGIC: &[u8] = b"\x89BIN\r\n\x1a\n";

pub(super) fn read(headers: &Headers, payload: Option<&[u8]>) -> Option<Context> {
    let frame = headers.get("__data__").or(payload)?;
    match frame.strip_prefix(MAGIC) {
        Some(rest) => binary(frame, rest)?.context(),
        None => json::parse::<Envelope>(frame)?.headers.context(),
    }
}

#[derive(Deserialize)]
struct Envelope {
    headers: Members,
}

/// Reads the relevant headers of a frame. Every header takes at least four bytes, so the length
/// bounds the work.
fn binary(frame: &[u8], after_magic: &[u8]) -> Option<Found> {
    let mut reader = Reader::new(after_magic);
    let version = reader.number::<2>()?;
    let (headers, data) = (reader.number::<4>()?, reader.number::<4>()?);
    if version != 1 || data.checked_sub(headers)? > MAX_ENVELOPE {
        return None;
    }
    let mut reader = Reader::new(frame.get(headers..data)?);
    let mut found = Found::default();
    for _ in 0..reader.number::<2>()? {
        let (key, value) = (string(&mut reader)?, string(&mut reader)?);
        found.take(key, value);
    }
    Some(found)
}

fn string<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = reader.number::<2>()?;
    reader.take(length)
}
