//! Properties of the parsers of header blocks, of the subjects of acknowledgements, and of the
//! server's descriptions.
//!
//! They stand here because the parsers are private. They are compiled for unit tests, which apply
//! them to the corpora, and for the fuzz targets, which no other build contains.

use async_nats::HeaderMap;
use bytes::Bytes;

use super::connection::info::{ConsumerInfo, StreamInfo};
use super::headers::header_names::HeaderNames;
use super::headers::reply_subject::{Tokens, acknowledge};
use super::headers::{Contents, is_readable, read, read_raw, write};
use crate::driver::Outbound;
use crate::names::header;

/// The input is a header block as on the wire. Its lines are headers or are counted, and a message
/// that was read and can be written is the same when it is read again.
///
/// # Panics
/// Panics if it does not hold.
pub fn headers(input: &[u8]) {
    let _ = is_readable(input);
    let Contents { headers, key, id, unreadable } = read_raw(input);
    let lines = || input.split(|byte| *byte == b'\n');
    assert!(headers.len() + unreadable as usize <= lines().count() + 1);
    assert!(headers.byte_len() <= input.len());
    written(&Outbound { headers, key, id, ..Outbound::default() });
    // A message of an application, whose values nothing has trimmed.
    for line in lines() {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (String::from_utf8_lossy(&line[..colon]), &line[colon + 1..]);
        let headers = [(&*name, value)].into_iter().collect();
        let key = Some(Bytes::copy_from_slice(value));
        written(&Outbound { headers, key, ..Outbound::default() });
    }
}

/// Holds that a message is refused, or is the same when it is read again.
fn written(message: &Outbound) {
    let spelled = HeaderNames::Canonical.spell(message.clone());
    assert_eq!(HeaderNames::Canonical.spell(spelled.clone()).headers, spelled.headers);
    for is_copy in [false, true] {
        let message = Outbound { is_copy, ..message.clone() };
        let Ok(block) = write(&message, None) else { continue };
        let wire = block.headers.as_ref().map(on_the_wire).unwrap_or_default();
        assert_eq!(block.wire_len, wire.len());
        if !wire.is_empty() {
            assert!(is_readable(&wire), "{}", wire.escape_ascii());
            agrees(&read_raw(&wire), &message);
        }
        agrees(&read(block.headers.as_ref()), &message);
    }
}

/// Writes a block as the client does.
fn on_the_wire(headers: &HeaderMap) -> Vec<u8> {
    let mut wire = b"NATS/1.0\r\n".to_vec();
    for (name, values) in headers.iter() {
        for value in values {
            let name: &str = name.as_ref();
            wire.extend_from_slice(format!("{name}: {}\r\n", value.as_str()).as_bytes());
        }
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

fn agrees(contents: &Contents, message: &Outbound) {
    assert_eq!((contents.unreadable, &contents.key), (0, &message.key));
    // A header with an id, which may be several, stands for an id that is missing.
    if !message.headers.contains(header::MESSAGE_ID) {
        assert_eq!(contents.id.as_deref(), message.id.as_deref().filter(|id| !id.is_empty()));
    }
    for (name, _) in message.headers.iter() {
        let values = |headers: &crate::Headers| headers.get_all(name).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (read, written) = (values(&contents.headers), values(&message.headers));
        assert!(written.iter().all(|value| read.contains(value)), "{name}");
    }
}

/// The input is the subject of an acknowledgement, or a description of a stream or consumer in
/// JSON.
///
/// # Panics
/// Panics if a parser does.
pub fn descriptions(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if let Some(tokens) = Tokens::read(text) {
        let subject = acknowledge("orders", "workers", tokens.stream_sequence);
        assert_eq!(Tokens::read(&subject).map(|tokens| tokens.stream_sequence), Some(tokens.stream_sequence));
    }
    let Ok(answer) = serde_json::from_str::<serde_json::Value>(text) else { return };
    let _ = StreamInfo::read(&answer);
    if let Ok(info) = ConsumerInfo::read(answer) {
        let _ = (info.config.ack_wait(), info.config.limit("max_batch"), info.config.texts("filter_subjects"));
        assert!(info.config.into_value().is_object());
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::corpus::{PARSED, replay};

    #[test]
    fn headers() {
        replay("nats_headers", super::headers, PARSED);
    }

    #[test]
    fn descriptions() {
        replay("nats_descriptions", super::descriptions, PARSED);
    }
}
