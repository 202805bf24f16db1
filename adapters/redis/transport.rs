//! Streams of bytes to the server, which the application may open itself.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of bytes to the server and back.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

type Opening = BoxFuture<'static, io::Result<Box<dyn Transport>>>;

/// The application's function that opens transports.
#[derive(Clone)]
pub(crate) struct Opener(Arc<dyn Fn() -> Opening + Send + Sync>);

impl Opener {
    pub(crate) fn new<T: Transport + 'static, F: Future<Output = io::Result<T>> + Send + 'static>(
        open: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move || {
            let opening = open();
            Box::pin(async move { Ok(Box::new(opening.await?) as Box<dyn Transport>) })
        }))
    }

    pub(crate) async fn open(&self) -> io::Result<Box<dyn Transport>> {
        (self.0)().await
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}
