//! Checks of what a probe expects of a body, and of what it takes for degraded.

use std::ops::RangeInclusive;

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::super::check::{Check, Key};
use crate::config::file::{self, Located, Probe, Table};
use crate::config::findings::Flaw;
use crate::config::units;
use crate::logic::probe::{BodyTest, Degraded, JsonTest, Pattern, ProbeKind, Role};

/// Zero would take an endpoint out that passes, a hundred would mean nothing.
const WEIGHT_PERCENT: RangeInclusive<u32> = 1..=99;
const DEGRADED_PERCENT: u32 = 50;

impl Check<'_> {
    pub(super) fn body_tests(
        &mut self,
        given: &Probe,
        method: &Method,
        read_bytes: usize,
    ) -> Vec<BodyTest> {
        let spans = [
            ("expect_body", given.expect_body.as_ref().map(|given| &given.span)),
            ("expect_body_regex", given.expect_body_regex.as_ref().map(|given| &given.span)),
            ("expect_json", given.expect_json.as_ref().map(|given| &given.span)),
        ];
        for (key, span) in spans {
            if let Some(span) = span.filter(|_| *method == Method::HEAD) {
                let mend = format!("probe with `method = \"GET\"`, or leave `{key}` away");
                self.findings.error(span, Flaw::new("the answer to a HEAD has no body", mend));
            }
        }
        let text = given.expect_body.as_ref().map(|text| self.expect_text(text, read_bytes));
        let pattern = given.expect_body_regex.as_ref().and_then(|text| self.pattern(text));
        let json = given.expect_json.as_ref().and_then(|test| self.json_test(test));
        let text = text.map(BodyTest::Contains);
        let pattern = pattern.map(BodyTest::Matches);
        [text, pattern, json.map(BodyTest::Json)].into_iter().flatten().collect()
    }

    fn expect_text(&mut self, text: &Located<String>, read_bytes: usize) -> String {
        let flaw = if text.value.is_empty() {
            Some(Flaw::new("every body contains the empty text", "leave `expect_body` away"))
        } else if text.value.len() > read_bytes {
            let read = units::size_text(read_bytes as u64);
            let message = format!("no more than {read} of a body are read");
            Some(Flaw::new(message, "expect a shorter text, or set `read` to more"))
        } else {
            None
        };
        if let Some(flaw) = flaw {
            self.findings.error(&text.span, flaw);
        }
        text.value.clone()
    }

    fn pattern(&mut self, text: &Located<String>) -> Option<Pattern> {
        let report = |why: String| {
            // The library draws a picture first; the reason is its last line.
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let message = format!("`{}` is not a regular expression: {why}", text.value);
            let mend = "write one such as \"status: (ok|good)\"; in '' no backslash is doubled";
            self.findings.error(&text.span, Flaw::new(message, mend));
        };
        Pattern::parse(&text.value).map_err(report).ok()
    }

    fn json_test(&mut self, test: &Table<file::JsonTest>) -> Option<JsonTest> {
        let Table { value: given, span: table } = test;
        for (key, is_given, mend) in [
            ("pointer", given.pointer.is_some(), "add `pointer = \"/status\"`"),
            ("equals", given.equals.is_some(), "add `equals = \"ok\"`"),
        ] {
            if !is_given {
                let message = format!("a value in JSON needs `{key}`");
                self.missing(table, key, Flaw::new(message, mend));
            }
        }
        let (pointer, equals) = (given.pointer.as_ref()?, given.equals.as_ref()?);
        if !pointer.value.is_empty() && !pointer.value.starts_with('/') {
            let message = format!("the pointer `{}` does not begin with `/`", pointer.value);
            let mend = format!("write it as \"/{}\"", pointer.value.replace('.', "/"));
            self.findings.error(&pointer.span, Flaw::new(message, mend));
        }
        if equals.value.0 == Value::Null {
            let flaw = Flaw::new("JSON has no such number", "write a finite one");
            self.findings.error(&equals.span, flaw);
        }
        Some(JsonTest { pointer: pointer.value.clone(), equals: equals.value.0.clone() })
    }

    pub(super) fn degraded(
        &mut self,
        degraded: &Table<file::Degraded>,
        kind: &ProbeKind,
        role: Role,
    ) -> Option<Degraded> {
        let Table { value: given, span: table } = degraded;
        // That it has no meaning otherwise is said where all such keys are.
        let ProbeKind::Http(http) = kind else { return None };
        if role == Role::Watch {
            let mend = "leave it away, or make the probe a gate";
            let flaw = Flaw::new("`degraded` has no meaning in a probe that only watches", mend);
            self.findings.error(table, flaw);
        }
        if given.header.is_none() && given.json.is_none() && !self.gaps.has(table, "header") {
            let flaw = Flaw::new(
                "`degraded` does not say by what an endpoint shows it",
                "add `header = \"x-health: degraded\"` or `json = { pointer = …, equals = … }`",
            );
            self.missing(table, "json", flaw);
        }
        let json = given.json.as_ref().and_then(|test| self.json_test(test));
        if let Some(json) = given.json.as_ref().filter(|_| http.method == Method::HEAD) {
            let mend = "probe with `method = \"GET\"`, or look at a `header`";
            self.findings.error(&json.span, Flaw::new("the answer to a HEAD has no body", mend));
        }
        let key = Key::new(table, "header", &given.header);
        let header = self.setting(&key, None, |text| header(text).map(Some)).value;
        let key = Key::new(table, "weight_percent", &given.weight_percent);
        let weight_percent = self.whole(&key, &WEIGHT_PERCENT, DEGRADED_PERCENT);
        Some(Degraded { header, json, weight_percent })
    }
}

/// `name: value`.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), Flaw> {
    let split = text.split_once(':');
    let parsed = split.and_then(|(name, value)| {
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value.trim()).ok()?))
    });
    parsed.ok_or_else(|| {
        let message = format!("`{text}` is not a header with its value");
        Flaw::new(message, "write it as \"x-health: degraded\"")
    })
}
