//! The gRPC status of each local reply (gRPC over HTTP/2, `PROTOCOL-HTTP2.md`).

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::local_reply_reason::LocalReplyReason;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The trailers that end a call for `reason`.
pub(super) fn error_trailers(reason: LocalReplyReason) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(reason)));
    let message = percent_encode(&format!("gapless: {}", reason.as_str()));
    if let Ok(message) = HeaderValue::try_from(message) {
        trailers.insert(GRPC_MESSAGE, message);
    }
    trailers
}

/// The gRPC status code for a reason.
fn grpc_status(reason: LocalReplyReason) -> u16 {
    match reason {
        LocalReplyReason::BadRequest
        | LocalReplyReason::BadPath
        | LocalReplyReason::UnderscoreHeader => 3,
        LocalReplyReason::BodyTimeout
        | LocalReplyReason::ConnectTimeout
        | LocalReplyReason::ResponseTimeout
        | LocalReplyReason::TotalTimeout
        | LocalReplyReason::DeadlineExceeded => 4,
        LocalReplyReason::BodyTooLarge
        | LocalReplyReason::HeadTooLarge
        | LocalReplyReason::LocalLimit
        | LocalReplyReason::EndpointLimit
        | LocalReplyReason::PoolLimit
        | LocalReplyReason::PendingLimit
        | LocalReplyReason::RateLimited => 8,
        LocalReplyReason::UnknownCoding
        | LocalReplyReason::MethodRefused
        | LocalReplyReason::NoRoute
        | LocalReplyReason::UpgradeRefused => 12,
        LocalReplyReason::BadResponse => 13,
        LocalReplyReason::NoEndpoint
        | LocalReplyReason::Drained
        | LocalReplyReason::ConnectFailed
        | LocalReplyReason::Reset
        | LocalReplyReason::EndpointDown
        | LocalReplyReason::Overload => 14,
    }
}

/// Percent-encodes all bytes except printable ASCII without `%`.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_message_is_percent_encoded() {
        assert_eq!(percent_encode("50% of\nä"), "50%25 of%0A%C3%A4");
    }
}
