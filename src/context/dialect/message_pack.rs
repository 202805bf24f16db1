//! The subset of [MessagePack](https://github.com/msgpack/msgpack/blob/master/spec.md) that a map
//! of strings needs.

use super::MAX_ENVELOPE;
use super::bytes::Reader;
use super::renamed::Found;

/// Reads the W3C headers among the pairs of a map of strings. Returns `None` unless the input is
/// exactly one such map.
///
/// The map cannot nest, so there is no recursion. Every pair takes at least two bytes, so the
/// input's length bounds the work.
pub(super) fn headers(bytes: &[u8]) -> Option<Found> {
    if bytes.len() > MAX_ENVELOPE {
        return None;
    }
    let mut reader = Reader::new(bytes);
    let mut found = Found::default();
    for _ in 0..pairs(&mut reader)? {
        let (key, value) = (string(&mut reader)?, string(&mut reader)?);
        found.take(key, value);
    }
    reader.is_empty().then_some(found)
}

/// Reads the number of pairs of the map that begins here.
fn pairs(reader: &mut Reader<'_>) -> Option<usize> {
    match reader.byte()? {
        small @ 0x80..=0x8f => Some(usize::from(small & 0x0f)),
        0xde => reader.number::<2>(),
        0xdf => reader.number::<4>(),
        _ => None,
    }
}

/// Reads the string that begins here. Binary data is accepted too: the older form of the format had
/// one type for both.
fn string<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = match reader.byte()? {
        short @ 0xa0..=0xbf => usize::from(short & 0x1f),
        0xd9 | 0xc4 => reader.number::<1>()?,
        0xda | 0xc5 => reader.number::<2>()?,
        0xdb | 0xc6 => reader.number::<4>()?,
        _ => return None,
    };
    reader.take(length)
}
