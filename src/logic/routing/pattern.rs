//! Regular expressions over request data: linear time, bounded size.

use std::fmt;
use std::hash::{Hash, Hasher};

use regex::bytes::{Regex, RegexBuilder};

/// A regular expression that must match the whole text. Two patterns are equal if their texts are.
///
/// Classes such as `\\d` and `\\w` are ASCII, because paths are.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    regex: Regex,
}

impl Pattern {
    /// Longest pattern, in bytes.
    pub const MAX_TEXT_BYTES: usize = 1024;

    /// Largest compiled pattern, in bytes.
    pub const MAX_COMPILED_BYTES: usize = 64 * 1024;

    /// Compiles a pattern.
    ///
    /// # Errors
    /// The message of the regex library if the pattern is invalid or too large.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Compiled alone first, so that an unbalanced pattern cannot close the anchoring group.
        build_regex(text)?;
        let regex = build_regex(&anchor(text))?;
        Ok(Self { text: text.into(), regex })
    }

    /// The text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text with anchors, as it is compiled.
    pub(super) fn anchored(&self) -> String {
        anchor(&self.text)
    }

    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.regex.is_match(bytes)
    }
}

fn anchor(text: &str) -> String {
    format!(r"\A(?:{text})\z")
}

fn build_regex(text: &str) -> Result<Regex, String> {
    if text.len() > Pattern::MAX_TEXT_BYTES + 16 {
        return Err(format!("it is longer than {} bytes", Pattern::MAX_TEXT_BYTES));
    }
    let built =
        RegexBuilder::new(text).unicode(false).size_limit(Pattern::MAX_COMPILED_BYTES).build();
    built.map_err(|error| error.to_string())
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

/// A regular expression and the replacement for its matches. Two are equal if their texts are.
#[derive(Clone)]
pub struct Substitution {
    regex: Regex,
    replacement: Box<str>,
}

impl Substitution {
    /// Compiles a pattern with a replacement in which `$1` or `${name}` refer to its groups.
    ///
    /// # Errors
    /// The pattern is invalid or too large, or the replacement names an unknown group.
    pub fn parse(pattern: &str, replacement: &str) -> Result<Self, SubstitutionError> {
        let regex = build_regex(pattern).map_err(SubstitutionError::Pattern)?;
        for group in replacement_groups(replacement) {
            let group_exists = match group.parse::<usize>() {
                Ok(index) => index < regex.captures_len(),
                Err(_) => regex.capture_names().flatten().any(|name| name == group),
            };
            if !group_exists {
                return Err(SubstitutionError::Group(group.to_owned()));
            }
        }
        Ok(Self { regex, replacement: replacement.into() })
    }

    /// Replaces every match in `path`.
    pub(super) fn apply(&self, path: &str) -> String {
        let replaced = self.regex.replace_all(path.as_bytes(), self.replacement.as_bytes());
        String::from_utf8_lossy(&replaced).into_owned()
    }
}

/// The reason why a substitution is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubstitutionError {
    /// The pattern is invalid or too large; the payload is the message.
    Pattern(String),
    /// The pattern has no group of this name.
    Group(String),
}

/// The groups that a replacement names: the longest word after `$`, or the text inside `${}`.
fn replacement_groups(replacement: &str) -> impl Iterator<Item = &str> {
    let mut parts = replacement.split('$');
    parts.next();
    // `$$` is a literal dollar, so the next part is literal too.
    let mut is_escaped = false;
    parts.filter_map(move |part| {
        if std::mem::take(&mut is_escaped) {
            return None;
        }
        if part.is_empty() {
            is_escaped = true;
            return None;
        }
        if let Some(braced) = part.strip_prefix('{') {
            return braced.split_once('}').map(|(name, _)| name);
        }
        let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        Some(&part[..end.unwrap_or(part.len())]).filter(|name| !name.is_empty())
    })
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str() && self.replacement == other.replacement
    }
}

impl fmt::Debug for Substitution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Substitution({:?} -> {:?})", self.regex.as_str(), self.replacement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_matches_the_whole_text_only() {
        let pattern = |text| Pattern::parse(text).expect("a pattern");
        assert!(pattern("/users/[0-9]+").matches(b"/users/42"));
        assert!(!pattern("/users/[0-9]+").matches(b"/users/42/x"));
        assert!(!pattern("a|b").matches(b"ax"), "both sides are anchored");
        assert!(!pattern("(?m)^a$").matches(b"a\nb"));
        assert_eq!(pattern("a+"), pattern("a+"));
        for bad in ["a(", "a)|(?:b", "(a{1000}){1000}", &"a".repeat(1_100)] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn substitution_with_unknown_group_is_rejected() {
        let to = |to| Substitution::parse("/(?P<kind>[a-z]+)/([0-9]+)", to);
        assert_eq!(to("/$2/${kind}").expect("a substitution").apply("/user/7"), "/7/user");
        assert_eq!(to("/x").expect("a substitution").apply("/a/1/b/2"), "/x/x");
        assert_eq!(to("/$$1").expect("a dollar").apply("/a/1"), "/$1");
        assert_eq!(to("/$3"), Err(SubstitutionError::Group("3".to_owned())));
        assert_eq!(to("/$1x"), Err(SubstitutionError::Group("1x".to_owned())));
        assert!(matches!(Substitution::parse("(", ""), Err(SubstitutionError::Pattern(_))));
    }
}
