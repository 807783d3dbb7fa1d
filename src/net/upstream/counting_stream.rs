//! The byte stream of an HTTP/2 connection, with its bytes counted.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::tls_client;
use crate::net::write_coalescer::WriteCoalescer;

use super::stream::UpstreamStream;

/// What the handle of a connection has to know of its bytes.
#[derive(Debug, Default)]
pub(super) struct H2IoState {
    read_bytes: Cell<u64>,
    written_bytes: Cell<u64>,
    /// The endpoint refused the TLS handshake after this side had completed it.
    is_handshake_refused: Cell<bool>,
    should_reset: Cell<bool>,
}

impl H2IoState {
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.get()
    }

    pub(super) fn is_handshake_refused(&self) -> bool {
        self.is_handshake_refused.get()
    }

    /// Whether the connection is to end with a TCP reset.
    pub(super) fn should_reset(&self) -> bool {
        self.should_reset.get()
    }

    pub(super) fn set_reset_on_close(&self) {
        self.should_reset.set(true);
    }

    fn count_written(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = written {
            self.written_bytes.update(|sum| sum + *count as u64);
        }
    }
}

/// A connection's byte stream; bytes that the coalescer holds count as written.
#[derive(Debug)]
pub(super) struct CountingStream {
    stream: WriteCoalescer<UpstreamStream>,
    io_state: Rc<H2IoState>,
}

impl CountingStream {
    pub(super) fn new(stream: WriteCoalescer<UpstreamStream>, io_state: Rc<H2IoState>) -> Self {
        Self { stream, io_state }
    }
}

impl Drop for CountingStream {
    fn drop(&mut self) {
        if self.io_state.should_reset.get() {
            self.stream.with_stream(UpstreamStream::reset_on_drop);
        }
    }
}

impl AsyncRead for CountingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        // h2 keeps only the text of an error, so the cause is recorded here.
        if let Poll::Ready(Err(error)) = &read
            && tls_client::is_handshake_refusal(error)
        {
            self.io_state.is_handshake_refused.set(true);
        }
        let read_bytes = (buf.filled().len() - before) as u64;
        self.io_state.read_bytes.update(|count| count + read_bytes);
        read
    }
}

impl AsyncWrite for CountingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.io_state.count_written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.io_state.count_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
