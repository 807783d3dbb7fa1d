//! Text to the mirror in [`super::file`], with every unreadable part reported and left out.
//!
//! The mirror alone says what may be written, and deserializing stops at the first thing that may
//! not. So the part that it names is reported, removed from the parsed tree, and the rest is read
//! again; what was removed is remembered as a [`Gaps`], so that nothing else is blamed for it.

use std::collections::HashSet;
use std::ops::Range;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::file::File;
use super::findings::{Findings, Flaw};
use super::report::Report;
use super::source::Source;
use super::suggest;

/// Unreadable parts that are removed before the rest is given up.
const MAX_ROUNDS: usize = Report::MAX_DIAGNOSTICS;

/// The span that the mirror's root has, which no table in the file has.
pub(super) const ROOT: Range<usize> = 0..0;

/// Keys that the file has (or nearly has) but whose values could not be read.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    list: Vec<Gap>,
}

#[derive(Debug)]
struct Gap {
    /// The span of the table that holds the key.
    table: Range<usize>,
    key: String,
}

impl Gaps {
    /// Whether `key` of the table at `table` was given, but not readably.
    pub(super) fn has(&self, table: &Range<usize>, key: &str) -> bool {
        self.list.iter().any(|gap| gap.table == *table && gap.key == key)
    }

    /// The keys of the table at `table` that were given, but not readably.
    pub(super) fn keys_of(&self, table: &Range<usize>) -> Vec<String> {
        let gaps = self.list.iter().filter(|gap| gap.table == *table);
        gaps.map(|gap| gap.key.clone()).collect()
    }

    /// Whether everything could be read.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn note(&mut self, table: &Range<usize>, key: &str) {
        self.list.push(Gap { table: table.clone(), key: key.to_owned() });
    }
}

/// Reads `text` as far as it can be read; `None` when what it says cannot be known at all.
pub(super) fn read(source: &Source<'_>, findings: &mut Findings) -> Option<(File, Gaps)> {
    let (mut table, syntax_errors) = DeTable::parse_recoverable(source.text());
    let only_duplicates = syntax_errors.iter().all(|error| error.message() == DUPLICATE);
    syntax(source, &syntax_errors, findings);
    if !only_duplicates {
        return None;
    }
    let mut gaps = Gaps::default();
    for _ in 0..MAX_ROUNDS {
        let error = match File::deserialize(toml::Deserializer::from(table.clone())) {
            Ok(file) => return Some((file, gaps)),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(ROOT);
        let Some(removed) = remove(table.get_mut(), &ROOT, &span) else {
            findings.error(&span, Flaw::new(error.message(), "compare it with `gapless schema`"));
            return None;
        };
        let (flaw, meant) = explain(error.message(), &removed);
        findings.error(&span, flaw);
        gaps.note(&removed.table, &removed.key);
        if let Some(meant) = meant {
            gaps.note(&removed.table, &meant);
        }
    }
    let flaw = Flaw::new(
        "too much of the file cannot be read to check the rest",
        "mend what is listed, then check again",
    );
    findings.error(&ROOT, flaw);
    None
}

/// What the parser says of a key that a table already has; the first one is kept, so the rest of
/// the file means what it says.
const DUPLICATE: &str = "duplicate key";

/// Reports what is not TOML, one error a line: the first one on a line tends to cause the others.
fn syntax(source: &Source<'_>, errors: &[toml::de::Error], findings: &mut Findings) {
    let mut lines = HashSet::new();
    for error in errors {
        let span = error.span().unwrap_or(ROOT);
        if !lines.insert(source.line(span.start)) {
            continue;
        }
        let covered = source.text().get(span.clone()).unwrap_or_default();
        findings.error(&span, explain_syntax(error.message(), covered));
    }
}

fn explain_syntax(message: &str, covered: &str) -> Flaw {
    if message == DUPLICATE {
        return Flaw::new(format!("`{covered}` is given twice"), "give it once");
    }
    let unquoted = message.starts_with("string values must be quoted");
    if unquoted && covered.is_empty() {
        return Flaw::new("a value is missing", "write one; strings are in quotes");
    }
    let mend = if unquoted {
        "put it in quotes; if it is no value, close the list or table before it"
    } else if message.starts_with("unclosed") {
        "close it"
    } else {
        "write it as TOML: strings in quotes, lists in [], tables in {}"
    };
    Flaw::new(message, mend)
}

/// A part that was taken out of the tree.
struct Removed {
    /// The span of the nearest table around it.
    table: Range<usize>,
    /// The key in that table that it is, or is an element of.
    key: String,
}

/// Takes out the key, value or element that stands at `span`, the innermost if several do.
fn remove(table: &mut DeTable<'_>, at: &Range<usize>, span: &Range<usize>) -> Option<Removed> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        let value_span = value.span();
        let inner = remove_inside(value.get_mut(), &value_span, span);
        let here = || (key.span() == *span || value_span == *span).then_some(Inner::Itself);
        match inner.or_else(here) {
            Some(Inner::Nested(removed)) => return Some(removed),
            Some(Inner::Element) => {
                return Some(Removed { table: at.clone(), key: key.get_ref().to_string() });
            }
            Some(Inner::Itself) => found = Some(key.get_ref().to_string()),
            None => {}
        }
    }
    let key = found?;
    table.remove(key.as_str());
    Some(Removed { table: at.clone(), key })
}

/// What a search inside a value has found.
enum Inner {
    /// Removed from a table below; nothing is left to do.
    Nested(Removed),
    /// Removed from an array that is the value of the key at hand.
    Element,
    /// The key at hand itself is to be removed.
    Itself,
}

fn remove_inside(value: &mut DeValue<'_>, at: &Range<usize>, span: &Range<usize>) -> Option<Inner> {
    match value {
        DeValue::Table(table) => remove(table, at, span).map(Inner::Nested),
        DeValue::Array(array) => {
            for element in array.iter_mut() {
                let element_span = element.span();
                let inner = remove_inside(element.get_mut(), &element_span, span);
                if inner.is_some() {
                    return inner;
                }
            }
            // A list made of `[[headers]]` has the span of its first element; then all of it is meant.
            let element = array.iter().position(|one| one.span() == *span);
            let index = element.filter(|_| at != span)?;
            let kept = array.iter().enumerate().filter(|(at, _)| *at != index);
            *array = kept.map(|(_, element)| element.clone()).collect();
            Some(Inner::Element)
        }
        _ => None,
    }
}

/// Says in our words what was wrong with `removed`, and which key was meant if that is known.
fn explain(message: &str, removed: &Removed) -> (Flaw, Option<String>) {
    let key = removed.key.as_str();
    if let Some(expected) = message.strip_prefix(&format!("unknown field `{key}`")) {
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let meant = suggest::nearest(key, known.iter().copied());
        let mend = meant.map_or_else(
            || format!("the keys here are {}", suggest::list(known.iter().copied())),
            |meant| format!("did you mean `{meant}`?"),
        );
        return (Flaw::new(format!("`{key}` is not known here"), mend), meant.map(str::to_owned));
    }
    let flaw =
        match message.strip_prefix("invalid type: ").and_then(|m| m.split_once(", expected ")) {
            Some(("map", "a sequence")) => Flaw::new(
                format!("`{key}` is a list, not a table"),
                format!("write its header with two brackets, as `[[{key}]]`"),
            ),
            Some(("sequence", expected)) => {
                Flaw::new(format!("`{key}` cannot be a list"), format!("write {expected}"))
            }
            Some((found, expected)) => Flaw::new(
                match found {
                    "map" => format!("`{key}` cannot be a table"),
                    found => format!(
                        "`{key}` cannot be the {}",
                        found.replace("floating point", "number")
                    ),
                },
                format!("write {}", expected.replace("a sequence", "a list, in []")),
            ),
            None => Flaw::new(format!("`{key}`: {message}"), "compare it with `gapless schema`"),
        };
    (flaw, None)
}
