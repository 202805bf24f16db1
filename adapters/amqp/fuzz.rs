//! Properties of the parsers of frames, header tables and notes.
//!
//! They stand here because the parsers are private. They are compiled for unit tests, which apply
//! them to the corpora, and for the fuzz targets, which no other build contains.

use lapin::BasicProperties;
use lapin::protocol::basic::parse_properties;
use lapin::types::{AMQPValue, ByteArray, FieldTable};

use super::config::RoutingKey;
use super::headers::incoming::{Decoded, delivery_count};
use super::headers::outgoing::Envelope;
use super::trials::records::Record;
use super::wire::bytes::Reader;
use super::wire::content_header::{self, RAW_TABLE};
use super::wire::frames::FrameFilter;
use super::wire::inspect::{FRAME_MAX, Inspector};
use super::wire::returned::Returned;
use super::wire::server::Server;
use super::wire::table::{Entries, without_largest};

/// The channel on which returned messages are expected.
const OURS: u16 = 7;

/// The input is the sizes of the pieces in which bytes are read and taken, less one, and the bytes
/// of a broker. The client gets the same bytes in any pieces, and can read all properties in them.
///
/// # Panics
/// Panics if it does not hold.
pub fn frames(input: &[u8]) {
    let [read, take, stream @ ..] = input else { return };
    let (passed, is_protocol) = filtered(stream, 4096, 4096);
    let (in_pieces, is_same_protocol) = filtered(stream, usize::from(*read) + 1, usize::from(*take) + 1);
    assert_eq!(is_protocol, is_same_protocol);
    // An error ends the connection, with what was taken at the same time.
    assert!(passed == in_pieces || !is_protocol && (passed.starts_with(&in_pieces) || in_pieces.starts_with(&passed)));
    assert!(passed.len() <= 2 * stream.len(), "{} bytes of {}", passed.len(), stream.len());
    let mut frames = Reader::new(&passed);
    while let Some(payload) = next_frame(&mut frames) {
        let Some(payload) = payload else { continue };
        assert!(payload.len() <= FRAME_MAX as usize);
        let properties = payload.get(content_header::PREFIX..).and_then(|bytes| parse_properties(bytes).ok());
        let Some((rest, properties)) = properties else { panic!("the client cannot read the properties") };
        assert!(rest.is_empty());
        read_properties(&properties);
        assert!(content_header::inspect(payload).is_some());
    }
}

/// Returns the bytes that the client gets, and `false` if they ended with an error.
fn filtered(stream: &[u8], read: usize, take: usize) -> (Vec<u8>, bool) {
    let returned = std::sync::Arc::new(Returned::default());
    returned.watch(OURS);
    let mut filter = FrameFilter::new(Inspector::new(returned, std::sync::Arc::default()));
    let (mut passed, mut piece) = (Vec::new(), vec![0; take]);
    for chunk in stream.chunks(read) {
        filter.room(read)[..chunk.len()].copy_from_slice(chunk);
        filter.filled(chunk.len());
        loop {
            match filter.take(&mut piece) {
                Ok(0) => break,
                Ok(taken) => passed.extend_from_slice(&piece[..taken]),
                Err(_) => return (passed, false),
            }
        }
    }
    (passed, true)
}

/// Returns the payload of the next frame if it is a content header, and `None` at the end or before
/// a frame that is not complete.
fn next_frame<'a>(frames: &mut Reader<'a>) -> Option<Option<&'a [u8]>> {
    const PROTOCOL_HEADER: u8 = b'A';
    const HEADER: u8 = 2;
    let kind = frames.u8()?;
    if kind == PROTOCOL_HEADER {
        return frames.take(7).map(|_| None);
    }
    frames.u16()?;
    let payload = frames.long_string()?;
    frames.u8()?;
    Some((kind == HEADER).then_some(payload))
}

/// The input is a header table as on the wire. It is read, shortened and copied within bounds.
///
/// # Panics
/// Panics if it does not hold.
pub fn tables(input: &[u8]) {
    let entries = || Entries::new(input).map(|entry| entry.map(|(name, value)| (name, value.text())));
    assert!(entries().count() <= input.len());
    for excess in [0, 1, input.len() / 2, input.len()] {
        let less = without_largest(input, excess);
        assert!(less.len() <= input.len().saturating_sub(excess).max(6), "{excess}");
        let mut all = Entries::new(input).map(|entry| format!("{entry:?}"));
        let kept = Entries::new(&less).skip(1).map(|entry| format!("{entry:?}"));
        kept.for_each(|entry| assert!(all.any(|other| other == entry), "{entry} in order"));
    }
    let mut table = FieldTable::default();
    table.insert(RAW_TABLE.into(), AMQPValue::ByteArray(ByteArray::from(input.to_vec())));
    read_properties(&BasicProperties::default().with_headers(table));
    Server::default().note(Reader::new(input));
}

fn read_properties(properties: &BasicProperties) {
    let _ = delivery_count(properties);
    for ours in [false, true] {
        let mut decoded = Decoded::read(properties, "orders", ours);
        let _ = decoded.copied_from();
        let copy = Envelope {
            headers: &decoded.headers,
            key: decoded.key.as_ref(),
            id: decoded.id.as_deref(),
            original: Some(properties),
            number: None,
            wait: None,
        };
        let _ = copy.encode(RoutingKey::None, FRAME_MAX as usize);
    }
}

/// The input is an entry of the log of trials.
///
/// # Panics
/// Panics if a record that was read is not the same after it was written and read again.
pub fn records(input: &[u8]) {
    if let Some(record) = Record::read(input) {
        assert_eq!(Record::read(record.to_string().as_bytes()), Some(record));
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::corpus::{PARSED, REPEATED, replay};

    #[test]
    fn frames() {
        replay("amqp_frames", super::frames, REPEATED);
    }

    #[test]
    fn tables() {
        replay("amqp_tables", super::tables, REPEATED);
    }

    #[test]
    fn records() {
        replay("amqp_records", super::records, PARSED);
    }
}
