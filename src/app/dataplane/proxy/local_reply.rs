//! Responses that the proxy generates itself.

use http::Response;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};

use super::body::ProxyBody;
use super::local_reply_reason::LocalReplyReason;

/// The header with the reason of a local reply.
pub const REASON_HEADER: HeaderName = HeaderName::from_static("x-gapless-reason");

impl LocalReplyReason {
    pub fn response(self) -> Response<ProxyBody> {
        let (word, status) = self.word_and_status();
        let mut response = Response::new(ProxyBody::whole(format!("{word}\n").into()));
        *response.status_mut() = status;
        // gRPC, the access log and the request id need the reason later.
        response.extensions_mut().insert(self);
        let headers = response.headers_mut();
        headers.insert(REASON_HEADER, HeaderValue::from_static(word));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self == Self::MethodRefused {
            headers.insert(
                ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            );
        }
        if self.has_unread_body() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
