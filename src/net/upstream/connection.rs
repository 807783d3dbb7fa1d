//! One HTTP/1.1 connection to an endpoint.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;

use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};
use crate::logic::request::retry::RequestExposure;
use crate::net::tls_client;

use super::connection_queue::ConnectionPermit;
use super::error::{UpstreamError, io_failure_reason};
use super::stream::UpstreamStream;

/// An open connection. Dropped during an exchange it is reset, so that the endpoint does not
/// execute an abandoned request.
#[derive(Debug)]
pub struct H1Connection {
    pub(super) stream: UpstreamStream,
    /// The read buffer: empty between exchanges and reused.
    pub(super) input: BytesMut,
    pub(super) is_in_exchange: bool,
    pub(super) has_completed_exchange: bool,
    pub(super) idle_since: Instant,
    /// The pool's protocol generation when the connection was opened.
    pub(super) generation: u32,
    /// The client whose requests alone may use the connection (PROXY protocol).
    pub(super) client: Option<SocketAddr>,
    _permit: ConnectionPermit,
}

impl H1Connection {
    /// A connection that has just been opened; it holds `permit` until it is dropped.
    pub(super) fn new(
        stream: UpstreamStream,
        generation: u32,
        client: Option<SocketAddr>,
        permit: ConnectionPermit,
    ) -> Self {
        let idle_since = Instant::now();
        let (is_in_exchange, has_completed_exchange) = (false, false);
        let input = BytesMut::new();
        Self {
            stream,
            input,
            is_in_exchange,
            has_completed_exchange,
            idle_since,
            generation,
            client,
            _permit: permit,
        }
    }

    /// Reads once into `input`; a buffer that is nearly full grows by `reserve_bytes` first.
    pub(super) fn poll_read(
        &mut self,
        input: &mut BytesMut,
        reserve_bytes: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let filled = input.len();
        if input.capacity() - filled < reserve_bytes / 4 {
            input.reserve(reserve_bytes);
        }
        tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, input)
    }

    /// The failure for `error` during an exchange of which the endpoint may have seen `reached`.
    pub(super) fn io_failure(&self, error: &io::Error, reached: RequestExposure) -> UpstreamError {
        if !self.has_completed_exchange && tls_client::is_handshake_refusal(error) {
            let failure = Failure { layer: FailureLayer::Tls, reason: FailureReason::Handshake };
            return UpstreamError::Endpoint { failure, reached: RequestExposure::NotSent };
        }
        self.http_failure(io_failure_reason(error).unwrap_or(FailureReason::Reset), reached)
    }

    pub(super) fn http_failure(
        &self,
        reason: FailureReason,
        reached: RequestExposure,
    ) -> UpstreamError {
        UpstreamError::Endpoint { failure: Failure { layer: FailureLayer::Http, reason }, reached }
    }
}

impl Drop for H1Connection {
    fn drop(&mut self) {
        if self.is_in_exchange {
            self.stream.reset_on_drop();
        }
    }
}
