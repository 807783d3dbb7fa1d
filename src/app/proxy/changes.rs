//! What a route changes of a request before it goes to an endpoint.

use http::Request;
use http::header::{CONNECTION, HeaderValue};

use crate::logic::route::{HeaderChanges, PathChange, RouteSpec};
use crate::net::h1::ConnectionOptions;

use super::path::replace_path;

/// Whether there is anything to change.
pub(super) fn is_needed(spec: &RouteSpec) -> bool {
    !spec.request_headers.is_empty()
        || spec.rewrite.path != PathChange::Keep
        || spec.rewrite.host.is_some()
}

/// The same head again, to be changed.
pub(super) fn same(request: &Request<()>) -> Request<()> {
    let mut same = Request::new(());
    *same.method_mut() = request.method().clone();
    *same.uri_mut() = request.uri().clone();
    *same.version_mut() = request.version();
    *same.headers_mut() = request.headers().clone();
    same
}

/// Changes path and header fields; the host is not the request's to say.
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
        keep_from_nomination(request, &spec.request_headers);
        spec.request_headers.apply(request.headers_mut());
    }
}

/// A client cannot have removed what we say by nominating it in Connection.
fn keep_from_nomination(request: &mut Request<()>, changes: &HeaderChanges) {
    if !request.headers().contains_key(CONNECTION) {
        return;
    }
    let kept = {
        let options = ConnectionOptions::of(request.headers());
        if !options.names().any(|name| changes.writes(name)) {
            return;
        }
        let kept: Vec<&str> = options.names().filter(|name| !changes.writes(name)).collect();
        HeaderValue::try_from(kept.join(", ")).ok()
    };
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    if let Some(kept) = kept.filter(|kept| !kept.is_empty()) {
        headers.insert(CONNECTION, kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nomination_does_not_reach_what_is_set() {
        let name = http::HeaderName::from_static("x-env");
        let set = vec![(name, HeaderValue::from_static("live"))];
        let changes = HeaderChanges { set, ..HeaderChanges::default() };
        let builder = Request::builder().header("connection", "close, X-Env").header("x-env", "b");
        let mut request = builder.header("connection", "x-other").body(()).expect("a request");
        keep_from_nomination(&mut request, &changes);
        let left: Vec<_> = request.headers().get_all(CONNECTION).iter().collect();
        assert_eq!(left, ["close, x-other"]);
    }
}
