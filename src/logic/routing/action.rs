//! The action of a route, and the changes it makes to requests and responses.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};

use super::matching::strip_path_prefix;
use super::path_normalisation::{PathNormalisation, normalise};
use super::pattern::Substitution;

/// The action of a route.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteAction {
    /// Forwards to one of these pools. Never empty, and at least one weight is not zero.
    Pools(Vec<WeightedPool>),
    /// Redirects the client to another URL.
    Redirect(RedirectAction),
    Respond(DirectResponse),
}

/// A pool with its share of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedPool {
    pub pool: Arc<str>,
    /// Relative to the other pools of the route.
    pub weight: u32,
}

/// A fixed response, without an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// `None` uses the status of the failure that the response replaces.
    pub status: Option<StatusCode>,
    pub body: Bytes,
    pub content_type: HeaderValue,
}

/// A redirect; what is not set stays as in the request.
#[derive(Clone, Debug, PartialEq)]
pub struct RedirectAction {
    /// Redirects to https on its default port.
    pub should_use_https: bool,
    /// The new host, with its port if it has one.
    pub host: Option<String>,
    pub path: PathChange,
    /// One of 301, 302, 303, 307 and 308.
    pub status: StatusCode,
}

/// A change of the path.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PathChange {
    #[default]
    Keep,
    /// Replaces the path. A query in the new path replaces the query too.
    ReplaceFull(String),
    /// Replaces the prefix `from` by `to`, by whole segments.
    ReplacePrefix {
        from: String,
        /// The new prefix; begins with `/`.
        to: String,
    },
    /// Replaces every match of a pattern.
    Substitute(Substitution),
}

/// Changes to the request line and the Host of an upstream request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestRewrite {
    /// The new Host; `None` keeps the client's.
    pub host: Option<String>,
    pub path: PathChange,
}

/// Changes to the header fields of a message, applied in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderMutations {
    /// Names of fields to remove.
    pub remove: Vec<HeaderName>,
    /// Fields that replace those of the same name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Fields to append to those of the same name.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// A pool that receives copies of requests. Its responses are discarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorPolicy {
    pub pool: Arc<str>,
    /// Percentage of the requests to copy.
    pub percent: u32,
}

/// The action when no endpoint of the route's pool is left to try.
#[derive(Clone, Debug, PartialEq)]
pub enum FallbackAction {
    /// Another pool, by name.
    Pool(Arc<str>),
    Respond(DirectResponse),
}

impl PathChange {
    /// Applies the change. The result begins with exactly one `/`.
    pub fn apply<'p>(&'p self, path: &'p str) -> Cow<'p, str> {
        match self {
            Self::Keep => Cow::Borrowed(path),
            Self::ReplaceFull(whole) => Cow::Borrowed(whole),
            Self::ReplacePrefix { from, to } => strip_path_prefix(path, from)
                .map_or(Cow::Borrowed(path), |rest| join_with_slash(to, rest)),
            Self::Substitute(substitution) => {
                let path = substitution.apply(path);
                let path = if path.starts_with('/') { path } else { format!("/{path}") };
                // Captured groups may produce dot segments that the request did not have.
                normalise(&path, &PathNormalisation::default())
                    .map_or_else(|_| Cow::Borrowed("/"), |path| Cow::Owned(path.into_owned()))
            }
        }
    }
}

/// Joins both parts with exactly one slash.
fn join_with_slash<'p>(to: &'p str, rest: &str) -> Cow<'p, str> {
    let to_bare = to.strip_suffix('/').unwrap_or(to);
    match rest.trim_start_matches('/') {
        "" if rest.is_empty() => Cow::Borrowed(to),
        tail => Cow::Owned(format!("{to_bare}/{tail}")),
    }
}

impl RedirectAction {
    /// The `Location` for a request with this URI, Host and scheme. It is a path if neither scheme
    /// nor host changes, or if the request has no host.
    pub fn location(&self, uri: &Uri, host: &str, scheme: &str) -> String {
        let path = self.path.apply(uri.path());
        // A path of two slashes would be parsed as a host (RFC 3986, 4.2).
        let path = format!("/{}", path.trim_start_matches('/'));
        let query = uri.query().filter(|_| !path.contains('?'));
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        let target = match &self.host {
            Some(host) => host.as_str(),
            // The port belongs to the old scheme.
            None if self.should_use_https => without_port(host),
            None => "",
        };
        if target.is_empty() {
            return path + &query;
        }
        let scheme = if self.should_use_https { "https" } else { scheme };
        format!("{scheme}://{target}{path}{query}")
    }
}

fn without_port(host: &str) -> &str {
    let end = if host.starts_with('[') { host.find(']').map(|at| at + 1) } else { host.find(':') };
    &host[..end.unwrap_or(host.len())]
}

impl HeaderMutations {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Applies the changes to `headers`.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }

    /// Whether the field of this name is set or appended.
    pub fn has_write_to(&self, name: &str) -> bool {
        let mut written = self.set.iter().chain(&self.add);
        written.any(|(field, _)| field.as_str().eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_replaced_by_whole_segments_with_one_slash() {
        let change = |from: &str, to: &str, path: &str| {
            let change = PathChange::ReplacePrefix { from: from.to_owned(), to: to.to_owned() };
            change.apply(path).into_owned()
        };
        for (from, to, path, expected) in [
            ("/v1/", "/v2/", "/v1/x", "/v2/x"),
            ("/v1/", "/v2/", "/v1/", "/v2/"),
            ("/v1", "/v2", "/v1", "/v2"),
            ("/v1", "/v2", "/v1/x", "/v2/x"),
            ("/v1", "/", "/v1/x", "/x"),
            ("/v1", "/", "/v1", "/"),
            ("/v1/", "/v2", "/v1/x", "/v2/x"),
            ("/v1/", "/v2", "/v1/", "/v2"),
            ("/v1", "/v2/", "/v1/", "/v2/"),
            ("/", "/app", "/x", "/app/x"),
            ("/v1", "/v2", "/v1x", "/v1x"),
            ("/v1", "/", "/v1//host", "/host"),
        ] {
            assert_eq!(change(from, to, path), expected, "{from} -> {to}: {path}");
        }
    }

    #[test]
    fn substitution_result_is_normalised() {
        let change = |pattern, to, path: &str| {
            let substitution = Substitution::parse(pattern, to).expect("good");
            PathChange::Substitute(substitution).apply(path).into_owned()
        };
        assert_eq!(change("^/users/([0-9]+)$", "/user/$1", "/users/7"), "/user/7");
        assert_eq!(change("/x(.)", "/.$1", "/a/x./b"), "/b");
        assert_eq!(change("^/", "", "/a"), "/a");
    }

    #[test]
    fn redirect_location_combines_scheme_host_and_path() {
        let redirect = |to_https, host: Option<&str>, path| RedirectAction {
            should_use_https: to_https,
            host: host.map(str::to_owned),
            path,
            status: StatusCode::FOUND,
        };
        let at = |redirect: RedirectAction, uri: &str| {
            redirect.location(&uri.parse().expect("a URI"), "a.example:80", "http")
        };
        let keep = || PathChange::Keep;
        assert_eq!(at(redirect(true, None, keep()), "/x?y=1"), "https://a.example/x?y=1");
        assert_eq!(at(redirect(false, Some("b:81"), keep()), "/x"), "http://b:81/x");
        let whole = |path: &str| PathChange::ReplaceFull(path.to_owned());
        assert_eq!(at(redirect(false, None, whole("/new")), "/x?y"), "/new?y");
        assert_eq!(at(redirect(false, None, whole("/new?z")), "/x?y"), "/new?z");
        let strip = PathChange::ReplacePrefix { from: "/a".to_owned(), to: "/".to_owned() };
        assert_eq!(at(redirect(false, None, strip), "/a//evil.example"), "/evil.example");
        assert_eq!(at(redirect(false, None, keep()), "//evil.example"), "/evil.example");
    }
}
