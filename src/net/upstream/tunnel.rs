//! A connection that carries another protocol after a 101 response.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::H1Connection;

/// The endpoint's side of a tunnel. Dropped before [`UpstreamTunnel::finish`] it is reset.
#[derive(Debug)]
pub struct UpstreamTunnel {
    connection: H1Connection,
    /// Bytes that the endpoint sent after its response head.
    input: BytesMut,
}

impl UpstreamTunnel {
    pub(super) fn new(connection: H1Connection, input: BytesMut) -> Self {
        Self { connection, input }
    }

    /// Both sides have closed the tunnel: closes the connection without a reset.
    pub fn finish(mut self) {
        self.connection.is_in_exchange = false;
    }
}

impl AsyncRead for UpstreamTunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return Pin::new(&mut self.connection.stream).poll_read(cx, buf);
        }
        let length = self.input.len().min(buf.remaining());
        buf.put_slice(&self.input[..length]);
        self.input.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UpstreamTunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection.stream).poll_shutdown(cx)
    }
}
