//! Redis's protocol over a socket: commands out, answers in, in the task that uses it.
//!
//! The client crate encodes commands. Answers are read here, at a fraction of the cost of the
//! client's incremental parser, which would be most of the work of reading a stream.

use std::io;
use std::task::{Context, Poll, ready};

use ::redis::{RedisResult, Value};
use bytes::{Buf, Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::task::coop::poll_proceed;

use super::answer::{self, Outline};

/// Minimum room for one read from the socket.
const READ: usize = 64 * 1024;

/// Size beyond which a buffer that grew for one answer is freed once it is empty.
const KEPT: usize = 1024 * 1024;

/// A connection whose bytes are moved by the task that polls it.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    /// Bytes that are not written yet, all of them from unanswered requests.
    output: BytesMut,
    /// Bytes that were read and not taken: at most one incomplete answer, and what came with it.
    input: BytesMut,
    outline: Outline,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, output: BytesMut::new(), input: BytesMut::new(), outline: Outline::new() }
    }

    #[cfg(test)]
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes as much as the socket takes; polling for an answer writes the rest.
    pub(crate) fn send(&mut self, mut bytes: &[u8]) {
        while self.output.is_empty() && !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                // A failure is reported again when an answer is awaited.
                Err(_) => break,
            }
        }
        self.output.extend_from_slice(bytes);
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
            return Poll::Ready(Err(error.into()));
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
            match self.stream.try_write(&self.output) {
                Ok(written) => self.output.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.stream.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Limited for a large answer: its length is only announced.
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::TcpListener;

    use super::*;

    /// Returns a wire, and the other end of its connection.
    async fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Wire::new(here), listener.accept().await.unwrap().0)
    }

    /// An answer that is all there is still not read without a pause if the task has had its share.
    #[tokio::test]
    async fn lets_other_tasks_run_while_it_reads() {
        let (mut wire, server) = pair().await;
        let answer = [b"$4000000\r\n".as_slice(), &[b'x'; 4_000_000], b"\r\n"].concat();
        let writing = tokio::spawn(async move {
            let mut server = server;
            tokio::io::AsyncWriteExt::write_all(&mut server, &answer).await.unwrap();
            server
        });
        // The first piece is there, and more of them than the task may read.
        wire.stream.readable().await.unwrap();
        let first = poll_fn(|cx| {
            while let Poll::Ready(spent) = poll_proceed(cx) {
                spent.made_progress();
            }
            Poll::Ready(wire.poll_read_some(cx))
        });
        assert_eq!(first.await, 0, "nothing is read by a task that should yield");
        let answer = poll_fn(|cx| wire.poll_raw(cx)).await.unwrap();
        assert_eq!(answer.len(), 4_000_012);
        drop(writing.await.unwrap());
    }

    impl Wire {
        /// Polls for an answer, and returns how many bytes came.
        fn poll_read_some(&mut self, cx: &mut Context<'_>) -> usize {
            let _ = self.poll_raw(cx).map(drop);
            self.input.len()
        }
    }
}
