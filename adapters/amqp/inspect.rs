//! What becomes of each frame that the broker sends.
//!
//! Content headers are [rewritten](super::content_header), short texts of methods are made readable, returned messages are
//! noted and taken out, and everything else passes.

use std::sync::Arc;

use super::bytes::Reader;
use super::content_header::{self, write_text};
use super::frames::OVERHEAD;
use super::returned::Returned;

/// The largest frame we ask the broker for, RabbitMQ's own default. It may settle on less.
pub(super) const FRAME_MAX: u32 = 131_072;

const TUNE: (u16, u16) = (10, 30);
const RETURN: (u16, u16) = (60, 50);

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fate {
    Pass,
    Drop,
    /// Its payload was written anew.
    Rewritten,
}

/// Looks at the frames of one connection, in order.
#[derive(Debug)]
pub(super) struct Inspector {
    frame_max: usize,
    returned: Arc<Returned>,
    returning: Returning,
}

/// How far the publishing channel is with a returned message; its frames come in a row on that channel.
#[derive(Debug, Clone, Copy)]
enum Returning {
    Nothing,
    Header,
    Body(u64),
}

/// A part of a method's arguments.
enum Part {
    Text,
    Fixed(usize),
}

impl Inspector {
    pub(super) fn new(returned: Arc<Returned>) -> Self {
        Self { frame_max: FRAME_MAX as usize, returned, returning: Returning::Nothing }
    }

    /// A method: may append its payload to `out`.
    pub(super) fn method(&mut self, channel: u16, payload: &[u8], out: &mut Vec<u8>) -> Fate {
        let mut reader = Reader::new(payload);
        let (Some(class), Some(method)) = (reader.u16(), reader.u16()) else {
            return Fate::Pass;
        };
        match (class, method) {
            TUNE => {
                self.tune(reader);
                Fate::Pass
            }
            RETURN if self.returned.is_channel(channel) => {
                self.returning = Returning::Header;
                Fate::Drop
            }
            (class, method) => {
                let Some(parts) = parts_with_text(class, method) else { return Fate::Pass };
                if reads_as_text(reader, parts) {
                    return Fate::Pass;
                }
                out.extend_from_slice(&payload[..4]);
                rewrite_parts(reader, parts, out);
                Fate::Rewritten
            }
        }
    }

    /// A content header: appends its payload to `out`. `None` when it has no body size.
    pub(super) fn header(&mut self, channel: u16, payload: &[u8], out: &mut Vec<u8>) -> Option<Fate> {
        if self.returned.is_channel(channel) && matches!(self.returning, Returning::Header) {
            let (body_size, table) = content_header::inspect(payload)?;
            self.returned.note(table);
            self.returning = if body_size == 0 { Returning::Nothing } else { Returning::Body(body_size) };
            return Some(Fate::Drop);
        }
        content_header::rewrite(payload, self.frame_max - OVERHEAD, out)?;
        Some(Fate::Rewritten)
    }

    /// A part of a body, of that size.
    pub(super) fn body(&mut self, channel: u16, size: u64) -> Fate {
        match self.returning {
            Returning::Body(left) if self.returned.is_channel(channel) => {
                let left = left.saturating_sub(size);
                self.returning = if left == 0 { Returning::Nothing } else { Returning::Body(left) };
                Fate::Drop
            }
            _ => Fate::Pass,
        }
    }

    /// The broker names the largest frame, 0 for any size: the lower of that and ours will hold.
    fn tune(&mut self, mut reader: Reader<'_>) {
        if let (Some(_channels), Some(frame_max @ 4096..)) = (reader.u16(), reader.u32()) {
            self.frame_max = self.frame_max.min(frame_max as usize);
        }
    }
}

/// The arguments of the methods that repeat what others wrote: routing keys, names, and the broker's words about them.
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
