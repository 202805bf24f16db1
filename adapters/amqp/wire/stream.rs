//! The stream below the client: incoming bytes pass the [`FrameFilter`], and the connection can be
//! cut.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_core::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::task::AtomicWaker;

use super::frames::FrameFilter;

/// Maximum number of bytes of one read from the socket.
const READ: usize = 64 * 1024;

type Socket = <Tokio as Reactor>::TcpStream;

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
        let room = self.filter.room(READ);
        let read = ready!(Pin::new(&mut self.socket).poll_read(cx, room))?;
        self.filter.filled(read);
        Poll::Ready(Ok(read))
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
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
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
