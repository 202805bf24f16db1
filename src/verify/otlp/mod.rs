//! Reads spans from OTLP/JSON: one `ExportTraceServiceRequest` a line, as the Collector's file
//! exporter writes them.
//!
//! Ids are hex, as the OTLP specification has it for JSON (section "JSON Protobuf Encoding"), or
//! base64, which protobuf's own JSON mapping gives for bytes and some writers keep, 64-bit integers are strings or numbers, kinds and status codes are numbers or their protobuf
//! names, and unknown fields are ignored.

mod base64;
mod convert;
mod wire;

use std::fmt;
use std::io::{self, BufRead, Read};

pub(super) use self::convert::spans as spans_of;
pub(super) use self::wire::{ResourceSpans, Scalar, or_default};
use super::span::Span;
use super::trace::Traces;

/// The longest line read, in bytes: 64 MiB. The Collector's receivers take requests of a few MiB at
/// most.
pub const MAX_LINE: usize = 64 << 20;

/// Reads everything `input` holds.
///
/// ```
/// use traced_broker::verify::otlp;
///
/// let error = otlp::read("{\"resourceSpans\":[]}\n\n{\"resourceSpans\":7}\n".as_bytes()).unwrap_err();
/// assert_eq!(error.line(), 3);
/// assert!(otlp::read(&b"{}"[..]).unwrap().is_empty());
/// ```
///
/// # Errors
/// The first line that cannot be read ends it: see [`ReadErrorKind`]. To go on after a bad line,
/// iterate over a [`Reader`].
pub fn read<R: BufRead>(input: R) -> Result<Traces, ReadError> {
    let batches: Vec<Vec<Span>> = Reader::new(input).collect::<Result<_, _>>()?;
    Ok(batches.into_iter().flatten().collect())
}

/// Reads the spans of one line at a time, holding no more than that line ([`MAX_LINE`] at most).
///
/// Lines of white space are skipped. After a line that is not OTLP/JSON the iteration goes on with
/// the next line; after an I/O error it is over.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    buffer: Vec<u8>,
    line: u64,
    limit: usize,
    over: bool,
}

/// A line that could not be read.
#[derive(Debug)]
pub struct ReadError {
    line: u64,
    kind: ReadErrorKind,
}

/// Why a line could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// The input failed.
    Io(io::Error),
    /// The line is longer than this many bytes.
    TooLong(usize),
    /// The line ends in the middle of a value: it was cut off, or is still being written.
    Truncated,
    /// The line is not JSON, or not of the shape OTLP gives it.
    Malformed(serde_json::Error),
    /// A span, named here, has no trace id or no span id of its own.
    MissingId(String),
}

impl<R: BufRead> Reader<R> {
    /// A reader that starts at line 1.
    pub const fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), line: 0, limit: MAX_LINE, over: false }
    }

    /// Refuses lines longer than `bytes` instead of those longer than [`MAX_LINE`].
    #[must_use]
    pub const fn max_line(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// The next line that is not blank, into the buffer; `false` at the end of the input.
    fn next_line(&mut self) -> Result<bool, ReadErrorKind> {
        loop {
            self.buffer.clear();
            self.line += 1;
            // One byte more than the limit, for the line break.
            let most = (self.limit as u64).saturating_add(1);
            let count =
                self.input.by_ref().take(most).read_until(b'\n', &mut self.buffer).map_err(ReadErrorKind::Io)?;
            if count == 0 {
                return Ok(false);
            }
            if self.buffer.last() != Some(&b'\n') && count > self.limit {
                self.input.skip_until(b'\n').map_err(ReadErrorKind::Io)?;
                return Err(ReadErrorKind::TooLong(self.limit));
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Vec<Span>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let spans = match self.next_line() {
            Ok(true) => spans(&self.buffer),
            Ok(false) => {
                self.over = true;
                return None;
            }
            Err(kind) => {
                self.over = matches!(kind, ReadErrorKind::Io(_));
                Err(kind)
            }
        };
        Some(spans.map_err(|kind| ReadError { line: self.line, kind }))
    }
}

/// The spans of one export request.
fn spans(json: &[u8]) -> Result<Vec<Span>, ReadErrorKind> {
    let request: wire::Request = serde_json::from_slice(json)
        .map_err(|error| if error.is_eof() { ReadErrorKind::Truncated } else { ReadErrorKind::Malformed(error) })?;
    request.resource_spans.into_iter().flat_map(convert::spans).collect()
}

impl ReadError {
    /// The line, counted from 1.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.line
    }

    /// What is wrong with it.
    #[must_use]
    pub const fn kind(&self) -> &ReadErrorKind {
        &self.kind
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        match &self.kind {
            ReadErrorKind::Io(_) => f.write_str(": cannot read the input"),
            ReadErrorKind::TooLong(limit) => write!(f, ": longer than {limit} bytes"),
            ReadErrorKind::Truncated => f.write_str(": ends in the middle of a value: cut off, or still being written"),
            ReadErrorKind::Malformed(error) => {
                write!(f, ", column {}: not an OTLP/JSON export request", error.column())
            }
            ReadErrorKind::MissingId(name) => {
                write!(f, ": the span `{name}` has no trace id or no span id")
            }
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ReadErrorKind::Io(error) => Some(error),
            ReadErrorKind::Malformed(error) => Some(error),
            _ => None,
        }
    }
}
