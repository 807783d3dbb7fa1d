//! Normalises a request before routing: one form of its path, and unambiguous header names.

use http::uri::{PathAndQuery, Uri};
use http::{HeaderName, Request, Version};

use crate::app::dataplane::http_policy::HttpPolicy;
use crate::config::model::UnderscorePolicy;
use crate::logic::routing::{PathNormalisation, normalise};

use super::local_reply_reason::LocalReplyReason;

/// Normalises the request in place: routes match what endpoints receive.
///
/// # Errors
/// The reason to refuse the request.
pub(super) fn normalise_request(
    request: &mut Request<()>,
    policy: &HttpPolicy,
) -> Result<(), LocalReplyReason> {
    apply_underscore_policy(request, policy.headers.underscores)?;
    if has_only_query(request.uri()) {
        // Only an absolute target may omit the path (RFC 9113 8.3.1).
        if request.version() == Version::HTTP_2 {
            return Err(LocalReplyReason::BadRequest);
        }
        replace_path(request.uri_mut(), "/".to_owned()).ok_or(LocalReplyReason::BadRequest)?;
    }
    normalise_target(request.uri_mut(), &policy.paths)
}

/// Whether the target is only a query. `http` reports its path as `/` but does not write one, and
/// endpoints need it (RFC 9112 3.2.1).
fn has_only_query(uri: &Uri) -> bool {
    uri.path_and_query().is_some_and(|target| target.as_str().starts_with('?'))
}

fn apply_underscore_policy(
    request: &mut Request<()>,
    policy: UnderscorePolicy,
) -> Result<(), LocalReplyReason> {
    let has_underscore = |name: &HeaderName| name.as_str().contains('_');
    if policy == UnderscorePolicy::Allow || !request.headers().keys().any(has_underscore) {
        return Ok(());
    }
    if policy == UnderscorePolicy::Reject {
        return Err(LocalReplyReason::UnderscoreHeader);
    }
    let names: Vec<HeaderName> =
        request.headers().keys().filter(|n| has_underscore(n)).cloned().collect();
    for name in names {
        request.headers_mut().remove(name);
    }
    Ok(())
}

/// Other forms of targets are left to validation.
fn normalise_target(uri: &mut Uri, rules: &PathNormalisation) -> Result<(), LocalReplyReason> {
    let path = uri.path();
    let query = uri.query().unwrap_or_default();
    if !path.starts_with('/') || !path.is_ascii() || !query.is_ascii() {
        return Ok(());
    }
    if !query.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(LocalReplyReason::BadPath);
    }
    let changed = match normalise(path, rules) {
        Ok(std::borrow::Cow::Borrowed(_)) => return Ok(()),
        Ok(changed) => changed.into_owned(),
        Err(_) => return Err(LocalReplyReason::BadPath),
    };
    replace_path(uri, changed).ok_or(LocalReplyReason::BadPath)
}

/// Replaces the path of `uri` and keeps its query. `None` if `path` is not valid.
pub(super) fn replace_path(uri: &mut Uri, mut path: String) -> Option<()> {
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(bytes::Bytes::from(path)).ok()?);
    *uri = Uri::from_parts(parts).ok()?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(uri: &str) -> Result<String, LocalReplyReason> {
        let mut uri: Uri = uri.parse().expect("a URI");
        normalise_target(&mut uri, &PathNormalisation::default())?;
        Ok(uri.to_string())
    }

    #[test]
    fn normalisation_changes_only_the_path() {
        assert_eq!(normalised("/a/../b?c=/../%41").as_deref(), Ok("/b?c=/../%41"));
        assert_eq!(normalised("http://h:1/a//b").as_deref(), Ok("http://h:1/a/b"));
        assert_eq!(normalised("*").as_deref(), Ok("*"));
        assert_eq!(normalised("/%00"), Err(LocalReplyReason::BadPath));
    }
}
