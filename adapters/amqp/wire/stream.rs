//! The stream below the client: incoming bytes pass the [`FrameFilter`], and the connection can be
//! cut.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_core::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::frames::FrameFilter;
use super::socket::Socket;

/// Maximum number of bytes of one read from the socket.
const READ: usize = 64 * 1024;

/// A socket whose incoming frames are checked.
pub(crate) struct CheckedStream {
    socket: Socket,
    filter: FrameFilter,
    cut: Arc<Cut>,
}

impl CheckedStream {
    pub(crate) fn new(socket: Socket, filter: FrameFilter, cut: Arc<Cut>) -> Self {
        Self { socket, filter, cut }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.cut.register(cx);
        if self.cut.is_made() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let mut room = ReadBuf::new(self.filter.room(READ));
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        self.filter.filled(read);
        Poll::Ready(Ok(read))
    }

    /// Prefers what the broker said before it closed the connection to the failure to write to it:
    /// the refusal of a certificate may arrive before the first byte is written.
    fn or_refusal<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let is_closed =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        if !matches!(&written, Poll::Ready(Err(error)) if is_closed(error)) {
            return written;
        }
        // The end of the connection is an event for readers, too, which may be on its way.
        match ready!(self.poll_fill(cx)) {
            Err(refusal) if refusal.kind() == io::ErrorKind::InvalidData => Poll::Ready(Err(refusal)),
            _ => written,
        }
    }
}

impl AsyncRead for CheckedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            let taken = self.filter.take(buf)?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(0));
            }
        }
    }
}

impl AsyncWrite for CheckedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.or_refusal(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.or_refusal(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        if flushed.is_ready() {
            return self.or_refusal(cx, flushed);
        }
        let both = Waker::from(Arc::new(Both { writer: cx.waker().clone(), cut: Arc::clone(&self.cut) }));
        Pin::new(&mut self.socket).poll_flush(&mut Context::from_waker(&both))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Wakes the client to flush bytes that TLS holds back. When it is only told that it may write, and
/// has no more to write, it goes on waiting; when it may read, it flushes before.
struct Both {
    writer: Waker,
    cut: Arc<Cut>,
}

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.writer.wake_by_ref();
        self.cut.reader.wake();
    }
}

/// Ends a connection from outside: its next read fails, and then the client's thread ends, no
/// matter what the broker does.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    made: AtomicBool,
    reader: AtomicWaker,
}

impl Cut {
    pub(crate) fn make(&self) {
        self.made.store(true, Ordering::Release);
        self.reader.wake();
    }

    fn is_made(&self) -> bool {
        self.made.load(Ordering::Acquire)
    }

    fn register(&self, cx: &Context<'_>) {
        self.reader.register(cx.waker());
    }
}

/// Tokio, except for the type of its streams, as the client's connector requires.
pub(crate) type Kit = RuntimeParts<Tokio, CheckedReactor>;

/// Returns the runtime of the caller.
pub(crate) fn runtime() -> Runtime<Kit> {
    Runtime::new(RuntimeParts::new(Tokio::current(), CheckedReactor(Tokio::current())))
}

/// Tokio's timers. It opens no connections; the adapter does, and creates the [`CheckedStream`].
#[derive(Debug, Clone)]
pub(crate) struct CheckedReactor(Tokio);

impl Reactor for CheckedReactor {
    type TcpStream = CheckedStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<CheckedStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, dur: Duration) -> Self::Sleep {
        self.0.sleep(dur)
    }

    fn interval(&self, dur: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(dur)
    }

    fn tcp_connect_addr(
        &self,
        _addr: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::inspect::Inspector;
    use super::*;

    /// A socket that is never ready, and wakes at once who flushes it.
    struct Full;

    impl tokio::io::AsyncRead for Full {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl tokio::io::AsyncWrite for Full {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            cx.waker().wake_by_ref();
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_reads_is_woken_to_flush_too() {
        let filter = FrameFilter::new(Inspector::new(Arc::default(), Arc::default()));
        let mut stream = CheckedStream::new(Box::new(Full), filter, Arc::default());
        let (reader, writer) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&reader));
        assert!(Pin::new(&mut stream).poll_read(&mut Context::from_waker(&waker), &mut [0]).is_pending());
        let waker = Waker::from(Arc::clone(&writer));
        assert!(Pin::new(&mut stream).poll_flush(&mut Context::from_waker(&waker)).is_pending());
        assert!(reader.0.load(Ordering::Relaxed) == 1 && writer.0.load(Ordering::Relaxed) > 0);
    }
}
