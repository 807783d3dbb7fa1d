//! Checks of the tests of a response body, and of the rule for degraded endpoints.

use std::ops::RangeInclusive;

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use crate::config::diagnostics::Problem;
use crate::config::file::{self, Located, LocatedTable, Probe};
use crate::config::units;
use crate::config::validate::validator::{SettingKey, Validator};
use crate::logic::probing::probe::{
    BodyMatcher, BytesRegex, DegradedRule, JsonMatcher, ProbeKind, ProbeRole,
};

/// 0 would remove a passing endpoint, 100 would have no effect.
const WEIGHT_PERCENT_RANGE: RangeInclusive<u32> = 1..=99;
const DEFAULT_DEGRADED_PERCENT: u32 = 50;

impl Validator<'_> {
    pub(super) fn body_tests(
        &mut self,
        given: &Probe,
        method: &Method,
        read_bytes: usize,
    ) -> Vec<BodyMatcher> {
        let spans = [
            ("expect_body", given.expect_body.as_ref().map(|given| &given.span)),
            ("expect_body_regex", given.expect_body_regex.as_ref().map(|given| &given.span)),
            ("expect_json", given.expect_json.as_ref().map(|given| &given.span)),
        ];
        for (key, span) in spans {
            if let Some(span) = span.filter(|_| *method == Method::HEAD) {
                let help = format!("probe with `method = \"GET\"`, or remove `{key}`");
                self.diagnostics
                    .error(span, Problem::new("the response to HEAD has no body", help));
            }
        }
        let text = given.expect_body.as_ref().map(|text| self.expected_text(text, read_bytes));
        let pattern = given.expect_body_regex.as_ref().and_then(|text| self.body_pattern(text));
        let json = given.expect_json.as_ref().and_then(|test| self.json_test(test));
        let text = text.map(BodyMatcher::Contains);
        let pattern = pattern.map(BodyMatcher::Regex);
        [text, pattern, json.map(BodyMatcher::Json)].into_iter().flatten().collect()
    }

    fn expected_text(&mut self, text: &Located<String>, read_bytes: usize) -> String {
        let problem = if text.value.is_empty() {
            Some(Problem::new("every body contains the empty text", "remove `expect_body`"))
        } else if text.value.len() > read_bytes {
            let read = units::format_size(read_bytes as u64);
            let message = format!("no more than {read} of a body are read");
            Some(Problem::new(message, "expect a shorter text, or set `read` to more"))
        } else {
            None
        };
        if let Some(problem) = problem {
            self.diagnostics.error(&text.span, problem);
        }
        text.value.clone()
    }

    fn body_pattern(&mut self, text: &Located<String>) -> Option<BytesRegex> {
        let report = |reason: String| {
            // The error of the library ends with the reason; the lines before show the pattern.
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let message = format!("`{}` is not a regular expression: {reason}", text.value);
            let help = "write one such as \"status: (ok|good)\"; in '' no backslash is doubled";
            self.diagnostics.error(&text.span, Problem::new(message, help));
        };
        BytesRegex::parse(&text.value).map_err(report).ok()
    }

    fn json_test(&mut self, test: &LocatedTable<file::JsonTest>) -> Option<JsonMatcher> {
        let LocatedTable { value: given, span: table } = test;
        for (key, is_given, help) in [
            ("pointer", given.pointer.is_some(), "add `pointer = \"/status\"`"),
            ("equals", given.equals.is_some(), "add `equals = \"ok\"`"),
        ] {
            if !is_given {
                let message = format!("a value in JSON needs `{key}`");
                self.report_missing(table, key, Problem::new(message, help));
            }
        }
        let (pointer, equals) = (given.pointer.as_ref()?, given.equals.as_ref()?);
        if !pointer.value.is_empty() && !pointer.value.starts_with('/') {
            let message = format!("the pointer `{}` does not begin with `/`", pointer.value);
            let help = format!("write it as \"/{}\"", pointer.value.replace('.', "/"));
            self.diagnostics.error(&pointer.span, Problem::new(message, help));
        }
        if equals.value.0 == Value::Null {
            let problem = Problem::new("JSON has no such number", "write a finite one");
            self.diagnostics.error(&equals.span, problem);
        }
        Some(JsonMatcher { pointer: pointer.value.clone(), expected: equals.value.0.clone() })
    }

    pub(super) fn degraded(
        &mut self,
        degraded: &LocatedTable<file::Degraded>,
        kind: &ProbeKind,
        role: ProbeRole,
    ) -> Option<DegradedRule> {
        let LocatedTable { value: given, span: table } = degraded;
        // `reject_unused_keys` reports the key with other kinds of probes.
        let ProbeKind::Http(http) = kind else { return None };
        if role == ProbeRole::Watch {
            let help = "remove it, or make the probe a gate";
            let problem =
                Problem::new("`degraded` has no meaning in a probe that only watches", help);
            self.diagnostics.error(table, problem);
        }
        if given.header.is_none() && given.json.is_none() && !self.unread.has_key(table, "header") {
            let problem = Problem::new(
                "`degraded` has no test",
                "add `header = \"x-health: degraded\"` or `json = { pointer = …, equals = … }`",
            );
            self.report_missing(table, "json", problem);
        }
        let json = given.json.as_ref().and_then(|test| self.json_test(test));
        if let Some(json) = given.json.as_ref().filter(|_| http.method == Method::HEAD) {
            let help = "probe with `method = \"GET\"`, or test a `header`";
            self.diagnostics
                .error(&json.span, Problem::new("the response to HEAD has no body", help));
        }
        let key = SettingKey::new(table, "header", &given.header);
        let header = self.setting(&key, None, |text| parse_header(text).map(Some)).value;
        let key = SettingKey::new(table, "weight_percent", &given.weight_percent);
        let weight_percent = self.integer(&key, &WEIGHT_PERCENT_RANGE, DEFAULT_DEGRADED_PERCENT);
        Some(DegradedRule { header, json, weight_percent })
    }
}

/// Parses `name: value`.
fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), Problem> {
    let split = text.split_once(':');
    let parsed = split.and_then(|(name, value)| {
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value.trim()).ok()?))
    });
    parsed.ok_or_else(|| {
        let message = format!("`{text}` is not a header with its value");
        Problem::new(message, "write it as \"x-health: degraded\"")
    })
}
