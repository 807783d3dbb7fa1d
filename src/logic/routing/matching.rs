//! The host and path matchers of a route.

use std::fmt;

use super::pattern::Pattern;

/// Matches hosts, in lower case and without a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostMatch {
    #[default]
    Any,
    Exact(String),
    /// Every host with one label or more before this name: `*.name`.
    Wildcard(String),
}

impl HostMatch {
    /// Whether any host matches both.
    pub fn has_overlap_with(&self, other: &Self) -> bool {
        let is_under = |host: &str, name: &str| {
            host.strip_suffix(name).is_some_and(|labels| labels.ends_with('.'))
        };
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Exact(one), Self::Exact(another)) => one == another,
            (Self::Exact(host), Self::Wildcard(name))
            | (Self::Wildcard(name), Self::Exact(host)) => is_under(host, name),
            (Self::Wildcard(one), Self::Wildcard(another)) => {
                one == another || is_under(one, another) || is_under(another, one)
            }
        }
    }
}

/// The paths that a route matches, in their normalised form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Paths with this prefix, by whole segments: `/v1` matches `/v1` and `/v1/x`, but not `/v1x`.
    Prefix(String),
    Exact(String),
    /// Paths that match as a whole.
    Regex(Pattern),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(name) => write!(f, "*.{name}"),
        }
    }
}

/// With the modifiers of nginx locations: `=` for exact paths, `~` for patterns.
impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(path) => f.write_str(path),
            Self::Exact(path) => write!(f, "={path}"),
            Self::Regex(pattern) => write!(f, "~{}", pattern.as_str()),
        }
    }
}

/// The rest of `path` after `prefix`; `None` unless it is a prefix by whole segments.
pub(super) fn strip_path_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/')).then_some(rest)
}
