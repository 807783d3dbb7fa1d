//! A client's connection in the form that hyper requires, with a timeout for writes.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

/// Several parts that are together no longer than this are copied into one write, which costs the
/// kernel less than a vectored one.
const MAX_FLATTEN_BYTES: usize = 8 * 1024;

thread_local! {
    static FLATTEN_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A socket whose writes fail when the client has accepted no bytes for `write_timeout`.
///
/// hyper has no such timeout: clients that never read would hold their connections, and those to
/// the endpoints, forever.
#[derive(Debug)]
pub struct WriteTimeoutStream {
    inner: TcpStream,
    write_timeout: Duration,
    /// Armed while the client accepts no bytes.
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl WriteTimeoutStream {
    /// Wraps an accepted connection; the timeout starts with each write that would block.
    pub fn new(stream: TcpStream, write_timeout: Duration) -> Self {
        Self { inner: stream, write_timeout, write_timer: None }
    }

    fn poll_write_timeout<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let timeout = self.write_timeout;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for WriteTimeoutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for WriteTimeoutStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.poll_write_timeout(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = Pin::new(&mut self.inner);
        let written = match bufs {
            [one] => inner.poll_write(cx, one),
            _ if bufs.iter().map(|part| part.len()).sum::<usize>() > MAX_FLATTEN_BYTES => {
                inner.poll_write_vectored(cx, bufs)
            }
            _ => FLATTEN_BUFFER.with_borrow_mut(|buffer| {
                buffer.clear();
                bufs.iter().for_each(|part| buffer.extend_from_slice(part));
                inner.poll_write(cx, buffer)
            }),
        };
        self.poll_write_timeout(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The connection that requests are read from and responses are written to.
#[derive(Debug)]
pub struct ClientStream {
    transport: Transport,
    /// Bytes that were read to detect the protocol, and are read again first.
    replay: Bytes,
}

#[derive(Debug)]
enum Transport {
    Plain(TokioIo<WriteTimeoutStream>),
    Tls(Box<TokioIo<TlsStream<WriteTimeoutStream>>>),
}

impl ClientStream {
    /// A connection in cleartext, of which `replay` has been read.
    pub fn plain(stream: WriteTimeoutStream, replay: Bytes) -> Self {
        Self { transport: Transport::Plain(TokioIo::new(stream)), replay }
    }

    pub fn tls(stream: TlsStream<WriteTimeoutStream>) -> Self {
        let transport = Transport::Tls(Box::new(TokioIo::new(stream)));
        Self { transport, replay: Bytes::new() }
    }
}

impl Read for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.replay.is_empty() {
            let taken = self.replay.len().min(buf.remaining());
            buf.put_slice(&self.replay[..taken]);
            self.replay.advance(taken);
            if self.replay.is_empty() {
                // An empty slice would keep the whole buffer alive.
                self.replay = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl Write for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
