//! Checks of what a route is for.

use std::ops::Range;

use http::Method;
use http::header::{HOST, HeaderName};

use super::super::check::Check;
use super::plain_path;
use crate::config::address;
use crate::config::file::{self, Entries, Located, ValueTest};
use crate::config::findings::Flaw;
use crate::logic::route::{Conditions, HostMatch, PathMatch, PathRules, Pattern, Test};

/// Conditions of one route, of each kind.
const MAX_CONDITIONS: usize = 64;

const ONE_TEST: &str =
    "write a text, or one of `present = true`, `absent = true`, `prefix = \"…\"`, `regex = \"…\"`";

/// What a route is for; absent is what could not be read.
pub(super) struct Asked {
    pub(super) host: Option<HostMatch>,
    pub(super) path: Option<PathMatch>,
    pub(super) conditions: Option<Conditions>,
}

impl Check<'_> {
    pub(super) fn matching(
        &mut self,
        given: &file::Route,
        table: &Range<usize>,
        paths: &PathRules,
    ) -> Asked {
        let host = match &given.host {
            Some(text) => address::hosts(&text.value)
                .map_err(|flaw| self.findings.error(&text.span, flaw))
                .ok(),
            None => (!self.gaps.has(table, "host")).then_some(HostMatch::Any),
        };
        let path = self.path_match(given, table, paths);
        let methods = given.methods.as_ref().map(|methods| self.methods(methods));
        let headers = given.headers.as_ref().map(|tests| self.header_tests(tests));
        let query = given.query.as_ref().map(|tests| self.query_tests(tests));
        let is_whole = !["methods", "headers", "query"].iter().any(|key| self.gaps.has(table, key));
        let conditions = Conditions {
            cleartext: false,
            methods: methods.unwrap_or_default(),
            headers: headers.unwrap_or_default(),
            query: query.unwrap_or_default(),
        };
        Asked { host, path, conditions: is_whole.then_some(conditions) }
    }

    fn path_match(
        &mut self,
        given: &file::Route,
        table: &Range<usize>,
        paths: &PathRules,
    ) -> Option<PathMatch> {
        let prefix = given.path.as_ref().map(|text| ("path", text));
        let exact = given.path_exact.as_ref().map(|text| ("path_exact", text));
        let regex = given.path_regex.as_ref().map(|text| ("path_regex", text));
        let mut ways = [prefix, exact, regex].into_iter().flatten();
        let Some((key, text)) = ways.next() else {
            let unread =
                ["path", "path_exact", "path_regex"].iter().any(|k| self.gaps.has(table, k));
            return (!unread).then(PathMatch::default);
        };
        if let Some((second, other)) = ways.next() {
            let message = format!("a route has either `{key}` or `{second}`, not both");
            let flaw = Flaw::new(message, "make two routes of it");
            self.findings.error(&other.span, flaw).also(&text.span, "the other one");
            return None;
        }
        if key == "path_regex" {
            return self.pattern_of(text).map(PathMatch::Matches);
        }
        if let Err(flaw) = plain_path(&text.value, paths) {
            self.findings.error(&text.span, flaw);
            return None;
        }
        let path = text.value.clone();
        Some(if key == "path" { PathMatch::Prefix(path) } else { PathMatch::Exact(path) })
    }

    /// A regular expression; reports what is none.
    pub(super) fn pattern_of(&mut self, text: &Located<String>) -> Option<Pattern> {
        let report = |why: String| self.bad_pattern(text, &why);
        Pattern::parse(&text.value).map_err(report).ok()
    }

    pub(super) fn bad_pattern(&mut self, text: &Located<String>, why: &str) {
        // The library draws a picture first; the reason is its last line.
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
        let message = format!("`{}` is not a regular expression: {why}", text.value);
        let mend = "write one such as \"/users/[0-9]+\"; in '' no backslash is doubled";
        self.findings.error(&text.span, Flaw::new(message, mend));
    }

    fn methods(&mut self, given: &Located<Vec<Located<String>>>) -> Vec<Method> {
        if given.value.is_empty() || given.value.len() > MAX_CONDITIONS {
            let message = format!("`methods` has from 1 to {MAX_CONDITIONS} of them");
            let flaw = Flaw::new(message, "name some, or leave it away for all");
            self.findings.error(&given.span, flaw);
        }
        let mut methods = Vec::new();
        for text in given.value.iter().take(MAX_CONDITIONS) {
            match method(&text.value) {
                Ok(method) if methods.contains(&method) => {
                    let message = format!("the method {method} is given twice");
                    self.findings.error(&text.span, Flaw::new(message, "give it once"));
                }
                Ok(method) => methods.push(method),
                Err(flaw) => {
                    self.findings.error(&text.span, flaw);
                }
            }
        }
        methods
    }

    fn header_tests(
        &mut self,
        given: &Located<Entries<Located<ValueTest>>>,
    ) -> Vec<(HeaderName, Test)> {
        self.not_too_many(given, "headers");
        let mut tests: Vec<(HeaderName, Test)> = Vec::new();
        for (key, test) in given.value.0.iter().take(MAX_CONDITIONS) {
            let test = self.value_test(test);
            match HeaderName::from_bytes(key.value.as_bytes()) {
                Ok(name) if name == HOST => {
                    let flaw = Flaw::new("`host` is no header here", "use the route's `host` key");
                    self.findings.error(&key.span, flaw);
                }
                Ok(name) if tests.iter().any(|(known, _)| *known == name) => {
                    let message = format!("the header `{name}` is given twice");
                    self.findings.error(&key.span, Flaw::new(message, "give it once"));
                }
                Ok(name) => tests.extend(test.map(|test| (name, test))),
                Err(_) => {
                    let mend = "use letters, digits and `-`, such as \"x-env\"";
                    let message = format!("`{}` is not a header name", key.value);
                    self.findings.error(&key.span, Flaw::new(message, mend));
                }
            }
        }
        tests
    }

    fn query_tests(
        &mut self,
        given: &Located<Entries<Located<ValueTest>>>,
    ) -> Vec<(Box<str>, Test)> {
        self.not_too_many(given, "query");
        let mut tests = Vec::new();
        for (key, test) in given.value.0.iter().take(MAX_CONDITIONS) {
            if key.value.is_empty() {
                let flaw = Flaw::new("a parameter without a name", "name it, or leave it away");
                self.findings.error(&key.span, flaw);
            }
            let test = self.value_test(test);
            tests.extend(test.map(|test| (key.value.as_str().into(), test)));
        }
        tests
    }

    fn not_too_many<V>(&mut self, given: &Located<Entries<V>>, key: &str) {
        let count = given.value.0.len();
        if count > MAX_CONDITIONS {
            let message = format!("`{key}` has at most {MAX_CONDITIONS} conditions, not {count}");
            self.findings.error(&given.span, Flaw::new(message, "leave some away"));
        }
    }

    fn value_test(&mut self, given: &Located<ValueTest>) -> Option<Test> {
        let table = match &given.value {
            ValueTest::Text(text) => return Some(Test::Is(text.as_bytes().into())),
            ValueTest::Table(table) => table,
        };
        for (key, switch) in [("present", &table.present), ("absent", &table.absent)] {
            if let Some(Located { value: false, span }) = switch {
                let flaw = Flaw::new(format!("`{key} = false` asks for nothing"), ONE_TEST);
                self.findings.error(span, flaw);
                return None;
            }
        }
        let present = table.present.as_ref().map(|_| Test::Present);
        let absent = table.absent.as_ref().map(|_| Test::Absent);
        let prefix = table.prefix.as_ref().map(|text| Test::Prefix(text.value.as_bytes().into()));
        let mut tests: Vec<_> = [present, absent, prefix].into_iter().flatten().collect();
        if let Some(text) = &table.regex {
            tests.push(Test::Matches(self.pattern_of(text)?));
        }
        let keys = ["present", "absent", "prefix", "regex"];
        match (tests.pop(), tests.is_empty()) {
            (Some(only), true) => Some(only),
            (None, _) if keys.iter().any(|key| self.gaps.has(&given.span, key)) => None,
            (first, _) => {
                let message = match first {
                    Some(_) => "a value has one test, not several",
                    None => "the table does not say what the value must be",
                };
                self.findings.error(&given.span, Flaw::new(message, ONE_TEST));
                None
            }
        }
    }
}

fn method(text: &str) -> Result<Method, Flaw> {
    let Ok(method) = Method::from_bytes(text.as_bytes()) else {
        let mend = "write one such as \"GET\" or \"PURGE\"";
        return Err(Flaw::new(format!("`{text}` is not a method"), mend));
    };
    let upper = text.to_ascii_uppercase();
    if method == Method::CONNECT {
        return Err(Flaw::new("CONNECT is never routed", "leave it away"));
    }
    if upper != text {
        return Err(Flaw::new("methods are in capitals", format!("write it as \"{upper}\"")));
    }
    Ok(method)
}
