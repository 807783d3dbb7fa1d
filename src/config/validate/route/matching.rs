//! Checks of the conditions of a route.

use std::ops::Range;

use http::Method;
use http::header::{HOST, HeaderName};

use super::check_normalised_path;
use crate::config::address;
use crate::config::diagnostics::Problem;
use crate::config::file::{self, Entries, Located, ValueTest};
use crate::config::validate::validator::Validator;
use crate::logic::routing::{
    Conditions, HostMatch, PathMatch, PathNormalisation, Pattern, ValueMatcher,
};

/// The most conditions of one kind (`methods`, `headers`, `query`).
const MAX_CONDITIONS: usize = 64;

const VALUE_TEST_HELP: &str =
    "write a text, or one of `present = true`, `absent = true`, `prefix = \"…\"`, `regex = \"…\"`";

/// The match of a route; `None` for parts that could not be read.
pub(super) struct MatchSettings {
    pub(super) host: Option<HostMatch>,
    pub(super) path: Option<PathMatch>,
    pub(super) conditions: Option<Conditions>,
}

impl Validator<'_> {
    pub(super) fn matching(
        &mut self,
        given: &file::Route,
        table: &Range<usize>,
        paths: &PathNormalisation,
    ) -> MatchSettings {
        let host = match &given.host {
            Some(text) => address::parse_host_match(&text.value)
                .map_err(|problem| self.diagnostics.error(&text.span, problem))
                .ok(),
            None => (!self.unread.has_key(table, "host")).then_some(HostMatch::Any),
        };
        let path = self.path_match(given, table, paths);
        let methods = given.methods.as_ref().map(|methods| self.methods(methods));
        let headers = given.headers.as_ref().map(|tests| self.header_tests(tests));
        let query = given.query.as_ref().map(|tests| self.query_tests(tests));
        let is_fully_read =
            !["methods", "headers", "query"].iter().any(|key| self.unread.has_key(table, key));
        let conditions = Conditions {
            is_cleartext_only: false,
            methods: methods.unwrap_or_default(),
            headers: headers.unwrap_or_default(),
            query: query.unwrap_or_default(),
        };
        MatchSettings { host, path, conditions: is_fully_read.then_some(conditions) }
    }

    fn path_match(
        &mut self,
        given: &file::Route,
        table: &Range<usize>,
        paths: &PathNormalisation,
    ) -> Option<PathMatch> {
        let prefix = given.path.as_ref().map(|text| ("path", text));
        let exact = given.path_exact.as_ref().map(|text| ("path_exact", text));
        let regex = given.path_regex.as_ref().map(|text| ("path_regex", text));
        let mut tests = [prefix, exact, regex].into_iter().flatten();
        let Some((key, text)) = tests.next() else {
            let is_unread =
                ["path", "path_exact", "path_regex"].iter().any(|k| self.unread.has_key(table, k));
            return (!is_unread).then(PathMatch::default);
        };
        if let Some((second, other)) = tests.next() {
            let message = format!("a route has either `{key}` or `{second}`, not both");
            let problem = Problem::new(message, "make two routes of it");
            self.diagnostics.error(&other.span, problem).add_related(&text.span, "the other one");
            return None;
        }
        if key == "path_regex" {
            return self.parse_pattern(text).map(PathMatch::Regex);
        }
        if let Err(problem) = check_normalised_path(&text.value, paths) {
            self.diagnostics.error(&text.span, problem);
            return None;
        }
        let path = text.value.clone();
        Some(if key == "path" { PathMatch::Prefix(path) } else { PathMatch::Exact(path) })
    }

    /// Parses a regular expression; reports an invalid one.
    pub(super) fn parse_pattern(&mut self, text: &Located<String>) -> Option<Pattern> {
        let report = |reason: String| self.report_bad_pattern(text, &reason);
        Pattern::parse(&text.value).map_err(report).ok()
    }

    pub(super) fn report_bad_pattern(&mut self, text: &Located<String>, reason: &str) {
        // The error of the library ends with the reason; the lines before show the pattern.
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        let message = format!("`{}` is not a regular expression: {reason}", text.value);
        let help = "write one such as \"/users/[0-9]+\"; in '' no backslash is doubled";
        self.diagnostics.error(&text.span, Problem::new(message, help));
    }

    fn methods(&mut self, given: &Located<Vec<Located<String>>>) -> Vec<Method> {
        if given.value.is_empty() || given.value.len() > MAX_CONDITIONS {
            let message = format!("`methods` has from 1 to {MAX_CONDITIONS} of them");
            let problem = Problem::new(message, "name some, or remove it for all");
            self.diagnostics.error(&given.span, problem);
        }
        let mut methods = Vec::new();
        for text in given.value.iter().take(MAX_CONDITIONS) {
            match parse_method(&text.value) {
                Ok(method) if methods.contains(&method) => {
                    let message = format!("the method {method} is given twice");
                    self.diagnostics.error(&text.span, Problem::new(message, "give it once"));
                }
                Ok(method) => methods.push(method),
                Err(problem) => {
                    self.diagnostics.error(&text.span, problem);
                }
            }
        }
        methods
    }

    fn header_tests(
        &mut self,
        given: &Located<Entries<Located<ValueTest>>>,
    ) -> Vec<(HeaderName, ValueMatcher)> {
        self.check_condition_count(given, "headers");
        let mut tests: Vec<(HeaderName, ValueMatcher)> = Vec::new();
        for (key, test) in given.value.0.iter().take(MAX_CONDITIONS) {
            let test = self.value_test(test);
            match HeaderName::from_bytes(key.value.as_bytes()) {
                Ok(name) if name == HOST => {
                    let problem =
                        Problem::new("`host` is no header here", "use the route's `host` key");
                    self.diagnostics.error(&key.span, problem);
                }
                Ok(name) if tests.iter().any(|(known, _)| *known == name) => {
                    let message = format!("the header `{name}` is given twice");
                    self.diagnostics.error(&key.span, Problem::new(message, "give it once"));
                }
                Ok(name) => tests.extend(test.map(|test| (name, test))),
                Err(_) => {
                    let help = "use letters, digits and `-`, such as \"x-env\"";
                    let message = format!("`{}` is not a header name", key.value);
                    self.diagnostics.error(&key.span, Problem::new(message, help));
                }
            }
        }
        tests
    }

    fn query_tests(
        &mut self,
        given: &Located<Entries<Located<ValueTest>>>,
    ) -> Vec<(Box<str>, ValueMatcher)> {
        self.check_condition_count(given, "query");
        let mut tests = Vec::new();
        for (key, test) in given.value.0.iter().take(MAX_CONDITIONS) {
            if key.value.is_empty() {
                let problem = Problem::new("a parameter without a name", "name it, or remove it");
                self.diagnostics.error(&key.span, problem);
            }
            let test = self.value_test(test);
            tests.extend(test.map(|test| (key.value.as_str().into(), test)));
        }
        tests
    }

    fn check_condition_count<V>(&mut self, given: &Located<Entries<V>>, key: &str) {
        let count = given.value.0.len();
        if count > MAX_CONDITIONS {
            let message = format!("`{key}` has at most {MAX_CONDITIONS} conditions, not {count}");
            self.diagnostics.error(&given.span, Problem::new(message, "remove some"));
        }
    }

    fn value_test(&mut self, given: &Located<ValueTest>) -> Option<ValueMatcher> {
        let table = match &given.value {
            ValueTest::Text(text) => return Some(ValueMatcher::Exact(text.as_bytes().into())),
            ValueTest::Table(table) => table,
        };
        for (key, flag) in [("present", &table.present), ("absent", &table.absent)] {
            if let Some(Located { value: false, span }) = flag {
                let problem =
                    Problem::new(format!("`{key} = false` has no effect"), VALUE_TEST_HELP);
                self.diagnostics.error(span, problem);
                return None;
            }
        }
        let present = table.present.as_ref().map(|_| ValueMatcher::Present);
        let absent = table.absent.as_ref().map(|_| ValueMatcher::Absent);
        let prefix =
            table.prefix.as_ref().map(|text| ValueMatcher::Prefix(text.value.as_bytes().into()));
        let mut tests: Vec<_> = [present, absent, prefix].into_iter().flatten().collect();
        if let Some(text) = &table.regex {
            tests.push(ValueMatcher::Regex(self.parse_pattern(text)?));
        }
        let keys = ["present", "absent", "prefix", "regex"];
        match (tests.pop(), tests.is_empty()) {
            (Some(only), true) => Some(only),
            (None, _) if keys.iter().any(|key| self.unread.has_key(&given.span, key)) => None,
            (first, _) => {
                let message = match first {
                    Some(_) => "a value has one test, not several",
                    None => "the table has no test of the value",
                };
                self.diagnostics.error(&given.span, Problem::new(message, VALUE_TEST_HELP));
                None
            }
        }
    }
}

fn parse_method(text: &str) -> Result<Method, Problem> {
    let Ok(method) = Method::from_bytes(text.as_bytes()) else {
        let help = "write one such as \"GET\" or \"PURGE\"";
        return Err(Problem::new(format!("`{text}` is not a method"), help));
    };
    let upper = text.to_ascii_uppercase();
    if method == Method::CONNECT {
        return Err(Problem::new("CONNECT is never routed", "remove it"));
    }
    if upper != text {
        return Err(Problem::new("methods are in capitals", format!("write it as \"{upper}\"")));
    }
    Ok(method)
}
