//! The house rules that a machine can check: `main → cli → app → {net, config, sim} → logic`, a
//! pure core, no `unsafe`, and no file too long to be read.

use std::path::{Path, PathBuf};

/// Lines of a source file, at most.
const MAX_FILE_LINES: usize = 500;

/// What each layer may use besides itself.
const ALLOWED_DEPENDENCIES: [(&str, &[&str]); 7] = [
    ("logic", &[]),
    ("net", &["logic"]),
    ("config", &["logic"]),
    ("sim", &["logic"]),
    ("app", &["net", "config", "sim", "logic"]),
    ("cli", &["app", "net", "config", "sim", "logic"]),
    ("main", &["cli"]),
];

/// What would make the core impure: async, sockets, files, clock, environment, locks, logging.
const IMPURE_WORDS: [&str; 15] = [
    "tokio",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::fs",
    "std::env",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "tracing",
    "Mutex",
    "RwLock",
    "async",
    "println",
    "eprintln",
];

/// A source file: its path below `src`, and its text.
struct SourceFile {
    path: PathBuf,
    text: String,
}

impl SourceFile {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.to_owned() }
    }

    /// `net/upstream/pool.rs` is in `net`; `main.rs` and `lib.rs` are layers of their own.
    fn layer(&self) -> String {
        let first = self.path.iter().next().unwrap_or_default();
        first.to_string_lossy().trim_end_matches(".rs").to_owned()
    }

    /// How many `super` lead from the top of this file to the crate.
    fn super_depth(&self) -> usize {
        let folders = self.path.iter().count() - 1;
        if self.path.ends_with("mod.rs") { folders } else { folders + 1 }
    }

    /// Lines of code with their numbers: no comments, no literals, no modules of tests.
    fn code_lines(&self) -> Vec<(usize, String)> {
        let mut lines = Vec::new();
        let mut test_indent: Option<String> = None;
        let mut is_test_next = false;
        for (index, line) in self.text.lines().enumerate() {
            let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
            if let Some(open) = &test_indent {
                if line.starts_with('}') && open.is_empty() || line == format!("{open}}}") {
                    test_indent = None;
                }
                continue;
            }
            if line.trim() == "#[cfg(test)]" {
                is_test_next = true;
                continue;
            }
            if std::mem::take(&mut is_test_next) && line.trim_start().starts_with("mod ") {
                if line.ends_with('{') {
                    test_indent = Some(indent);
                }
                continue;
            }
            lines.push((index + 1, strip_literals_and_comment(line)));
        }
        lines
    }

    /// Layers that the code names, with the line.
    fn layer_uses(&self) -> Vec<(usize, String)> {
        let code = self.code_lines();
        let text: String = code.iter().map(|(_, line)| format!("{line}\n")).collect();
        let line_of = |offset: usize| code[text[..offset].matches('\n').count()].0;
        let to_crate = "super::".repeat(self.super_depth());
        let mut found = Vec::new();
        for root in ["crate::", "gapless::", &to_crate] {
            for (offset, _) in text.match_indices(root) {
                let before = text[..offset].chars().next_back();
                if root.starts_with("super") && text[..offset].ends_with("super::")
                    || before.is_some_and(|c| c.is_alphanumeric() || c == '_')
                {
                    continue;
                }
                for name in first_path_segments(&text[offset + root.len()..]) {
                    found.push((line_of(offset), name));
                }
            }
        }
        found
    }
}

/// `a` of `a::b`, and `a` and `c` of `{a::b, c}`.
fn first_path_segments(path: &str) -> Vec<String> {
    let path = path.trim_start();
    let leading_identifier = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(list) = path.strip_prefix('{') else { return vec![leading_identifier(path)] };
    let mut depth = 0;
    let mut names = vec![leading_identifier(list)];
    for (index, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(leading_identifier(&list[index + 1..])),
            _ => {}
        }
    }
    names
}

/// The line up to a comment, with the insides of its strings left out.
fn strip_literals_and_comment(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    let mut in_string = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => {
                chars.next();
            }
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            _ if !in_string => out.push(c),
            _ => {}
        }
    }
    out
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_part)
            && !line[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

/// Every breach of the layers.
fn layer_violations(sources: &[SourceFile]) -> Vec<String> {
    let mut violations = Vec::new();
    for source in sources {
        let layer = source.layer();
        let Some((_, allowed)) = ALLOWED_DEPENDENCIES.iter().find(|(name, _)| *name == layer)
        else {
            if layer != "lib" {
                violations.push(format!("{}: {layer} is no layer", source.path.display()));
            }
            continue;
        };
        for (line, used) in source.layer_uses() {
            let is_layer = ALLOWED_DEPENDENCIES.iter().any(|(name, _)| *name == used);
            if is_layer && used != layer && !allowed.contains(&used.as_str()) {
                violations.push(format!("{}:{line}: {layer} uses {used}", source.path.display()));
            }
        }
    }
    violations
}

/// Every line of the core's own code that does or knows more than it should.
fn impure_uses(sources: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    let is_core = |source: &&SourceFile| {
        let is_test = source.path.iter().any(|part| part == "tests" || part == "tests.rs");
        source.layer() == "logic" && !is_test
    };
    for source in sources.iter().filter(is_core) {
        for (number, line) in source.code_lines() {
            for word in IMPURE_WORDS.iter().filter(|word| has_word(&line, word)) {
                found.push(format!("{}:{number}: {word}", source.path.display()));
            }
        }
    }
    found
}

fn read_source_files() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("text");
                let path = path.strip_prefix(&root).expect("below src").to_owned();
                sources.push(SourceFile { path, text });
            }
        }
    }
    assert!(sources.len() > 30, "only {} sources found", sources.len());
    sources
}

#[test]
fn layers_depend_only_on_lower_layers() {
    let violations = layer_violations(&read_source_files());
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn logic_layer_is_pure() {
    let found = impure_uses(&read_source_files());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn source_files_stay_below_line_limit() {
    let long: Vec<_> = read_source_files()
        .into_iter()
        .filter(|source| source.text.lines().count() > MAX_FILE_LINES)
        .map(|source| source.path)
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn sources_contain_no_unsafe_code() {
    for source in read_source_files() {
        for (number, line) in source.code_lines() {
            assert!(!has_word(&line, "unsafe"), "{}:{number}", source.path.display());
        }
    }
}

#[test]
fn planted_violations_are_reported() {
    for (path, text) in [
        ("logic/health.rs", "use crate::net::prober;"),
        ("logic/director/mod.rs", "use super::super::config::model;"),
        ("net/prober.rs", "use crate::{\n    config::model,\n    logic::id,\n};"),
        ("net/h1/head.rs", "fn f() -> super::super::super::config::Loaded {}"),
        ("config/mod.rs", "fn f() { crate::net::listener::bind(); }"),
        ("sim/world.rs", "use crate::app::Instance;"),
        ("app/control.rs", "use crate::cli::OK;"),
        ("main.rs", "use gapless::app::Instance;"),
        ("extra/mod.rs", ""),
    ] {
        assert_eq!(layer_violations(&[SourceFile::new(path, text)]).len(), 1, "{path}: {text}");
    }
    for text in [
        "use tokio::time::sleep;",
        "let now = std::time::Instant::now();",
        "use std::sync::{Arc, Mutex};",
        "    tracing::info!(\"up\");",
        "#[cfg(test)]\nmod tests {\n    use super::*;\n}\nuse std::fs::read;",
    ] {
        assert_eq!(impure_uses(&[SourceFile::new("logic/health.rs", text)]).len(), 1, "{text}");
    }
}

#[test]
fn allowed_uses_are_not_reported() {
    for (path, text) in [
        ("logic/health.rs", "use super::evidence::Evidence;\nuse crate::logic::id::Place;"),
        ("logic/health.rs", "// crate::net is not for us\nlet s = \"crate::net::x\";"),
        ("net/prober.rs", "use crate::logic::id;"),
        ("app/control.rs", "use crate::{net::prober, config::model, logic};"),
        ("app/proxy/trip.rs", "use super::super::worker::View;"),
        ("main.rs", "gapless::cli::main()"),
        ("lib.rs", "pub mod logic;"),
    ] {
        let violations = layer_violations(&[SourceFile::new(path, text)]);
        assert!(violations.is_empty(), "{violations:?}");
    }
    for text in [
        "use std::time::Instant; // Instant::now is the driver's",
        "#[cfg(test)]\nmod tests {\n    fn f() { let t0 = Instant::now(); }\n}",
        "#[cfg(test)]\nmod tests;",
    ] {
        let found = impure_uses(&[SourceFile::new("logic/health.rs", text)]);
        assert!(found.is_empty(), "{found:?}");
    }
}
