//! Checks that every request of the admin API passes that changes something.
//!
//! The listener is on loopback, so that only this machine reaches it. A page in a browser on this
//! machine can still send requests. Therefore a write names its host by an address or `localhost`,
//! has no foreign `Origin`, and has a body of JSON or the method DELETE. A page of another origin
//! can send those only after a CORS preflight, which this listener refuses.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{AdminHttpResponse, is_local_host, text_response};

/// Limit of a request body.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// Time within which a request body must arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the request can change something below `root`.
pub(super) fn is_write_below<B>(request: &Request<B>, root: &str) -> bool {
    let is_read = *request.method() == Method::GET || *request.method() == Method::HEAD;
    !is_read && request.uri().path().starts_with(root)
}

/// The number in the path behind `root`, and the rest of the path.
pub(super) fn id_in_path<'p>(path: &'p str, root: &str) -> Option<(u64, &'p str)> {
    let rest = path.strip_prefix(root)?.strip_prefix('/')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (id, rest) = rest.split_at(digits);
    Some((id.parse().ok()?, rest))
}

/// The refusal of a request that another page may have caused.
pub(super) fn reject_cross_origin<B>(request: &Request<B>) -> Option<AdminHttpResponse> {
    if !is_local_host(request) {
        let reason = "the Host header must be an address or localhost\n";
        return Some(text_response(StatusCode::FORBIDDEN, reason));
    }
    (!is_same_origin(request))
        .then(|| text_response(StatusCode::FORBIDDEN, "requests from other origins are refused\n"))
}

/// Browsers add `Origin` to every request of a page that is not a plain GET or HEAD.
fn is_same_origin<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    request.headers().get(ORIGIN).is_none_or(|origin| {
        origin.as_bytes().strip_prefix(b"http://").is_some_and(|origin| origin == host)
    })
}

/// The body of a request with the content type of JSON, within its limits of size and time.
pub(super) async fn read_body(request: Request<Incoming>) -> Result<Bytes, AdminHttpResponse> {
    let kind = request.headers().get(CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
        return Err(text_response(StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/json\n"));
    }
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    match timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        _ => Err(text_response(
            StatusCode::BAD_REQUEST,
            "the request's body is too large or came too slowly\n",
        )),
    }
}

/// The response to methods that the path does not support.
pub(super) fn method_not_allowed(supported: &str) -> AdminHttpResponse {
    let mut refusal = text_response(StatusCode::METHOD_NOT_ALLOWED, supported);
    refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, DELETE"));
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_from_other_origin_is_rejected() {
        let from = |origin: Option<&str>| {
            let mut request = Request::builder().header(HOST, "127.0.0.1:9900");
            if let Some(origin) = origin {
                request = request.header(ORIGIN, origin);
            }
            is_same_origin(&request.body(()).expect("a request"))
        };
        assert!(from(None) && from(Some("http://127.0.0.1:9900")));
        assert!(!from(Some("http://evil.example")) && !from(Some("null")));
    }

    #[test]
    fn id_in_path_is_a_number() {
        let root = "/api/v1/drills";
        assert_eq!(id_in_path("/api/v1/drills/12", root), Some((12, "")));
        assert_eq!(id_in_path("/api/v1/drills/12.html", root), Some((12, ".html")));
        assert_eq!(id_in_path("/api/v1/drills", root), None);
        assert_eq!(id_in_path("/api/v1/drills/x", root), None);
    }
}
