//! Reading a stream whose writer has ended, but which somebody else may still hold.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

/// Bytes still taken once the time is over: what a socket can hold, so that nothing written in time is lost, while a
/// grandchild that writes for ever does not keep the stream open.
const LAST_BYTES: usize = 4 * 1024 * 1024;

/// A reader that ends with its stream, or some time after the child's exit.
pub(crate) struct Draining<R> {
    inner: R,
    /// Ready when the time is over; `None` once it was.
    limit: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    left: usize,
}

impl<R> Draining<R> {
    pub(crate) fn new(inner: R, mut exited: watch::Receiver<bool>, limit: Duration) -> Self {
        let over = async move {
            // The sender lives until the exit is known; were it dropped, the exit would be as certain.
            drop(exited.wait_for(|exited| *exited).await);
            tokio::time::sleep(limit).await;
        };
        Self { inner, limit: Some(Box::pin(over)), left: LAST_BYTES }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Draining<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(limit) = self.limit.as_mut()
            && limit.as_mut().poll(cx).is_ready()
        {
            self.limit = None;
        }
        if self.limit.is_some() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        if self.left == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Pending => Poll::Ready(Ok(())),
            read @ Poll::Ready(_) => {
                ready!(read)?;
                self.left = self.left.saturating_sub(buf.filled().len() - before);
                Poll::Ready(Ok(()))
            }
        }
    }
}
