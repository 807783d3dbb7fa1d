//! What becomes of a request that a route takes.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};

use super::matching::strip_path_prefix;
use super::path_normalisation::{PathNormalisation, normalise};
use super::pattern::Substitution;

/// What answers a request.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteAction {
    /// An endpoint of one of these pools; never empty, and the weights are not all zero.
    Pools(Vec<WeightedPool>),
    /// The client is sent elsewhere.
    Redirect(RedirectAction),
    Respond(DirectResponse),
}

/// A pool, and its part of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedPool {
    pub pool: Arc<str>,
    /// Relative to the others'.
    pub weight: u32,
}

/// An answer that is always the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// Absent, that of the failure which it stands for.
    pub status: Option<StatusCode>,
    pub body: Bytes,
    /// What the body is.
    pub content_type: HeaderValue,
}

/// Where a client is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct RedirectAction {
    /// To https, on its own port; else the scheme stays.
    pub should_use_https: bool,
    /// To this host; else the host stays.
    pub host: Option<String>,
    pub path: PathChange,
    /// One of 301, 302, 303, 307 and 308.
    pub status: StatusCode,
}

/// What becomes of a path.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PathChange {
    #[default]
    Keep,
    /// This one takes its place; it may bring a query, which then takes the place of the query too.
    ReplaceFull(String),
    /// Where it begins with `from`, by whole segments, it begins with `to` instead.
    ReplacePrefix {
        from: String,
        /// The new one; begins with `/`.
        to: String,
    },
    /// Every match of a pattern is replaced.
    Substitute(Substitution),
}

/// How a request differs from what its client sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestRewrite {
    /// The Host that endpoints are told.
    pub host: Option<String>,
    /// The path that they are asked for.
    pub path: PathChange,
}

/// What is done to the header fields of a message: some are removed, some set, some added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderMutations {
    /// Gone, before anything else.
    pub remove: Vec<HeaderName>,
    /// In place of what was there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// A pool that gets a copy of some requests, and whose answers nobody sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorPolicy {
    pub pool: Arc<str>,
    /// Of a hundred requests, so many.
    pub percent: u32,
}

/// What is left when a route's own pool has nothing left to try.
#[derive(Clone, Debug, PartialEq)]
pub enum FallbackAction {
    /// Another pool, by its name.
    Pool(Arc<str>),
    Respond(DirectResponse),
}

impl PathChange {
    /// The path that `path` becomes; it begins with one `/`.
    pub fn apply<'p>(&'p self, path: &'p str) -> Cow<'p, str> {
        match self {
            Self::Keep => Cow::Borrowed(path),
            Self::ReplaceFull(whole) => Cow::Borrowed(whole),
            Self::ReplacePrefix { from, to } => strip_path_prefix(path, from)
                .map_or(Cow::Borrowed(path), |rest| join_with_slash(to, rest)),
            Self::Substitute(substitution) => {
                let path = substitution.apply(path);
                let path = if path.starts_with('/') { path } else { format!("/{path}") };
                // What groups matched may make dots where there were none.
                normalise(&path, &PathNormalisation::default())
                    .map_or_else(|_| Cow::Borrowed("/"), |path| Cow::Owned(path.into_owned()))
            }
        }
    }
}

/// The two with one slash between them.
fn join_with_slash<'p>(to: &'p str, rest: &str) -> Cow<'p, str> {
    let to_bare = to.strip_suffix('/').unwrap_or(to);
    match rest.trim_start_matches('/') {
        "" if rest.is_empty() => Cow::Borrowed(to),
        tail => Cow::Owned(format!("{to_bare}/{tail}")),
    }
}

impl RedirectAction {
    /// The Location for a request for `uri`, whose Host was `host` and whose scheme is `scheme`; a
    /// path alone if neither scheme nor host changes, or there is no host.
    pub fn location(&self, uri: &Uri, host: &str, scheme: &str) -> String {
        let path = self.path.apply(uri.path());
        // Two slashes would begin a host.
        let path = format!("/{}", path.trim_start_matches('/'));
        let query = uri.query().filter(|_| !path.contains('?'));
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        let target = match &self.host {
            Some(host) => host.as_str(),
            // The port was for the old scheme.
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
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Does it to `headers`.
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

    /// Whether a field of this name is set or added.
    pub fn has_write_to(&self, name: &str) -> bool {
        let mut written = self.set.iter().chain(&self.add);
        written.any(|(known, _)| known.as_str().eq_ignore_ascii_case(name))
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
