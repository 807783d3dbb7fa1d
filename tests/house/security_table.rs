//! `SECURITY.md` names tests; these names must exist.

use std::path::Path;

/// An attack class with its tests by file and name.
type SecurityTableRow = (String, Vec<(String, String)>);

/// The rows of the tables without their headers.
fn parse_table_rows(text: &str) -> Vec<SecurityTableRow> {
    let cells = |line: &str| -> Vec<String> {
        line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells = cells(line);
        assert_eq!(cells.len(), 3, "{line}");
        if cells[0] == "class" {
            continue;
        }
        let mut file = String::new();
        let mut tests = Vec::new();
        for word in cells[2].split('`').skip(1).step_by(2) {
            if word.contains('/') {
                word.clone_into(&mut file);
            } else {
                tests.push((file.clone(), word.to_owned()));
            }
        }
        rows.push((cells[0].clone(), tests));
    }
    rows
}

/// Whether the text has a test of this name that is not ignored.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let signature = format!("fn {name}(");
    lines.iter().enumerate().any(|(at, line)| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        let attributes: Vec<&&str> = above.collect();
        line.trim_start_matches("async ").starts_with(&signature)
            && attributes.iter().any(|line| line.ends_with("test]"))
            && !attributes.iter().any(|line| line.contains("ignore"))
    })
}

#[test]
fn every_attack_class_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("SECURITY.md")).expect("a file");
    let rows = parse_table_rows(&text);
    assert!(rows.len() >= 40, "{} classes", rows.len());
    for (class, tests) in rows {
        // A class of a feature that does not exist yet has no test.
        assert!(!tests.is_empty() || class.contains("DNS"), "{class} has no test");
        for (file, name) in tests {
            let source = std::fs::read_to_string(root.join(&file));
            let source = source.unwrap_or_else(|error| panic!("{class}: {file}: {error}"));
            assert!(has_test(&source, &name), "{class}: no test `{name}` in {file}");
        }
    }
}

#[test]
fn function_without_test_attribute_is_not_a_test() {
    assert!(has_test("#[test]\nfn a() {", "a"));
    assert!(has_test("    #[tokio::test]\n    #[cfg(x)]\n    fn a() {", "a"));
    assert!(has_test("#[tokio::test]\nasync fn a() {", "a"));
    assert!(!has_test("#[test]\nfn ab() {", "a"));
    assert!(!has_test("fn a() {", "a"));
    assert!(!has_test("#[test]\n#[ignore = \"slow\"]\nfn a() {", "a"));
}
