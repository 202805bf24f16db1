//! Redis's protocol over a socket: commands out, answers in, in the task that uses it.
//!
//! The client crate encodes commands; answers are read here, at a fraction of what its incremental parser costs, which is
//! most of the work of reading a stream.

use std::io;
use std::task::{Context, Poll, ready};

use ::redis::{RedisResult, Value};
use bytes::{Buf, Bytes, BytesMut};
use tokio::net::TcpStream;

use super::answer::{self, Outline};

/// How much room one read from the socket has at least.
const READ: usize = 64 * 1024;

/// A buffer that grew beyond this for one answer is given back once it is empty.
const KEPT: usize = 1024 * 1024;

/// A connection whose bytes are moved by whoever polls it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    /// Not written yet: less than what was asked without an answer having come.
    output: BytesMut,
    /// Read and not yet taken: at most one answer that is not complete, and what came with it.
    input: BytesMut,
    outline: Outline,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, output: BytesMut::new(), input: BytesMut::new(), outline: Outline::new() }
    }

    /// Writes as much as the socket takes; polling for an answer writes the rest.
    pub(super) fn send(&mut self, mut bytes: &[u8]) {
        while self.output.is_empty() && !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                // A failure shows again when an answer is waited for.
                Err(_) => break,
            }
        }
        self.output.extend_from_slice(bytes);
    }

    /// The next answer.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<RedisResult<Value>> {
        let length = ready!(self.poll_complete(cx))?;
        let value = answer::read(&self.input[..length]);
        self.input.advance(length);
        self.tidy();
        Poll::Ready(value)
    }

    /// The next answer, as it came.
    pub(super) fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<RedisResult<Bytes>> {
        let length = ready!(self.poll_complete(cx))?;
        let raw = self.input.split_to(length).freeze();
        // The next one is probably as long; room for it at once saves moving it about while it grows.
        if self.input.is_empty() {
            self.input = BytesMut::with_capacity((length + READ).min(KEPT));
        }
        Poll::Ready(Ok(raw))
    }

    /// The length of the next answer, once it is all there.
    fn poll_complete(&mut self, cx: &mut Context<'_>) -> Poll<RedisResult<usize>> {
        // Both are tried, for a server that cannot write does not read either.
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(Err(error.into()));
        }
        loop {
            if let Some(length) = self.outline.complete(&self.input)? {
                self.outline = Outline::new();
                return Poll::Ready(Ok(length));
            }
            ready!(self.poll_read(cx))?;
        }
    }

    fn tidy(&mut self) {
        if self.input.is_empty() && self.input.capacity() > KEPT {
            self.input = BytesMut::new();
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match self.stream.try_write(&self.output) {
                Ok(written) => self.output.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.stream.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Not all of a large one at once: that it comes is only said.
        self.input.reserve(self.outline.lacking(&self.input).clamp(READ, KEPT));
        loop {
            match self.stream.try_read_buf(&mut self.input) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.stream.poll_read_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
