//! Links of the documents lead to files and headings that exist, and the book lists all its pages.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::limits::documents;

/// A heading as mdBook and GitHub name it in a link.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_');
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    without_code(text)
        .iter()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line))
        .collect()
}

/// Lines outside of code blocks.
fn without_code(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut kept = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            kept.push(line);
        }
    }
    kept
}

/// Targets of links, without those of code spans and of other sites.
fn link_targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in without_code(text) {
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for rest in plain.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default().trim();
            if !target.contains("://") && !target.starts_with("mailto:") && !target.is_empty() {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// `docs/guides/../a.md` as `docs/a.md`.
fn normalized(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir => {}
            part => parts.push(part),
        }
    }
    parts
}

#[test]
fn links_lead_to_files_and_headings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = documents();
    let mut broken = Vec::new();
    for (path, text) in &documents {
        for target in link_targets(text) {
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let folder = Path::new(path).parent().unwrap_or_else(|| Path::new(""));
            let file =
                if file.is_empty() { PathBuf::from(path) } else { normalized(&folder.join(file)) };
            let page = documents.iter().find(|(other, _)| Path::new(other) == file);
            let has_heading = match page {
                _ if heading.is_empty() => true,
                Some((_, text)) => anchors(text).contains(heading),
                None => false,
            };
            if !root.join(&file).exists() || !has_heading {
                broken.push(format!("{path}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn book_lists_all_its_pages() {
    let documents = documents();
    let (_, summary) =
        documents.iter().find(|(path, _)| path == "docs/SUMMARY.md").expect("a summary");
    let listed: BTreeSet<PathBuf> =
        link_targets(summary).iter().map(|target| Path::new("docs").join(target)).collect();
    for (path, _) in documents.iter().filter(|(path, _)| path.starts_with("docs/")) {
        assert!(
            path == "docs/SUMMARY.md" || listed.contains(Path::new(path)),
            "{path} is not listed"
        );
    }
}

#[test]
fn planted_links_are_read() {
    let text = "[a](b.md#c-d) `[x](y)` [e](https://f)\n```\n[g](h)\n```\n[i](#j) [k](../l.md)";
    assert_eq!(link_targets(text), ["b.md#c-d", "#j", "../l.md"]);
    assert_eq!(anchor("## What `x` is, and why"), "what-x-is-and-why");
    assert_eq!(normalized(Path::new("docs/guides/../a.md")), Path::new("docs/a.md"));
}

/// Paths of the repository that a document names in code spans.
fn named_paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in without_code(text) {
        for span in line.split('`').skip(1).step_by(2) {
            let is_path = ["src/", "tests/", "benches/", "config/", "docs/", "fuzz/"]
                .iter()
                .any(|folder| span.starts_with(folder));
            if is_path && !span.contains([' ', '*', '<', '{']) && !span.contains("TARGET") {
                found.push(span.trim_end_matches('/').to_owned());
            }
        }
    }
    found
}

#[test]
fn paths_in_documents_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for (path, text) in documents().iter().filter(|(path, _)| path != "CHANGELOG.md") {
        for named in named_paths(text) {
            if !root.join(&named).exists() {
                missing.push(format!("{path}: {named}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
