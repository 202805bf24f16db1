//! Filters the broker's bytes frame by frame before the client parses them.

use std::io;

use super::bytes::OVERHEAD;
use super::bytes::Reader;
use super::content_header;
use super::inspect::{FrameAction, Inspector};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// The first letter of the broker's protocol header, which it sends instead of a frame if it does
/// not support this version.
const PROTOCOL_HEADER: u8 = b'A';

/// The length of a frame's type, channel and payload size.
const START: usize = 7;
const END: u8 = 0xCE;
/// The longest method or content header that is read whole. The broker may send frames longer than
/// agreed: a publisher may have been allowed longer ones, and the broker adds headers. The
/// properties of a longer content header are dropped.
const LONGEST: usize = 1 << 20;

/// Takes the bytes that were read and returns the bytes that the client is to see.
///
/// Holds the bytes of one read, and at most one frame of 1 MiB beyond them.
#[derive(Debug)]
pub(crate) struct FrameFilter {
    inspector: Inspector,
    /// The input, at `done..end`. It never shrinks, so that it is cleared only once.
    input: Vec<u8>,
    done: usize,
    end: usize,
    /// A rewritten frame; `handed` counts its bytes that were passed on.
    output: Vec<u8>,
    handed: usize,
    current: Current,
}

/// The treatment of the next bytes.
#[derive(Debug, Clone, Copy)]
enum Current {
    /// A new frame begins.
    Undecided,
    /// The rewritten frame is passed on, then the original of that many bytes is dropped.
    Rewritten(usize),
    Pass(usize),
    Drop(usize),
}

impl FrameFilter {
    pub(crate) fn new(inspector: Inspector) -> Self {
        Self {
            inspector,
            input: Vec::new(),
            done: 0,
            end: 0,
            output: Vec::new(),
            handed: 0,
            current: Current::Undecided,
        }
    }

    /// Returns room to read into; [`filled`](Self::filled) reports how much of it was used.
    pub(crate) fn room(&mut self, bytes: usize) -> &mut [u8] {
        self.input.copy_within(self.done..self.end, 0);
        self.end -= self.done;
        self.done = 0;
        if self.input.len() < self.end + bytes {
            self.input.resize(self.end + bytes, 0);
        }
        &mut self.input[self.end..self.end + bytes]
    }

    /// Accepts the bytes that were read into the [`room`](Self::room).
    pub(crate) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// Moves available output to `out` and returns its length; 0 if more input is needed.
    ///
    /// # Errors
    /// `InvalidData` if the broker does not speak the protocol.
    pub(crate) fn take(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < out.len() {
            let input = &self.input[self.done..self.end];
            match self.current {
                Current::Undecided => match self.next_frame() {
                    Ok(true) => {}
                    // The frames before it are passed on first; the next call fails.
                    Err(error) if written == 0 => return Err(error),
                    Ok(false) | Err(_) => break,
                },
                Current::Rewritten(original) => {
                    let moved = copy(&self.output[self.handed..], &mut out[written..]);
                    self.handed += moved;
                    written += moved;
                    if self.handed == self.output.len() {
                        self.current = Current::Drop(original);
                    }
                }
                Current::Pass(0) | Current::Drop(0) => self.current = Current::Undecided,
                Current::Pass(_) | Current::Drop(_) if input.is_empty() => break,
                Current::Pass(left) => {
                    let moved = copy(&input[..left.min(input.len())], &mut out[written..]);
                    self.done += moved;
                    written += moved;
                    self.current = Current::Pass(left - moved);
                }
                Current::Drop(left) => {
                    let dropped = left.min(input.len());
                    self.done += dropped;
                    self.current = Current::Drop(left - dropped);
                }
            }
        }
        Ok(written)
    }

    /// Decides the treatment of the next frame; returns `false` if too little of it was read.
    fn next_frame(&mut self) -> io::Result<bool> {
        let input = &self.input[self.done..self.end];
        let mut reader = Reader::new(input);
        let (Some(kind), Some(channel), Some(size)) = (reader.u8(), reader.u16(), reader.u32()) else {
            return Ok(false);
        };
        let whole = size as usize + OVERHEAD;
        // The part of the frame that is needed to decide, and the part that is inspected.
        let (needed, looked_at) = match kind {
            METHOD | HEADER if whole <= LONGEST => (whole, whole - 1),
            HEADER => (START + content_header::PREFIX, START + content_header::PREFIX),
            BODY | HEARTBEAT => (START, START),
            PROTOCOL_HEADER => {
                self.current = Current::Pass(OVERHEAD);
                return Ok(true);
            }
            _ => return Err(invalid("the broker sent something that is not a frame")),
        };
        if input.len() < needed {
            return Ok(false);
        }
        self.output.clear();
        self.handed = 0;
        self.output.extend_from_slice(&input[..START]);
        let payload = &input[START..looked_at];
        let fate = match kind {
            METHOD => self.inspector.method(channel, payload, &mut self.output),
            HEADER => self.inspector.header(channel, payload, &mut self.output).ok_or_else(|| invalid(TRUNCATED))?,
            BODY => self.inspector.body(channel, size.into()),
            _ => FrameAction::Pass,
        };
        self.current = match fate {
            FrameAction::Pass => Current::Pass(whole),
            FrameAction::Drop => Current::Drop(whole),
            FrameAction::Rewritten => {
                seal(&mut self.output);
                Current::Rewritten(whole)
            }
        };
        Ok(true)
    }
}

const TRUNCATED: &str = "the broker sent a content header without a body size";

/// Completes a rewritten frame: sets its size and appends its end.
fn seal(frame: &mut Vec<u8>) {
    let size = u32::try_from(frame.len() - START).unwrap_or(u32::MAX);
    frame[3..START].copy_from_slice(&size.to_be_bytes());
    frame.push(END);
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let moved = from.len().min(to.len());
    to[..moved].copy_from_slice(&from[..moved]);
    moved
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
