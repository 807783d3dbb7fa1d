//! Parses text into the types of [`super::file`]; every unreadable part is reported and omitted.
//!
//! Serde stops at the first error. So the part that the error names is reported and removed from
//! the parsed tree, and the rest is deserialized again. [`UnreadKeys`] records what was removed, so
//! that the checks do not report it as missing.

use std::collections::HashSet;
use std::ops::Range;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Diagnostics, Problem};
use super::file::ConfigFile;
use super::report::ConfigReport;
use super::source_text::SourceText;
use super::suggest;

/// Rounds of recovery, each of which removes one unreadable part.
const MAX_RECOVERY_ROUNDS: usize = ConfigReport::MAX_DIAGNOSTICS;

/// The span of the root table; no table in the file has this span.
pub(super) const ROOT_SPAN: Range<usize> = 0..0;

/// Keys in the file (also misspelt ones) whose values could not be read.
#[derive(Debug, Default)]
pub(super) struct UnreadKeys {
    entries: Vec<UnreadKey>,
}

#[derive(Debug)]
struct UnreadKey {
    /// The span of the table with the key.
    table: Range<usize>,
    key: String,
}

impl UnreadKeys {
    /// Whether the table at `table` has an unreadable `key`.
    pub(super) fn has_key(&self, table: &Range<usize>, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.table == *table && entry.key == key)
    }

    /// The unreadable keys of the table at `table`.
    pub(super) fn keys_in(&self, table: &Range<usize>) -> Vec<String> {
        let unread = self.entries.iter().filter(|gap| gap.table == *table);
        unread.map(|gap| gap.key.clone()).collect()
    }

    /// Whether everything could be read.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn add(&mut self, table: &Range<usize>, key: &str) {
        self.entries.push(UnreadKey { table: table.clone(), key: key.to_owned() });
    }
}

/// Reads as much of the file as possible; `None` when too little of it can be read to check the
/// rest.
pub(super) fn read_config_file(
    source: &SourceText<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<(ConfigFile, UnreadKeys)> {
    let (mut table, syntax_errors) = DeTable::parse_recoverable(source.text());
    let has_only_duplicates = syntax_errors.iter().all(|error| error.message() == DUPLICATE_KEY);
    report_syntax_errors(source, &syntax_errors, diagnostics);
    if !has_only_duplicates {
        return None;
    }
    let mut unread = UnreadKeys::default();
    for _ in 0..MAX_RECOVERY_ROUNDS {
        let error = match ConfigFile::deserialize(toml::Deserializer::from(table.clone())) {
            Ok(file) => return Some((file, unread)),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(ROOT_SPAN);
        let Some(removed) = remove_at_span(table.get_mut(), &ROOT_SPAN, &span) else {
            diagnostics
                .error(&span, Problem::new(error.message(), "compare it with `gapless schema`"));
            return None;
        };
        let (problem, suggestion) = explain_error(error.message(), &removed);
        diagnostics.error(&span, problem);
        unread.add(&removed.table, &removed.key);
        if let Some(suggestion) = suggestion {
            unread.add(&removed.table, &suggestion);
        }
    }
    let problem = Problem::new(
        "too much of the file cannot be read to check the rest",
        "correct the errors above, then check again",
    );
    diagnostics.error(&ROOT_SPAN, problem);
    None
}

/// The parser's message for a duplicate key. The first value is kept, so the rest of the file is
/// valid.
const DUPLICATE_KEY: &str = "duplicate key";

/// Reports syntax errors, one per line: the first one on a line tends to cause the others.
fn report_syntax_errors(
    source: &SourceText<'_>,
    errors: &[toml::de::Error],
    diagnostics: &mut Diagnostics,
) {
    let mut lines = HashSet::new();
    for error in errors {
        let span = error.span().unwrap_or(ROOT_SPAN);
        if !lines.insert(source.line_at(span.start)) {
            continue;
        }
        let covered = source.text().get(span.clone()).unwrap_or_default();
        diagnostics.error(&span, explain_syntax_error(error.message(), covered));
    }
}

fn explain_syntax_error(message: &str, covered: &str) -> Problem {
    if message == DUPLICATE_KEY {
        return Problem::new(format!("`{covered}` is given twice"), "give it once");
    }
    let is_unquoted = message.starts_with("string values must be quoted");
    if is_unquoted && covered.is_empty() {
        return Problem::new("a value is missing", "write one; strings are in quotes");
    }
    let help = if is_unquoted {
        "put it in quotes; if it is not a value, close the list or table before it"
    } else if message.starts_with("unclosed") {
        "close it"
    } else {
        "write it as TOML: strings in quotes, lists in [], tables in {}"
    };
    Problem::new(message, help)
}

/// A part that was removed from the parsed tree.
struct RemovedKey {
    /// The span of the nearest table around it.
    table: Range<usize>,
    /// The key in that table whose value, or an element of whose value, was removed.
    key: String,
}

/// Removes the key, value or element at `span`, the innermost one if several have this span.
fn remove_at_span(
    table: &mut DeTable<'_>,
    at: &Range<usize>,
    span: &Range<usize>,
) -> Option<RemovedKey> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        let value_span = value.span();
        let inner = remove_nested(value.get_mut(), &value_span, span);
        let here = || (key.span() == *span || value_span == *span).then_some(Removal::WholeValue);
        match inner.or_else(here) {
            Some(Removal::Nested(removed)) => return Some(removed),
            Some(Removal::Element) => {
                return Some(RemovedKey { table: at.clone(), key: key.get_ref().to_string() });
            }
            Some(Removal::WholeValue) => found = Some(key.get_ref().to_string()),
            None => {}
        }
    }
    let key = found?;
    table.remove(key.as_str());
    Some(RemovedKey { table: at.clone(), key })
}

/// The result of a search inside a value.
enum Removal {
    /// The part was removed from a nested table.
    Nested(RemovedKey),
    /// An element was removed from the array of the current key.
    Element,
    /// The current key is to be removed.
    WholeValue,
}

fn remove_nested(
    value: &mut DeValue<'_>,
    at: &Range<usize>,
    span: &Range<usize>,
) -> Option<Removal> {
    match value {
        DeValue::Table(table) => remove_at_span(table, at, span).map(Removal::Nested),
        DeValue::Array(array) => {
            for element in array.iter_mut() {
                let element_span = element.span();
                let inner = remove_nested(element.get_mut(), &element_span, span);
                if inner.is_some() {
                    return inner;
                }
            }
            // A list of `[[headers]]` has the span of its first element; then the whole list is
            // meant.
            let element = array.iter().position(|one| one.span() == *span);
            let index = element.filter(|_| at != span)?;
            let remaining = array.iter().enumerate().filter(|(at, _)| *at != index);
            *array = remaining.map(|(_, element)| element.clone()).collect();
            Some(Removal::Element)
        }
        _ => None,
    }
}

/// Rewords the error of serde about `removed`; returns also the key that was probably meant.
fn explain_error(message: &str, removed: &RemovedKey) -> (Problem, Option<String>) {
    let key = removed.key.as_str();
    if let Some(expected) = message.strip_prefix(&format!("unknown field `{key}`")) {
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let suggestion = suggest::nearest(key, known.iter().copied());
        let help = suggestion.map_or_else(
            || format!("the keys here are {}", suggest::quoted_list(known.iter().copied())),
            |suggestion| format!("did you mean `{suggestion}`?"),
        );
        return (
            Problem::new(format!("`{key}` is not known here"), help),
            suggestion.map(str::to_owned),
        );
    }
    let problem =
        match message.strip_prefix("invalid type: ").and_then(|m| m.split_once(", expected ")) {
            Some(("map", "a sequence")) => Problem::new(
                format!("`{key}` is a list, not a table"),
                format!("write its header with two brackets, as `[[{key}]]`"),
            ),
            Some(("sequence", expected)) => {
                Problem::new(format!("`{key}` cannot be a list"), format!("write {expected}"))
            }
            Some((found, expected)) => Problem::new(
                match found {
                    "map" => format!("`{key}` cannot be a table"),
                    found => format!(
                        "`{key}` cannot be the {}",
                        found.replace("floating point", "number")
                    ),
                },
                format!("write {}", expected.replace("a sequence", "a list, in []")),
            ),
            None => Problem::new(format!("`{key}`: {message}"), "compare it with `gapless schema`"),
        };
    (problem, None)
}
