//! gRPC behaviour of a proxy: local replies as gRPC errors, and an end at the client's deadline
//! (gRPC over HTTP/2, `PROTOCOL-HTTP2.md`).

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};
use tokio::time::Instant;

use super::body::{DeadlineBody, ProxyBody};
use super::grpc_status::error_trailers;
use super::local_reply_reason::LocalReplyReason;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A gRPC call: its deadline, and whether trailers can end its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct GrpcCall {
    deadline: Option<Instant>,
    can_end_in_trailers: bool,
}

impl GrpcCall {
    /// A call that arrives now; `None` if the request is not gRPC.
    pub(super) fn from_request(version: Version, headers: &HeaderMap) -> Option<Self> {
        if !is_grpc(headers) {
            return None;
        }
        let deadline = call_timeout(headers).map(|timeout| Instant::now() + timeout);
        Some(Self { deadline, can_end_in_trailers: version == Version::HTTP_2 })
    }

    /// Turns a local reply into a gRPC error, and ends other responses at the deadline.
    pub(super) fn adapt_response(self, response: Response<ProxyBody>) -> Response<ProxyBody> {
        if let Some(&reason) = response.extensions().get::<LocalReplyReason>() {
            return error_response(reason, response);
        }
        match self.deadline {
            Some(deadline) if self.can_end_in_trailers => response
                .map(|body| ProxyBody::WithDeadline(Box::new(DeadlineBody::new(body, deadline)))),
            _ => response,
        }
    }
}

/// The timeout in `grpc-timeout`, for the whole call.
pub(super) fn call_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT).filter(|_| is_grpc(headers))?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount = digits.parse::<u64>().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3_600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Whether the content type is `application/grpc`, with or without a message format. gRPC-Web is
/// another protocol.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..));
    let rest = content_type.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// A trailers-only response for a local reply.
fn error_response(reason: LocalReplyReason, response: Response<ProxyBody>) -> Response<ProxyBody> {
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::OK;
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.extend(error_trailers(reason));
    Response::from_parts(parts, ProxyBody::whole(Bytes::new()))
}

#[cfg(test)]
mod tests {
    use http_body::Body;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field =
            |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        fields.iter().map(field).collect()
    }

    #[test]
    fn grpc_call_is_detected_by_content_type() {
        let is = |content_type| is_grpc(&headers(&[("content-type", content_type)]));
        assert!(is("application/grpc") && is("application/grpc+proto"));
        assert!(is("application/grpc; charset=utf-8"));
        assert!(!is("application/grpc-web") && !is("application/json") && !is(""));
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn grpc_timeout_units_are_parsed() {
        let timeout_of = |text| {
            call_timeout(&headers(&[("content-type", "application/grpc"), ("grpc-timeout", text)]))
        };
        assert_eq!(timeout_of("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(timeout_of("3M"), Some(Duration::from_secs(180)));
        assert_eq!(timeout_of("1S"), Some(Duration::from_secs(1)));
        assert_eq!(timeout_of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout_of("7u"), Some(Duration::from_micros(7)));
        assert_eq!(timeout_of("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "S", "1", "1s", "-1S", "123456789S", "1.5S"] {
            assert_eq!(timeout_of(bad), None, "{bad:?}");
        }
        assert_eq!(call_timeout(&headers(&[("grpc-timeout", "1S")])), None, "no call");
    }

    #[test]
    fn local_reply_is_a_trailers_only_response() {
        let call = GrpcCall { deadline: None, can_end_in_trailers: true };
        for reason in LocalReplyReason::ALL {
            let response = call.adapt_response(reason.response());
            let field = |name: &str| response.headers()[name].to_str().expect("text");
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(field("content-type"), "application/grpc");
            assert_eq!(field("x-gapless-reason"), reason.as_str());
            assert_ne!(field("grpc-status"), "0");
            assert_eq!(field("grpc-message"), format!("gapless: {}", reason.as_str()));
            assert!(response.body().is_end_stream());
        }
    }
}
