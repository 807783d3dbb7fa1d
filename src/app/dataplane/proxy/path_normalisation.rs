//! What is made of a request before anybody looks at it: one form of its path, and names of header
//! fields that can be read in one way only.

use http::uri::{PathAndQuery, Uri};
use http::{HeaderName, Request, Version};

use crate::app::dataplane::http_policy::HttpPolicy;
use crate::config::model::UnderscorePolicy;
use crate::logic::routing::{PathNormalisation, normalise};

use super::local_reply_reason::LocalReplyReason;

/// Brings the request to that form: what is matched is what is forwarded.
///
/// # Errors
/// The reason to refuse it with.
pub(super) fn normalise_request(
    request: &mut Request<()>,
    policy: &HttpPolicy,
) -> Result<(), LocalReplyReason> {
    apply_underscore_policy(request, policy.headers.underscores)?;
    if has_only_query(request.uri()) {
        // Only an absolute target may leave the path out (RFC 9113 8.3.1).
        if request.version() == Version::HTTP_2 {
            return Err(LocalReplyReason::BadRequest);
        }
        replace_path(request.uri_mut(), "/".to_owned()).ok_or(LocalReplyReason::BadRequest)?;
    }
    normalise_target(request.uri_mut(), &policy.paths)
}

/// Whether the target is a query alone. The library says that its path is `/`, and writes none: an
/// endpoint has to be asked for one all the same (RFC 9112 3.2.1).
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

/// Targets of other forms are judged with the rest of the request.
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

/// Puts `path` in the place of that of `uri`; the query stays. `None` if it cannot stand there.
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
