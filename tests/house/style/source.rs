//! Source files, split into code without literals and comments.

use std::path::{Path, PathBuf};

/// One line: the code with the contents of literals blanked, and the comment text.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceLine {
    pub(super) code: String,
    pub(super) comment: Option<String>,
}

/// A source file: its path below the repository, and its lines.
#[derive(Clone, Debug)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) lines: Vec<SourceLine>,
}

/// What the lexer is inside of at the end of a line.
enum LexerState {
    Code,
    BlockComment,
    Text { raw_hashes: Option<usize> },
}

impl SourceFile {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), lines: split_lines(text) }
    }

    /// The code of all lines, without modules of tests.
    pub(super) fn code_without_tests(&self) -> String {
        let mut kept = String::new();
        let mut open_indent: Option<usize> = None;
        let mut is_test_next = false;
        for SourceLine { code, .. } in &self.lines {
            let indent = code.len() - code.trim_start().len();
            let trimmed = code.trim();
            if let Some(open) = open_indent {
                if trimmed == "}" && indent == open {
                    open_indent = None;
                }
                kept.push('\n');
                continue;
            }
            if trimmed.starts_with("#[cfg(test)]")
                || trimmed.starts_with("#[cfg(any(test, fuzzing))]")
            {
                is_test_next = true;
            } else if std::mem::take(&mut is_test_next) && trimmed.contains("mod ") {
                if trimmed.ends_with('{') {
                    open_indent = Some(indent);
                }
            } else {
                kept.push_str(code);
            }
            kept.push('\n');
        }
        kept
    }

    pub(super) fn is_test(&self) -> bool {
        self.path.iter().any(|part| part == "tests" || part == "tests.rs")
    }

    pub(super) fn display(&self) -> String {
        self.path.display().to_string()
    }
}

fn split_lines(text: &str) -> Vec<SourceLine> {
    let mut state = LexerState::Code;
    text.lines().map(|line| split_line(line, &mut state)).collect()
}

fn split_line(line: &str, state: &mut LexerState) -> SourceLine {
    let chars: Vec<char> = line.chars().collect();
    let mut found = SourceLine::default();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        match state {
            LexerState::BlockComment => {
                if rest.starts_with(&['*', '/']) {
                    *state = LexerState::Code;
                    at += 1;
                }
                at += 1;
            }
            LexerState::Text { raw_hashes: None } => match rest[0] {
                '\\' => at += 2,
                '"' => {
                    found.code.push('"');
                    *state = LexerState::Code;
                    at += 1;
                }
                _ => at += 1,
            },
            LexerState::Text { raw_hashes: Some(hashes) } => {
                let is_end = rest[0] == '"'
                    && rest[1..].iter().take_while(|c| **c == '#').count() >= *hashes;
                at += 1;
                if is_end {
                    at += *hashes;
                    found.code.push('"');
                    *state = LexerState::Code;
                }
            }
            LexerState::Code => {
                if rest.starts_with(&['/', '/']) {
                    found.comment = Some(rest.iter().collect());
                    break;
                }
                at += step_code(rest, &mut found.code, state);
            }
        }
    }
    found
}

/// Takes the start of one token at the head of `rest`; returns the number of characters.
fn step_code(rest: &[char], code: &mut String, state: &mut LexerState) -> usize {
    let is_word = code.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with(&['/', '*']) {
        *state = LexerState::BlockComment;
        return 2;
    }
    if !is_word && let Some(prefix) = raw_string_prefix(rest) {
        code.push('"');
        *state = LexerState::Text { raw_hashes: Some(prefix.hashes) };
        return prefix.length;
    }
    match rest[0] {
        '"' => {
            code.push('"');
            *state = LexerState::Text { raw_hashes: None };
            1
        }
        '\'' => {
            let length = char_literal_length(rest);
            code.push('\'');
            length.unwrap_or(1)
        }
        c => {
            code.push(c);
            1
        }
    }
}

/// `r"`, `br#"` and the like.
struct RawStringPrefix {
    length: usize,
    hashes: usize,
}

fn raw_string_prefix(rest: &[char]) -> Option<RawStringPrefix> {
    let letters = rest.iter().take_while(|c| matches!(c, 'b' | 'r')).count();
    if letters == 0 || letters > 2 || rest[letters - 1] != 'r' {
        return None;
    }
    let hashes = rest[letters..].iter().take_while(|c| **c == '#').count();
    let length = letters + hashes + 1;
    (rest.get(length - 1) == Some(&'"')).then_some(RawStringPrefix { length, hashes })
}

/// The length of a character literal; `None` for a lifetime.
fn char_literal_length(rest: &[char]) -> Option<usize> {
    if rest.get(1) == Some(&'\\') {
        return rest.iter().skip(3).position(|c| *c == '\'').map(|end| end + 4);
    }
    (rest.get(2) == Some(&'\'')).then_some(3)
}

/// All Rust files below `folder` of the repository.
pub(super) fn read_sources(folder: &str) -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("text");
                let path = path.strip_prefix(root).expect("below the root");
                sources.push(SourceFile::new(&path.display().to_string(), &text));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!sources.is_empty(), "no source in {folder}");
    sources
}

/// Everything that is written in Rust here.
pub(super) fn all_sources() -> Vec<SourceFile> {
    ["src", "tests", "benches", "fuzz"].iter().flat_map(|folder| read_sources(folder)).collect()
}

pub(super) fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(is_part)
            && !text[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

#[test]
fn lexer_separates_code_literals_and_comments() {
    let text = "let a = \"x // y\"; // why\nlet b = r#\"who \"# ; let c = '\"'; fn f<'a>() {}\n\
                /* two\nlines */ let d = 'x'; let e = '\\u{1f}'; let f = b\"multi\nline\";";
    let lines = split_lines(text);
    let code: Vec<&str> = lines.iter().map(|line| line.code.as_str()).collect();
    assert_eq!(code[0], "let a = \"\"; ");
    assert_eq!(lines[0].comment.as_deref(), Some("// why"));
    assert_eq!(code[1], "let b = \"\" ; let c = '; fn f<'a>() {}");
    assert_eq!(code[2], "");
    assert_eq!(code[3], " let d = '; let e = '; let f = b\"");
    assert_eq!(code[4], "\";");
    assert!(has_word("the lane is", "lane") && !has_word("planes", "lane"));
}
