//! What is made of a request before anybody looks at it: one form of its path, and names of header
//! fields that can be read in one way only.

use http::uri::{PathAndQuery, Uri};
use http::{HeaderName, Request, Version};

use crate::app::shared::Manners;
use crate::config::model::Underscores;
use crate::logic::route::{PathRules, normalise};

use super::fault::Reason;

/// Brings the request to that form: what is matched is what is forwarded.
///
/// # Errors
/// The reason to refuse it with.
pub(super) fn prepare(request: &mut Request<()>, manners: &Manners) -> Result<(), Reason> {
    underscores(request, manners.headers.underscores)?;
    if is_bare(request.uri()) {
        // Only an absolute target may leave the path out (RFC 9113 8.3.1).
        if request.version() == Version::HTTP_2 {
            return Err(Reason::BadRequest);
        }
        replace_path(request.uri_mut(), "/".to_owned()).ok_or(Reason::BadRequest)?;
    }
    normalise_target(request.uri_mut(), &manners.paths)
}

/// Whether the target is a query alone. The library says that its path is `/`, and writes none: an
/// endpoint has to be asked for one all the same (RFC 9112 3.2.1).
fn is_bare(uri: &Uri) -> bool {
    uri.path_and_query().is_some_and(|target| target.as_str().starts_with('?'))
}

fn underscores(request: &mut Request<()>, policy: Underscores) -> Result<(), Reason> {
    let has_one = |name: &HeaderName| name.as_str().contains('_');
    if policy == Underscores::Allow || !request.headers().keys().any(has_one) {
        return Ok(());
    }
    if policy == Underscores::Reject {
        return Err(Reason::UnderscoreHeader);
    }
    let names: Vec<HeaderName> = request.headers().keys().filter(|n| has_one(n)).cloned().collect();
    for name in names {
        request.headers_mut().remove(name);
    }
    Ok(())
}

/// Targets of other forms are judged with the rest of the request.
fn normalise_target(uri: &mut Uri, rules: &PathRules) -> Result<(), Reason> {
    let path = uri.path();
    let query = uri.query().unwrap_or_default();
    if !path.starts_with('/') || !path.is_ascii() || !query.is_ascii() {
        return Ok(());
    }
    if !query.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Reason::BadPath);
    }
    let changed = match normalise(path, rules) {
        Ok(std::borrow::Cow::Borrowed(_)) => return Ok(()),
        Ok(changed) => changed.into_owned(),
        Err(_) => return Err(Reason::BadPath),
    };
    replace_path(uri, changed).ok_or(Reason::BadPath)
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

    fn target(uri: &str) -> Result<String, Reason> {
        let mut uri: Uri = uri.parse().expect("a URI");
        normalise_target(&mut uri, &PathRules::default())?;
        Ok(uri.to_string())
    }

    #[test]
    fn only_the_path_changes() {
        assert_eq!(target("/a/../b?c=/../%41").as_deref(), Ok("/b?c=/../%41"));
        assert_eq!(target("http://h:1/a//b").as_deref(), Ok("http://h:1/a/b"));
        assert_eq!(target("*").as_deref(), Ok("*"));
        assert_eq!(target("/%00"), Err(Reason::BadPath));
    }
}
