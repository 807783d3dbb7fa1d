//! One exchange over HTTP/2.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Connection, SendRequest};
use http::header::USER_AGENT as USER_AGENT_FIELD;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use tokio_util::either::Either;

use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};
use crate::logic::probing::probe::HttpProbe;

use super::connection_cache::ProbeTransport;
use super::response_check::ResponseCheck;
use super::{AttemptFailure, CheckResult, ProbeContext, ProbeProgress, ProbeStream, USER_AGENT};

/// Largest head that a probe takes.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// What may be under way to us before we have taken it, in bytes.
const WINDOW_BYTES: u32 = 64 * 1024;

/// The protocol's name in a handshake (RFC 9113 3.2).
const ALPN_H2: &[u8] = b"h2";

/// A connection on which requests can be sent. It makes progress only while one is under way.
#[derive(Debug)]
pub(super) struct H2ProbeSession {
    sender: SendRequest<Bytes>,
    connection: Connection<ProbeStream, Bytes>,
}

/// A final response, whose body is still to be read.
pub(super) struct H2ProbeResponse {
    pub(super) head: Response<()>,
    pub(super) body: RecvStream,
}

impl H2ProbeSession {
    /// Begins HTTP/2 on a new connection.
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

    /// Runs `work` and the connection beside it, without which nothing would move.
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

    /// The next piece of a body; `None` at its end.
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

    /// What follows a body.
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

/// A request to the endpoint. The configuration has checked its parts, so that a request that cannot
/// be made is our own doing.
pub(super) fn build_request(
    context: &ProbeContext<'_>,
    method: &http::Method,
    authority: Option<&str>,
    path: &str,
    headers: &HeaderMap,
) -> Result<Request<()>, AttemptFailure> {
    let scheme = if context.spec.tls.is_some() { "https" } else { "http" };
    let address = context.address.to_string();
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority.unwrap_or(&address))
        .path_and_query(path)
        .build()
        .map_err(|_| AttemptFailure::Local)?;
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers.clone();
    let agent = HeaderValue::from_static(USER_AGENT);
    request.headers_mut().entry(USER_AGENT_FIELD).or_insert(agent);
    Ok(request)
}

pub(super) async fn run_probe(
    context: &ProbeContext<'_>,
    probe: &HttpProbe,
    progress: &ProbeProgress,
    mut session: Box<H2ProbeSession>,
) -> CheckResult {
    let spec = context.spec;
    let host = probe.host.as_deref();
    let request = build_request(context, &probe.method, host, &probe.path, &probe.headers)?;
    let body = probe.body.clone().map(Bytes::from);
    let H2ProbeResponse { head, mut body } = session.send_request(progress, request, body).await?;
    let mut check = ResponseCheck::new(probe, spec.degraded.as_ref(), spec.max_body_bytes);
    check.check_head(head.status(), head.headers()).map_err(|reason| progress.failure(reason))?;
    if check.should_read_body() {
        while let Some(chunk) = session.next_chunk(progress, &mut body).await? {
            if !check.push_body(&chunk) {
                break;
            }
        }
    }
    let is_degraded = check.finish().map_err(|reason| progress.failure(reason))?;
    // What is left of the body is refused when the stream is dropped; the connection stays.
    Ok((is_degraded, Some(ProbeTransport::H2(session))))
}
