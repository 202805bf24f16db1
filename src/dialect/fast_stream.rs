//! FastStream's entries of Redis Streams: one field, `__data__`, with headers and data together.
//!
//! In the binary format 8 bytes of [`MAGIC`], the version 1 (16 bits), where the headers begin and where the data begins (32 bits
//! each), then at the former place the number of headers (16 bits) and for each of them key and value, each with its length (16 bits)
//! in front; all big-endian. Before version 0.7 it may be a JSON object with the members `data` and `headers`.

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

/// The headers of a frame that matter here. Every header takes four bytes at least, so that the length bounds the work.
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
