//! Sizes: lines of files, columns of prose, lengths of names and documents.

use std::collections::BTreeMap;
use std::path::Path;

use super::source::{SourceFile, all_sources, read_sources};

/// Lines of a source file, at most.
const MAX_FILE_LINES: usize = 500;

/// Columns of a line of prose, at most.
const MAX_PROSE_COLUMNS: usize = 100;

/// Characters of a test's name, at most.
const MAX_TEST_NAME: usize = 60;

/// Types of one spelling over all crates, at most.
const MAX_SAME_TYPE_NAMES: usize = 2;

/// Documents with a bound on their lines.
const DOCUMENT_LINES: [(&str, usize); 3] =
    [("README.md", 150), ("ARCHITECTURE.md", 200), ("CONTRIBUTING.md", 120)];

/// Lines of a page of `docs/decisions`, at most.
const MAX_DECISION_LINES: usize = 60;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All documents in Markdown: paths below the repository, and texts.
pub(super) fn documents() -> Vec<(String, String)> {
    let mut folders = vec![root().to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "node_modules" {
                    folders.push(path);
                }
            } else if name.ends_with(".md") {
                let text = std::fs::read_to_string(&path).expect("text");
                found.push((path.strip_prefix(root()).expect("below").display().to_string(), text));
            }
        }
    }
    found
}

/// Lines of prose above the limit: no tables, no code blocks, no lines that are one link.
fn long_prose_lines(text: &str) -> Vec<usize> {
    let mut is_code = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        let is_table = line.trim_start().starts_with('|');
        let is_one_word = !line.trim().contains(' ');
        if !is_code && !is_table && !is_one_word && line.chars().count() > MAX_PROSE_COLUMNS {
            found.push(index + 1);
        }
    }
    found
}

#[test]
fn files_have_at_most_500_lines() {
    let long: Vec<String> = all_sources()
        .iter()
        .filter(|source| source.lines.len() > MAX_FILE_LINES)
        .map(|source| format!("{}: {} lines", source.display(), source.lines.len()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn prose_ends_at_100_columns() {
    let mut found = Vec::new();
    for source in all_sources() {
        for (index, line) in source.lines.iter().enumerate() {
            let Some(comment) = &line.comment else { continue };
            let columns = line.code.chars().count() + comment.chars().count();
            if line.code.trim().is_empty() && columns > MAX_PROSE_COLUMNS {
                found.push(format!("{}:{}", source.display(), index + 1));
            }
        }
    }
    for (path, text) in documents() {
        found.extend(long_prose_lines(&text).into_iter().map(|line| format!("{path}:{line}")));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn documents_keep_their_sizes() {
    for (path, text) in documents() {
        let fixed = DOCUMENT_LINES.iter().find(|(name, _)| *name == path).map(|(_, limit)| *limit);
        let is_decision = path.starts_with("docs/decisions/");
        let limit = fixed.or_else(|| is_decision.then_some(MAX_DECISION_LINES));
        let lines = text.lines().count();
        assert!(limit.is_none_or(|limit| lines <= limit), "{path} has {lines} lines");
    }
    for (name, _) in DOCUMENT_LINES {
        assert!(root().join(name).exists(), "{name} is missing");
    }
}

/// Names of types, each with its places. Associated types are no new spelling.
fn type_names(sources: &[SourceFile]) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources {
        for (index, line) in source.lines.iter().enumerate() {
            let declared = line.code.trim_start();
            let is_nested_alias = declared.starts_with("type ") && declared.len() < line.code.len();
            let words: Vec<&str> = declared.split_whitespace().collect();
            let keyword = words
                .iter()
                .take(2)
                .position(|word| ["struct", "enum", "trait", "type", "union"].contains(word));
            let Some(name) = keyword.and_then(|at| words.get(at + 1)).filter(|_| !is_nested_alias)
            else {
                continue;
            };
            let name: String =
                name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.starts_with(char::is_uppercase) {
                names.entry(name).or_default().push(format!("{}:{}", source.display(), index + 1));
            }
        }
    }
    names
}

#[test]
fn type_names_have_one_meaning() {
    let names = type_names(&all_sources());
    let shared: Vec<_> =
        names.into_iter().filter(|(_, places)| places.len() > MAX_SAME_TYPE_NAMES).collect();
    assert!(shared.is_empty(), "{shared:#?}");
}

#[test]
fn test_names_have_at_most_60_characters() {
    let mut long = Vec::new();
    for source in all_sources() {
        let mut is_test = false;
        for line in &source.lines {
            let code = line.code.trim();
            if code.starts_with("#[") {
                is_test |= code.ends_with("test]") || code.contains("::test(");
            } else if let Some((_, rest)) = code.split_once("fn ") {
                let name = rest.split(['(', '<']).next().unwrap_or_default();
                if std::mem::take(&mut is_test) && name.len() > MAX_TEST_NAME {
                    long.push(format!("{}: {name}", source.display()));
                }
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

/// The director's machines keep their state private: no field is visible beyond its own file.
#[test]
fn director_machines_have_private_fields() {
    let mut found = Vec::new();
    for source in read_sources("src/logic/director").iter().filter(|source| !source.is_test()) {
        for (index, line) in source.lines.iter().enumerate() {
            let Some(rest) = line.code.trim_start().strip_prefix("pub(") else { continue };
            let Some((_, declaration)) = rest.split_once(") ") else { continue };
            let name = declaration.split(':').next().unwrap_or_default();
            let is_field = declaration.contains(": ")
                && name.chars().all(|c| c.is_lowercase() || c.is_ascii_digit() || c == '_');
            if is_field {
                found.push(format!("{}:{}: {name}", source.display(), index + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn planted_breaches_of_limits_are_found() {
    let line = "word ".repeat(30);
    assert_eq!(long_prose_lines(&format!("{line}\n| {line} |\n```\n{line}\n```\n{line}")), [1, 6]);
    let text = "pub struct Same;\nenum Same {}\n    type Item = u8;\npub(crate) type Same = u8;";
    let names = type_names(&[SourceFile::new("src/a.rs", text)]);
    assert_eq!(names["Same"].len(), 3);
    assert!(!names.contains_key("Item"));
}
