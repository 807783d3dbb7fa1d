//! One request and its response head over HTTP/2 (RFC 9113).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use h2::RecvStream;
use h2::client::ResponseFuture;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRAILER};
use http::response::Parts;
use http::{Request, StatusCode};

use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::retry::RequestExposure;
use crate::net::h1::{Framing, ResponseHead};

use super::error::UpstreamError;
use super::h2_connection::StreamPermit;
use super::h2_request_sender::H2RequestSender;
use super::interim::{InterimBuffer, InterimResponse};
use super::request_body::RequestBody;

/// A request in flight, until its response head has arrived. Dropped before the response ends, it
/// sends `RST_STREAM`, so that the endpoint does not execute an abandoned request.
#[derive(Debug)]
pub struct H2Exchange {
    response: ResponseFuture,
    pub(super) recv_stream: Option<RecvStream>,
    pub(super) sender: H2RequestSender,
    pub(super) permit: StreamPermit,
    /// Bytes that the connection had written before this request.
    written_before: u64,
    pub(super) interims: InterimBuffer,
}

impl H2Exchange {
    /// Hands `request` over; a body follows if `has_body`.
    ///
    /// # Errors
    /// [`UpstreamError`] with nothing reached.
    pub(super) fn begin(
        permit: StreamPermit,
        request: Request<()>,
        has_body: bool,
    ) -> Result<Self, UpstreamError> {
        let written_before = permit.connection().written_bytes();
        let (response, stream) = permit.connection().send_request(request, !has_body)?;
        Ok(Self {
            response,
            recv_stream: None,
            sender: H2RequestSender::new(stream, has_body),
            permit,
            written_before,
            interims: InterimBuffer::default(),
        })
    }

    /// How much of the request the endpoint may have seen: nothing if the connection has written
    /// nothing since.
    pub(super) fn reached(&self) -> RequestExposure {
        if self.permit.connection().written_bytes() == self.written_before {
            RequestExposure::NotSent
        } else {
            RequestExposure::MaybeSent
        }
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.sender.sent_bytes()
    }

    pub(super) fn is_sent(&self) -> bool {
        self.sender.is_done()
    }

    pub(super) fn is_waiting_for_client(&self) -> bool {
        self.sender.is_waiting_for_client()
    }

    /// Sends the rest of the request and waits for the final response head.
    pub(super) fn poll_head(
        &mut self,
        body: &mut RequestBody,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        self.sender.poll(body, cx).map_err(UpstreamError::Client)?;
        let failure = Failure::http(FailureReason::Malformed);
        let malformed = UpstreamError::Endpoint { failure, reached: RequestExposure::MaybeSent };
        // Interim responses that are not polled are dropped by h2 without a limit.
        while let Poll::Ready(Some(Ok(response))) = self.response.poll_informational(cx) {
            let Parts { status, headers, .. } = response.into_parts().0;
            let length =
                |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
            let bytes = headers.iter().map(length).sum();
            // HTTP/2 has no 101 (RFC 9113 8.6).
            if status == StatusCode::SWITCHING_PROTOCOLS
                || !self.interims.try_push(InterimResponse { status, headers }, bytes)
            {
                return Poll::Ready(Err(malformed));
            }
        }
        match ready!(Pin::new(&mut self.response).poll(cx)) {
            Ok(response) => {
                let (parts, recv_stream) = response.into_parts();
                let head = response_head(parts, &recv_stream);
                self.recv_stream = Some(recv_stream);
                self.permit.connection().set_response_received();
                Poll::Ready(head.ok_or(malformed))
            }
            Err(error) => {
                Poll::Ready(Err(self.permit.connection().h2_failure(&error, self.reached())))
            }
        }
    }
}

/// The head in the form of HTTP/1.1; `None` if it is malformed.
fn response_head(parts: Parts, recv_stream: &RecvStream) -> Option<ResponseHead> {
    let Parts { status, mut headers, .. } = parts;
    if status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    let length = content_length(&headers)?;
    let framing = match length {
        _ if recv_stream.is_end_stream() => Framing::None,
        Some(length) => Framing::Length(length),
        // An HTTP/1.1 client receives the body in chunks.
        None => Framing::Chunked,
    };
    if framing != Framing::Chunked {
        headers.remove(TRAILER);
    }
    Some(ResponseHead { status, headers, framing, is_keep_alive: true, upgrade: None })
}

/// The value of Content-Length, if there is one; `None` if it is malformed or repeated.
fn content_length(headers: &HeaderMap) -> Option<Option<u64>> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Some(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    if values.next().is_some() { None } else { digits.parse().ok().map(Some) }
}
