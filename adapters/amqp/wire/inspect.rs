//! Decides the treatment of each frame that the broker sends.
//!
//! Content headers are [rewritten](super::content_header), short strings of methods are made valid
//! UTF-8, returned messages are noted and dropped, and everything else passes.

use std::collections::HashMap;
use std::sync::Arc;

use super::bytes::OVERHEAD;
use super::bytes::Reader;
use super::content_header::{self, write_text};
use super::returned::Returned;
use super::server::Server;

/// The maximum frame size that the client proposes, RabbitMQ's own default. The broker may choose
/// less.
pub(crate) const FRAME_MAX: u32 = 131_072;

const START: (u16, u16) = (10, 10);
const TUNE: (u16, u16) = (10, 30);
const RETURN: (u16, u16) = (60, 50);

/// The treatment of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum FrameAction {
    Pass,
    Drop,
    /// The payload was rewritten.
    Rewritten,
}

/// Inspects the frames of one connection, in order.
#[derive(Debug)]
pub(crate) struct Inspector {
    frame_max: usize,
    returned: Arc<Returned>,
    server: Arc<Server>,
    /// The returned messages that are incomplete, by their channel. Frames of other channels may
    /// come in between.
    returning: HashMap<u16, Returning>,
}

/// The next expected part of a returned message.
#[derive(Debug, Clone, Copy)]
enum Returning {
    Header,
    Body(u64),
}

/// A part of a method's arguments.
enum Part {
    Text,
    Fixed(usize),
}

impl Inspector {
    pub(crate) fn new(returned: Arc<Returned>, server: Arc<Server>) -> Self {
        Self { frame_max: FRAME_MAX as usize, returned, server, returning: HashMap::new() }
    }

    /// Inspects a method; may append its payload to `out`.
    pub(crate) fn method(&mut self, channel: u16, payload: &[u8], out: &mut Vec<u8>) -> FrameAction {
        let mut reader = Reader::new(payload);
        let (Some(class), Some(method)) = (reader.u16(), reader.u16()) else {
            return FrameAction::Pass;
        };
        match (class, method) {
            START => {
                self.server.note(reader);
                FrameAction::Pass
            }
            TUNE => {
                self.tune(reader);
                FrameAction::Pass
            }
            RETURN if self.returned.is_channel(channel) => {
                self.returning.insert(channel, Returning::Header);
                FrameAction::Drop
            }
            (class, method) => {
                let Some(parts) = parts_with_text(class, method) else { return FrameAction::Pass };
                if reads_as_text(reader, parts) {
                    return FrameAction::Pass;
                }
                out.extend_from_slice(&payload[..4]);
                rewrite_parts(reader, parts, out);
                FrameAction::Rewritten
            }
        }
    }

    /// Rewrites a content header: appends its payload to `out`. Returns `None` if it has no body
    /// size.
    pub(crate) fn header(&mut self, channel: u16, payload: &[u8], out: &mut Vec<u8>) -> Option<FrameAction> {
        if matches!(self.returning.get(&channel), Some(Returning::Header)) {
            let (body_size, table) = content_header::inspect(payload)?;
            self.returned.note(table);
            self.expect(channel, body_size);
            return Some(FrameAction::Drop);
        }
        content_header::rewrite(payload, self.frame_max - OVERHEAD, out)?;
        Some(FrameAction::Rewritten)
    }

    /// Inspects a part of a body, of that size.
    pub(crate) fn body(&mut self, channel: u16, size: u64) -> FrameAction {
        match self.returning.get(&channel) {
            Some(Returning::Body(left)) => {
                self.expect(channel, left.saturating_sub(size));
                FrameAction::Drop
            }
            _ => FrameAction::Pass,
        }
    }

    /// Expects so many bytes more of the body of a returned message.
    fn expect(&mut self, channel: u16, left: u64) {
        match left {
            0 => self.returning.remove(&channel),
            left => self.returning.insert(channel, Returning::Body(left)),
        };
    }

    /// Reads the maximum frame size of the broker, 0 for any size. The lower of that and the
    /// client's applies.
    fn tune(&mut self, mut reader: Reader<'_>) {
        if let (Some(_channels), Some(frame_max @ 4096..)) = (reader.u16(), reader.u32()) {
            self.frame_max = self.frame_max.min(frame_max as usize);
        }
    }
}

/// Returns the arguments of the methods that repeat strings of other programs: routing keys, names,
/// and the broker's texts about them.
fn parts_with_text(class: u16, method: u16) -> Option<&'static [Part]> {
    use Part::{Fixed, Text};
    Some(match (class, method) {
        // connection.close, channel.close: code, text.
        (10, 50) | (20, 40) => &[Fixed(2), Text],
        // basic.consume-ok, basic.cancel: consumer tag.
        (60, 21 | 30) => &[Text],
        // basic.return: code, text, exchange, routing key.
        RETURN => &[Fixed(2), Text, Text, Text],
        // basic.deliver: consumer tag, delivery tag and redelivered, exchange, routing key.
        (60, 60) => &[Text, Fixed(9), Text, Text],
        // basic.get-ok: delivery tag and redelivered, exchange, routing key.
        (60, 71) => &[Fixed(9), Text, Text],
        _ => return None,
    })
}

fn reads_as_text(mut reader: Reader<'_>, parts: &[Part]) -> bool {
    parts.iter().all(|part| match part {
        Part::Fixed(length) => reader.take(*length).is_some(),
        Part::Text => reader.short_string().is_none_or(|text| std::str::from_utf8(text).is_ok()),
    })
}

fn rewrite_parts(mut reader: Reader<'_>, parts: &[Part], out: &mut Vec<u8>) {
    for part in parts {
        match part {
            Part::Fixed(length) => out.extend_from_slice(reader.take(*length).unwrap_or_default()),
            Part::Text => {
                if let Some(text) = reader.short_string() {
                    write_text(text, out);
                }
            }
        }
    }
    out.extend_from_slice(reader.rest());
}
