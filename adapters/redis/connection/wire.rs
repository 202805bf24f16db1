//! Redis's protocol over any stream of bytes: commands out, answers in, in the task that uses it.
//!
//! The client crate encodes commands. Answers are read here, at a fraction of the cost of the
//! client's incremental parser, which would be most of the work of reading a stream, and which
//! keeps an answer of any length.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use ::redis::{RedisResult, Value};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite as _;
use tokio::task::coop::poll_proceed;
use tokio_util::io::poll_read_buf;

use super::super::transport::Transport;
use super::answer::{self, Outline};

/// Minimum room for one read from the stream.
const READ: usize = 64 * 1024;

/// Size beyond which a buffer that grew for one answer is freed once it is empty.
const KEPT: usize = 1024 * 1024;

/// A connection whose bytes are moved by the task that polls it.
pub(crate) struct Wire {
    transport: Box<dyn Transport>,
    /// Bytes that are not written yet, all of them from unanswered requests.
    output: BytesMut,
    /// `true` if the transport may hold back bytes that were written, as TLS does.
    is_unflushed: bool,
    /// Bytes that were read and not taken: at most one incomplete answer, and what came with it.
    input: BytesMut,
    outline: Outline,
}

impl Wire {
    pub(crate) fn new(transport: Box<dyn Transport>) -> Self {
        let (output, input) = (BytesMut::new(), BytesMut::new());
        Self { transport, output, is_unflushed: false, input, outline: Outline::new() }
    }

    /// Writes as much as the transport takes; polling for an answer writes the rest.
    pub(crate) fn send(&mut self, mut bytes: &[u8]) {
        // The next poll for an answer, which has a waker, tries again.
        let mut cx = Context::from_waker(Waker::noop());
        while self.output.is_empty() && !bytes.is_empty() {
            match Pin::new(&mut self.transport).poll_write(&mut cx, bytes) {
                Poll::Ready(Ok(written)) if written > 0 => bytes = &bytes[written..],
                // A failure is reported again when an answer is awaited.
                _ => break,
            }
            self.is_unflushed = true;
        }
        self.output.extend_from_slice(bytes);
        let _ = self.poll_write(&mut cx);
    }

    /// Polls for the next answer.
    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<RedisResult<Value>> {
        let length = ready!(self.poll_complete(cx))?;
        let value = answer::read(&self.input[..length]);
        self.input.advance(length);
        self.tidy();
        Poll::Ready(value)
    }

    /// Polls for the next answer, in the form in which it came.
    pub(crate) fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<RedisResult<Bytes>> {
        let length = ready!(self.poll_complete(cx))?;
        let raw = self.input.split_to(length).freeze();
        // The next answer is probably as long. Room for all of it avoids moving it while it grows.
        if self.input.is_empty() {
            self.input = BytesMut::with_capacity((length + READ).min(KEPT));
        }
        Poll::Ready(Ok(raw))
    }

    /// Polls for the length of the next answer, which is known once it is complete.
    fn poll_complete(&mut self, cx: &mut Context<'_>) -> Poll<RedisResult<usize>> {
        // Both writing and reading are tried, because a server that cannot write does not read
        // either.
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            // A server that has ended the connection may have said why, as TLS does.
            return Poll::Ready(Err(match self.poll_read(cx) {
                Poll::Ready(Err(reason)) if reason.get_ref().is_some() => reason.into(),
                _ => error.into(),
            }));
        }
        loop {
            if let Some(length) = self.outline.complete(&self.input)? {
                self.outline = Outline::new();
                return Poll::Ready(Ok(length));
            }
            // A long answer lets other tasks and time limits have their turn.
            let budget = ready!(poll_proceed(cx));
            ready!(self.poll_read(cx))?;
            budget.made_progress();
        }
    }

    fn tidy(&mut self) {
        if self.input.is_empty() && self.input.capacity() > KEPT {
            self.input = BytesMut::new();
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut self.transport).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.output.advance(written),
            }
            self.is_unflushed = true;
        }
        if self.is_unflushed {
            ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Limited for a large answer: its length is only announced.
        self.input.reserve(self.outline.lacking(&self.input).clamp(READ, KEPT));
        match ready!(poll_read_buf(Pin::new(&mut self.transport), cx, &mut self.input))? {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, BufWriter, join, repeat, sink};

    use super::*;

    /// Returns a wire on which these bytes come, and then others without end.
    fn flooded(bytes: &'static [u8]) -> Wire {
        Wire::new(Box::new(join(AsyncReadExt::chain(bytes, repeat(b'x')), sink())))
    }

    /// An answer that is all there is still not read without a pause if the task has had its share.
    #[tokio::test]
    async fn lets_other_tasks_run_while_it_reads() {
        let mut wire = flooded(b"$4000000\r\n");
        let first = poll_fn(|cx| {
            while let Poll::Ready(spent) = poll_proceed(cx) {
                spent.made_progress();
            }
            let _ = wire.poll_raw(cx).map(drop);
            Poll::Ready(wire.input.len())
        });
        assert_eq!(first.await, 0, "nothing is read by a task that should yield");
        let answer = poll_fn(|cx| wire.poll_raw(cx)).await.unwrap();
        assert_eq!(answer.len(), 4_000_012);
    }

    /// Whatever a server announces, and however fast it sends, what is kept has a bound.
    #[tokio::test]
    async fn keeps_little_of_an_answer_that_is_too_long() {
        let mut wire = flooded(b"*2\r\n$1073741824\r\n");
        assert!(answer::is_too_long(&poll_fn(|cx| wire.poll_answer(cx)).await.unwrap_err()));
        assert!(wire.input.len() <= KEPT, "{}", wire.input.len());
        let mut wire = flooded(b"+");
        poll_fn(|cx| wire.poll_raw(cx)).await.unwrap_err();
        assert!(wire.input.len() <= KEPT, "{}", wire.input.len());
    }

    /// TLS keeps what was written until it is flushed.
    #[tokio::test]
    async fn flushes_what_it_writes() {
        let (here, mut server) = tokio::io::duplex(64);
        let mut wire = Wire::new(Box::new(BufWriter::with_capacity(1000, here)));
        let mut received = [0; 100];
        // All of it at once, and more than there is room for.
        for length in [10, 100] {
            wire.send(&vec![b'x'; length]);
            let mut answered = Box::pin(poll_fn(|cx| wire.poll_answer(cx)));
            tokio::select! {
                _ = &mut answered => panic!("no answer was sent"),
                read = server.read_exact(&mut received[..length]) => assert_eq!(read.unwrap(), length),
            }
        }
    }
}
