//! The route's changes to a request before it is forwarded.

use http::Request;
use http::header::{CONNECTION, HeaderValue};

use crate::logic::routing::{HeaderMutations, PathChange, RouteSpec};
use crate::net::h1::ConnectionOptions;

use super::path_normalisation::replace_path;

pub(super) fn is_needed(spec: &RouteSpec) -> bool {
    !spec.request_headers.is_empty()
        || spec.rewrite.path != PathChange::Keep
        || spec.rewrite.host.is_some()
}

/// A copy of the head for the changes.
pub(super) fn clone_head(request: &Request<()>) -> Request<()> {
    let mut clone = Request::new(());
    *clone.method_mut() = request.method().clone();
    *clone.uri_mut() = request.uri().clone();
    *clone.version_mut() = request.version();
    *clone.headers_mut() = request.headers().clone();
    clone
}

/// Changes the path and header fields. The host is passed on separately.
pub(super) fn apply(request: &mut Request<()>, spec: &RouteSpec) {
    if spec.rewrite.path != PathChange::Keep {
        let uri = request.uri_mut();
        let path = spec.rewrite.path.apply(uri.path()).into_owned();
        if path != uri.path() {
            let before = uri.clone();
            if replace_path(uri, path).is_none() {
                *uri = before;
            }
        }
    }
    if !spec.request_headers.is_empty() {
        protect_from_connection_header(request, &spec.request_headers);
        spec.request_headers.apply(request.headers_mut());
    }
}

/// A client must not remove a field that the route sets by nominating it in Connection.
fn protect_from_connection_header(request: &mut Request<()>, changes: &HeaderMutations) {
    if !request.headers().contains_key(CONNECTION) {
        return;
    }
    let remaining = {
        let options = ConnectionOptions::from_headers(request.headers());
        if !options.names().any(|name| changes.has_write_to(name)) {
            return;
        }
        let remaining: Vec<&str> =
            options.names().filter(|name| !changes.has_write_to(name)).collect();
        HeaderValue::try_from(remaining.join(", ")).ok()
    };
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    if let Some(remaining) = remaining.filter(|value| !value.is_empty()) {
        headers.insert(CONNECTION, remaining);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_header_survives_connection_nomination() {
        let name = http::HeaderName::from_static("x-env");
        let set = vec![(name, HeaderValue::from_static("live"))];
        let changes = HeaderMutations { set, ..HeaderMutations::default() };
        let builder = Request::builder().header("connection", "close, X-Env").header("x-env", "b");
        let mut request = builder.header("connection", "x-other").body(()).expect("a request");
        protect_from_connection_header(&mut request, &changes);
        let remaining: Vec<_> = request.headers().get_all(CONNECTION).iter().collect();
        assert_eq!(remaining, ["close, x-other"]);
    }
}
