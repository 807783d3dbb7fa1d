//! The byte stream of a connection to an endpoint, in cleartext or over TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::fault_injection::InjectedReply;

/// An open stream. An enum instead of a trait object keeps the cleartext path direct.
#[derive(Debug)]
pub(super) enum UpstreamStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Injected(Box<InjectedReply>),
}

/// The state of a stream on which no bytes are expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdleState {
    Silent,
    /// The endpoint has closed the connection.
    Closed,
    /// The endpoint sent bytes without a request.
    UnexpectedData,
}

impl UpstreamStream {
    /// Writes as many bytes as the stream accepts at once.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
            Self::Injected(_) => Ok(bytes.len()),
            Self::Tls(stream) => {
                let cx = &mut Context::from_waker(Waker::noop());
                match Pin::new(stream).poll_write(cx, bytes) {
                    Poll::Ready(written) => written,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Flushes; returns whether the kernel has accepted all written bytes.
    pub(super) fn try_flush(&mut self) -> bool {
        match self {
            Self::Plain(_) | Self::Injected(_) => true,
            Self::Tls(stream) => {
                let cx = &mut Context::from_waker(Waker::noop());
                matches!(Pin::new(stream).poll_flush(cx), Poll::Ready(Ok(())))
            }
        }
    }

    /// Checks a stream on which no bytes are expected, and registers `cx` for the next event. In
    /// cleartext this costs no system call until then.
    pub(super) fn check_idle(&mut self, cx: &mut Context<'_>) -> IdleState {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => return check_idle_tls(stream, cx),
            // An injected reply is never reused.
            Self::Injected(_) => return IdleState::Closed,
        };
        while stream.poll_read_ready(cx).is_ready() {
            match stream.try_read(&mut [0; 1]) {
                Ok(0) => return IdleState::Closed,
                Ok(_) => return IdleState::UnexpectedData,
                // Clears the readiness, so that the next turn registers the waker.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return IdleState::Closed,
            }
        }
        IdleState::Silent
    }

    /// The protocol that the endpoint chose by ALPN (RFC 7301), empty if it chose none; `None` in
    /// cleartext.
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) | Self::Injected(_) => None,
            Self::Tls(stream) => Some(stream.get_ref().1.alpn_protocol().unwrap_or_default()),
        }
    }

    /// Makes the connection end with a TCP reset when it is dropped.
    pub(super) fn reset_on_drop(&self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Injected(_) => return,
        };
        let _ = stream.set_zero_linger();
    }
}

/// The idle check over TLS, where not every record carries application data. Session tickets may
/// arrive at any time, and close_notify arrives before the end of the connection.
fn check_idle_tls(stream: &mut TlsStream<TcpStream>, cx: &mut Context<'_>) -> IdleState {
    let mut byte = [0; 1];
    let mut buf = ReadBuf::new(&mut byte);
    match Pin::new(stream).poll_read(cx, &mut buf) {
        Poll::Pending => IdleState::Silent,
        Poll::Ready(Ok(())) if buf.filled().is_empty() => IdleState::Closed,
        Poll::Ready(Ok(())) => IdleState::UnexpectedData,
        Poll::Ready(Err(_)) => IdleState::Closed,
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Injected(reply) => reply.poll_read(buf),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Injected(_) => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Injected(_) => Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Injected(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Injected(_) => Poll::Ready(Ok(())),
        }
    }
}
