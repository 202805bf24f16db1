//! Reads spans from OTLP/JSON: one `ExportTraceServiceRequest` per line, as the Collector's file
//! exporter writes them.
//!
//! Ids are hex, as the OTLP specification requires for JSON (section "JSON Protobuf Encoding"), or
//! base64, which protobuf's own JSON mapping uses for bytes and some writers keep. 64-bit integers
//! are strings or numbers. Kinds and status codes are numbers or their protobuf names. Unknown
//! fields are ignored.

mod base64;
mod convert;
mod wire;

use std::fmt;
use std::io::{self, BufRead, Read};

pub(super) use self::convert::spans as spans_of;
pub(super) use self::wire::{ResourceSpans, Scalar, or_default};
use super::span::Span;
use super::trace::Traces;

/// Maximum length of a line, in bytes: 64 MiB. The Collector's receivers accept requests of a few
/// MiB at most.
pub const MAX_LINE: usize = 64 << 20;

/// Reads all of `input`.
///
/// ```
/// use traced_broker::verify::otlp;
///
/// let file = "{\"resourceSpans\":[]}\n\n{\"resourceSpans\":7}\n";
/// let error = otlp::read(file.as_bytes()).unwrap_err();
/// assert_eq!(error.line(), 3);
/// assert!(otlp::read(&b"{}"[..]).unwrap().is_empty());
/// ```
///
/// # Errors
/// Reading ends at the first line that cannot be read: see [`ReadErrorKind`]. To continue after a
/// bad line, iterate over a [`Reader`].
pub fn read<R: BufRead>(input: R) -> Result<Traces, ReadError> {
    let batches: Vec<Vec<Span>> = Reader::new(input).collect::<Result<_, _>>()?;
    Ok(batches.into_iter().flatten().collect())
}

/// An iterator over the spans of one line at a time; holds only that line ([`MAX_LINE`] at most).
///
/// Blank lines are skipped. After a line that is not OTLP/JSON, the iteration continues with the
/// next line; an I/O error ends it.
///
/// ```
/// use traced_broker::verify::{Traces, otlp};
///
/// let request = concat!(
///     r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"#,
///     r#""traceId":"4bf92f3577b34da6a3ce929d0e0e4736","spanId":"00f067aa0ba902b7""#,
///     r#"}]}]}]}"#,
/// );
/// let file = format!("not JSON\n\n{request}\n");
/// let (mut spans, mut bad_lines) = (Vec::new(), Vec::new());
/// for line in otlp::Reader::new(file.as_bytes()) {
///     match line {
///         Ok(more) => spans.extend(more),
///         Err(error) => bad_lines.push(error.line()),
///     }
/// }
/// assert_eq!(bad_lines, [1]);
/// assert_eq!(Traces::from_iter(spans).len(), 1);
/// ```
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    buffer: Vec<u8>,
    line: u64,
    limit: usize,
    over: bool,
}

/// The error for a line that could not be read.
#[derive(Debug)]
pub struct ReadError {
    line: u64,
    kind: ReadErrorKind,
}

/// The reason why a line could not be read.
///
/// ```
/// use traced_broker::verify::otlp::{self, ReadErrorKind};
///
/// let error = otlp::read(r#"{"resourceSpans":["#.as_bytes()).unwrap_err();
/// // The Collector may still be writing this line: read the file again later.
/// assert!(matches!(error.kind(), ReadErrorKind::Truncated));
///
/// let error = otlp::read(r#"{"resourceSpans":7}"#.as_bytes()).unwrap_err();
/// assert!(matches!(error.kind(), ReadErrorKind::Malformed(_)));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// The input failed.
    Io(io::Error),
    /// The line is longer than this many bytes.
    TooLong(usize),
    /// The line ends in the middle of a value: it was cut off, or is still being written.
    Truncated,
    /// The line is not JSON, or does not have the structure of OTLP.
    Malformed(serde_json::Error),
    /// A span, named here, has no trace id or no span id.
    MissingId(String),
}

impl<R: BufRead> Reader<R> {
    /// Creates a reader that starts at line 1.
    pub const fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), line: 0, limit: MAX_LINE, over: false }
    }

    /// Sets the maximum length of a line, in bytes; [`MAX_LINE`] by default.
    ///
    /// ```
    /// use traced_broker::verify::otlp::{ReadErrorKind, Reader};
    ///
    /// let mut lines = Reader::new("{}\n{\"resourceSpans\":[]}\n".as_bytes()).max_line(16);
    /// assert!(lines.next().unwrap().is_ok());
    /// let error = lines.next().unwrap().unwrap_err();
    /// assert!(matches!(error.kind(), ReadErrorKind::TooLong(16)));
    /// ```
    #[must_use]
    pub const fn max_line(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Reads the next line that is not blank into the buffer; returns `false` at the end of the
    /// input.
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

/// Parses the spans of one export request.
fn spans(json: &[u8]) -> Result<Vec<Span>, ReadErrorKind> {
    let request: wire::Request = serde_json::from_slice(json)
        .map_err(|error| if error.is_eof() { ReadErrorKind::Truncated } else { ReadErrorKind::Malformed(error) })?;
    request.resource_spans.into_iter().flat_map(convert::spans).collect()
}

impl ReadError {
    /// Returns the number of the line, counted from 1.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.line
    }

    /// Returns the reason.
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
