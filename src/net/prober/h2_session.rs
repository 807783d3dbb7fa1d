//! An HTTP/2 connection of a probe, driven by the probe itself.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Connection, SendRequest};
use http::{HeaderMap, Request, Response};
use tokio_util::either::Either;

use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};

use super::progress::{AttemptFailure, ProbeProgress};
use super::stream::ProbeStream;

/// Bytes of a response head, at most.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// Bytes of a response that the endpoint may send before the probe has read them.
const WINDOW_BYTES: u32 = 64 * 1024;

/// The ALPN identifier of HTTP/2 over TLS (RFC 9113 3.2).
const ALPN_H2: &[u8] = b"h2";

/// A connection that makes progress only while one of its methods is polled.
#[derive(Debug)]
pub(super) struct H2ProbeSession {
    sender: SendRequest<Bytes>,
    connection: Connection<ProbeStream, Bytes>,
}

/// A final response with its body unread.
pub(super) struct H2ProbeResponse {
    pub(super) head: Response<()>,
    pub(super) body: RecvStream,
}

impl H2ProbeSession {
    /// Starts HTTP/2 on a new connection.
    pub(super) async fn open(
        progress: &ProbeProgress,
        stream: ProbeStream,
    ) -> Result<Self, AttemptFailure> {
        if let Either::Right(tls) = &stream
            && tls.get_ref().1.alpn_protocol() != Some(ALPN_H2)
        {
            let failure = Failure { layer: FailureLayer::Tls, reason: FailureReason::Handshake };
            return Err(AttemptFailure::Failed(failure));
        }
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(MAX_HEAD_BYTES)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let opened = builder.handshake(stream).await;
        let (sender, connection) = opened.map_err(|error| h2_failure(progress, &error))?;
        Ok(Self { sender, connection })
    }

    /// Polls `operation` together with the connection, which no other task drives.
    async fn run_with_connection<T>(
        &mut self,
        progress: &ProbeProgress,
        operation: impl Future<Output = Result<T, h2::Error>>,
    ) -> Result<T, AttemptFailure> {
        let mut operation = pin!(operation);
        let connection = &mut self.connection;
        poll_fn(|cx| {
            let connection_end = Pin::new(&mut *connection).poll(cx);
            if let Poll::Ready(result) = operation.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(|error| h2_failure(progress, &error)));
            }
            match connection_end {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) => Poll::Ready(Err(progress.failure(FailureReason::Closed))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(h2_failure(progress, &error))),
            }
        })
        .await
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send_request(
        &mut self,
        progress: &ProbeProgress,
        request: Request<()>,
        body: Option<Bytes>,
    ) -> Result<H2ProbeResponse, AttemptFailure> {
        let sender = self.sender.clone();
        let exchange = async {
            let mut sender = sender.ready().await?;
            let (response, mut stream) = sender.send_request(request, body.is_none())?;
            if let Some(body) = body {
                stream.send_data(body, true)?;
            }
            response.await
        };
        let response = self.run_with_connection(progress, exchange).await?;
        progress.has_response.set(true);
        let (head, body) = response.into_parts();
        Ok(H2ProbeResponse { head: Response::from_parts(head, ()), body })
    }

    /// The next chunk of a body; `None` at its end.
    pub(super) async fn next_chunk(
        &mut self,
        progress: &ProbeProgress,
        body: &mut RecvStream,
    ) -> Result<Option<Bytes>, AttemptFailure> {
        let chunk = async {
            let Some(chunk) = body.data().await.transpose()? else { return Ok(None) };
            body.flow_control().release_capacity(chunk.len())?;
            Ok(Some(chunk))
        };
        self.run_with_connection(progress, chunk).await
    }

    /// The trailers after a body.
    pub(super) async fn trailers(
        &mut self,
        progress: &ProbeProgress,
        body: &mut RecvStream,
    ) -> Result<Option<HeaderMap>, AttemptFailure> {
        self.run_with_connection(progress, body.trailers()).await
    }
}

fn h2_failure(progress: &ProbeProgress, error: &h2::Error) -> AttemptFailure {
    if let Some(error) = error.get_io() {
        return progress.io_failure(error);
    }
    progress.failure(if error.is_go_away() && error.is_remote() {
        FailureReason::Closed
    } else if error.is_reset() && error.is_remote() {
        FailureReason::Reset
    } else {
        FailureReason::Malformed
    })
}
