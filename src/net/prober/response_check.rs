//! Checks an HTTP response against the probe's expectations.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::logic::model::outcome::FailureReason;
use crate::logic::probing::probe::{BodyMatcher, DegradedRule, HttpProbe, JsonMatcher};

/// The check of one response: the head first, then the body in chunks.
#[derive(Debug)]
pub(super) struct ResponseCheck<'a> {
    probe: &'a HttpProbe,
    degraded: Option<&'a DegradedRule>,
    is_degraded: bool,
    max_body_bytes: usize,
    body: Vec<u8>,
    /// Expected texts that the body has not contained so far.
    missing_texts: Vec<&'a str>,
}

impl<'a> ResponseCheck<'a> {
    pub(super) fn new(
        probe: &'a HttpProbe,
        degraded: Option<&'a DegradedRule>,
        max_body_bytes: usize,
    ) -> Self {
        let missing_texts = probe.expect_body.iter().filter_map(|test| match test {
            BodyMatcher::Contains(text) => Some(text.as_str()),
            BodyMatcher::Regex(_) | BodyMatcher::Json(_) => None,
        });
        let missing_texts = missing_texts.collect();
        Self {
            probe,
            degraded,
            is_degraded: false,
            max_body_bytes,
            body: Vec::new(),
            missing_texts,
        }
    }

    pub(super) fn check_head(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<(), FailureReason> {
        let code = status.as_u16();
        if !self.probe.expect_status.iter().any(|range| range.contains(&code)) {
            return Err(FailureReason::Status(code));
        }
        if let Some((name, value)) = self.degraded.and_then(|degraded| degraded.header.as_ref()) {
            self.is_degraded = headers.get_all(name).iter().any(|field| field == value);
        }
        Ok(())
    }

    /// Whether the result depends on the body.
    pub(super) fn should_read_body(&self) -> bool {
        !self.probe.expect_body.is_empty() || self.degraded_json().is_some()
    }

    fn degraded_json(&self) -> Option<&'a JsonMatcher> {
        self.degraded.and_then(|degraded| degraded.json.as_ref())
    }

    /// Adds a chunk of the body; returns whether further chunks could change the result.
    pub(super) fn push_body(&mut self, chunk: &[u8]) -> bool {
        let (previous_bytes, remaining_bytes) =
            (self.body.len(), self.max_body_bytes - self.body.len());
        self.body.extend_from_slice(&chunk[..chunk.len().min(remaining_bytes)]);
        let body = &self.body;
        // A text may begin in the previous chunk, and no earlier.
        self.missing_texts.retain(|text| {
            let from = previous_bytes.saturating_sub(text.len().saturating_sub(1));
            !has_subslice(&body[from..], text.as_bytes())
        });
        let is_text_only = self.degraded_json().is_none()
            && self.probe.expect_body.iter().all(|test| matches!(test, BodyMatcher::Contains(_)));
        let is_decided = is_text_only && self.missing_texts.is_empty();
        !is_decided && self.body.len() < self.max_body_bytes
    }

    /// Ends the check: whether the response, which passes, is a degraded one.
    pub(super) fn finish(&self) -> Result<bool, FailureReason> {
        let needs_json = |test: &BodyMatcher| matches!(test, BodyMatcher::Json(_));
        let json: Option<Value> =
            if self.degraded_json().is_some() || self.probe.expect_body.iter().any(needs_json) {
                serde_json::from_slice(&self.body).ok()
            } else {
                None
            };
        let is_met = |test: &JsonMatcher| json.as_ref().is_some_and(|json| test.is_match(json));
        let is_pass = self.missing_texts.is_empty()
            && self.probe.expect_body.iter().all(|test| match test {
                BodyMatcher::Contains(_) => true,
                BodyMatcher::Regex(pattern) => pattern.is_match(&self.body),
                BodyMatcher::Json(test) => is_met(test),
            });
        if !is_pass {
            return Err(FailureReason::Body);
        }
        Ok(self.is_degraded || self.degraded_json().is_some_and(is_met))
    }
}

/// Whether `bytes` contain `text`.
pub(super) fn has_subslice(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::probing::probe::BytesRegex;
    use http::{HeaderName, HeaderValue};
    use serde_json::json;

    fn json_test(pointer: &str, equals: Value) -> JsonMatcher {
        JsonMatcher { pointer: pointer.to_owned(), expected: equals }
    }

    fn probe(tests: Vec<BodyMatcher>) -> HttpProbe {
        HttpProbe { expect_body: tests, ..HttpProbe::get("/") }
    }

    /// Checks `body`, fed in chunks of `chunk_bytes`.
    fn check_body(
        tests: Vec<BodyMatcher>,
        body: &str,
        chunk_bytes: usize,
    ) -> Result<bool, FailureReason> {
        let probe = probe(tests);
        let mut check = ResponseCheck::new(&probe, None, 64);
        check.check_head(StatusCode::OK, &HeaderMap::new())?;
        for chunk in body.as_bytes().chunks(chunk_bytes) {
            if !check.push_body(chunk) {
                break;
            }
        }
        check.finish()
    }

    #[test]
    fn every_body_test_must_pass_at_every_split() {
        let text = |text: &str| BodyMatcher::Contains(text.to_owned());
        let pattern = |text| BodyMatcher::Regex(BytesRegex::parse(text).expect("a pattern"));
        for chunk_bytes in 1..12 {
            assert_eq!(check_body(vec![text("is ok")], "all is ok here", chunk_bytes), Ok(false));
            assert_eq!(
                check_body(vec![text("is ok"), text("no")], "all is ok", chunk_bytes).ok(),
                None
            );
            assert_eq!(
                check_body(vec![pattern("^all .* ok$")], "all is ok", chunk_bytes),
                Ok(false)
            );
            assert_eq!(
                check_body(vec![pattern("^ok")], "all is ok", chunk_bytes),
                Err(FailureReason::Body)
            );
            let tests = vec![BodyMatcher::Json(json_test("/a/0", json!(1))), text("a")];
            assert_eq!(check_body(tests.clone(), r#"{"a": [1, 2]}"#, chunk_bytes), Ok(false));
            assert_eq!(
                check_body(tests.clone(), r#"{"a": [2]}"#, chunk_bytes),
                Err(FailureReason::Body)
            );
            assert_eq!(
                check_body(tests, "a: 1", chunk_bytes),
                Err(FailureReason::Body),
                "not JSON"
            );
        }
    }

    #[test]
    fn body_is_read_only_as_far_as_needed() {
        let texts = probe(vec![BodyMatcher::Contains("ok".to_owned())]);
        let mut check = ResponseCheck::new(&texts, None, 8);
        assert!(check.push_body(b"..o"));
        assert!(!check.push_body(b"k"), "found");
        let mut check = ResponseCheck::new(&texts, None, 8);
        assert!(check.push_body(b"......."));
        assert!(!check.push_body(b"..ok"), "too late");
        assert_eq!((check.body.len(), check.finish()), (8, Err(FailureReason::Body)));
        assert!(!ResponseCheck::new(&probe(Vec::new()), None, 8).should_read_body());
    }

    #[test]
    fn passing_response_can_be_degraded() {
        let degraded = DegradedRule {
            header: Some((HeaderName::from_static("x-h"), HeaderValue::from_static("degraded"))),
            json: Some(json_test("/s", json!("slow"))),
            weight_percent: 50,
        };
        let check_degraded = |value: &'static str, body: &[u8]| {
            let probe = probe(Vec::new());
            let mut check = ResponseCheck::new(&probe, Some(&degraded), 64);
            let mut headers = HeaderMap::new();
            headers.append("x-h", HeaderValue::from_static("other"));
            headers.append("x-h", HeaderValue::from_static(value));
            check.check_head(StatusCode::OK, &headers).expect("expected");
            assert!(check.push_body(body));
            check.finish()
        };
        assert_eq!(check_degraded("degraded", b"text"), Ok(true));
        assert_eq!(check_degraded("fine", br#"{"s": "slow"}"#), Ok(true));
        assert_eq!(check_degraded("fine", br#"{"s": "fast"}"#), Ok(false));
        assert_eq!(check_degraded("fine", b"text"), Ok(false));
    }
}
