//! The form of requests to the admin API that change something.
//!
//! Besides the checks of every request (see [`super::guard`]), a write has a body of JSON, or the
//! method DELETE. A web page of another origin can send those only after a CORS preflight, which
//! this listener refuses.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{AdminHttpResponse, guard, text_response};

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

/// The body of a request with the content type of JSON, within its limits of size and time.
pub(super) async fn read_body(request: Request<Incoming>) -> Result<Bytes, AdminHttpResponse> {
    if !is_json(request.headers()) {
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

/// Whether the only `Content-Type` is JSON, with or without parameters. A list is none: browsers
/// send what they take for another type without a preflight.
fn is_json(headers: &HeaderMap) -> bool {
    let Ok(Some(value)) = guard::only_value(headers, CONTENT_TYPE) else { return false };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json") && !value.contains(',')
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
    fn content_type_is_json_alone() {
        let is_accepted = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_TYPE, value.parse().expect("a value"));
            }
            is_json(&headers)
        };
        for value in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(is_accepted(&[value]), "{value}");
        }
        for values in [
            &[][..],
            &["text/plain"],
            &["application/json, text/plain"],
            &["application/json;a=b, text/plain"],
            &["application/jsonp"],
            &["application/json", "text/plain"],
        ] {
            assert!(!is_accepted(values), "{values:?}");
        }
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
