//! Judges an HTTP answer by what the probe expects.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::logic::outcome::Reason;
use crate::logic::probe::{BodyTest, Degraded, HttpProbe, JsonTest};

/// Takes an answer in, head first, and says what it is.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    probe: &'a HttpProbe,
    degraded: Option<&'a Degraded>,
    is_degraded: bool,
    at_most_bytes: usize,
    body: Vec<u8>,
    /// Tests for a text that has not been seen yet.
    wanted: Vec<&'a str>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        probe: &'a HttpProbe,
        degraded: Option<&'a Degraded>,
        at_most_bytes: usize,
    ) -> Self {
        let wanted = probe.expect_body.iter().filter_map(|test| match test {
            BodyTest::Contains(text) => Some(text.as_str()),
            BodyTest::Matches(_) | BodyTest::Json(_) => None,
        });
        let wanted = wanted.collect();
        Self { probe, degraded, is_degraded: false, at_most_bytes, body: Vec::new(), wanted }
    }

    /// Takes the head.
    pub(super) fn head(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<(), Reason> {
        let code = status.as_u16();
        if !self.probe.expect_status.iter().any(|range| range.contains(&code)) {
            return Err(Reason::Status(code));
        }
        if let Some((name, value)) = self.degraded.and_then(|degraded| degraded.header.as_ref()) {
            self.is_degraded = headers.get_all(name).iter().any(|given| given == value);
        }
        Ok(())
    }

    /// Whether the body has any bearing on what the answer is.
    pub(super) fn wants_body(&self) -> bool {
        !self.probe.expect_body.is_empty() || self.degraded_json().is_some()
    }

    fn degraded_json(&self) -> Option<&'a JsonTest> {
        self.degraded.and_then(|degraded| degraded.json.as_ref())
    }

    /// Takes a piece of the body; whether more of it could change anything.
    pub(super) fn take(&mut self, piece: &[u8]) -> bool {
        let (seen, left) = (self.body.len(), self.at_most_bytes - self.body.len());
        self.body.extend_from_slice(&piece[..piece.len().min(left)]);
        let body = &self.body;
        // A text may begin in the piece before, and no earlier.
        self.wanted.retain(|text| {
            let from = seen.saturating_sub(text.len().saturating_sub(1));
            !contains(&body[from..], text.as_bytes())
        });
        let texts_only = self.degraded_json().is_none()
            && self.probe.expect_body.iter().all(|test| matches!(test, BodyTest::Contains(_)));
        let enough = texts_only && self.wanted.is_empty();
        !enough && self.body.len() < self.at_most_bytes
    }

    /// There is no more: whether the answer, which passes, is a degraded one.
    pub(super) fn end(&self) -> Result<bool, Reason> {
        let needs_json = |test: &BodyTest| matches!(test, BodyTest::Json(_));
        let json: Option<Value> =
            if self.degraded_json().is_some() || self.probe.expect_body.iter().any(needs_json) {
                serde_json::from_slice(&self.body).ok()
            } else {
                None
            };
        let holds = |test: &JsonTest| json.as_ref().is_some_and(|json| test.holds(json));
        let passes = self.wanted.is_empty()
            && self.probe.expect_body.iter().all(|test| match test {
                BodyTest::Contains(_) => true,
                BodyTest::Matches(pattern) => pattern.matches(&self.body),
                BodyTest::Json(test) => holds(test),
            });
        if !passes {
            return Err(Reason::Body);
        }
        Ok(self.is_degraded || self.degraded_json().is_some_and(holds))
    }
}

/// Whether `text` stands somewhere in `bytes`.
pub(super) fn contains(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::probe::Pattern;
    use http::{HeaderName, HeaderValue};
    use serde_json::json;

    fn json_test(pointer: &str, equals: Value) -> JsonTest {
        JsonTest { pointer: pointer.to_owned(), equals }
    }

    fn probe(tests: Vec<BodyTest>) -> HttpProbe {
        HttpProbe { expect_body: tests, ..HttpProbe::get("/") }
    }

    /// Judges `body`, given in pieces of `piece` bytes.
    fn judged(tests: Vec<BodyTest>, body: &str, piece: usize) -> Result<bool, Reason> {
        let probe = probe(tests);
        let mut judge = Judge::new(&probe, None, 64);
        judge.head(StatusCode::OK, &HeaderMap::new())?;
        for piece in body.as_bytes().chunks(piece) {
            if !judge.take(piece) {
                break;
            }
        }
        judge.end()
    }

    #[test]
    fn every_test_must_hold_however_the_body_comes() {
        let text = |text: &str| BodyTest::Contains(text.to_owned());
        let pattern = |text| BodyTest::Matches(Pattern::parse(text).expect("a pattern"));
        for piece in 1..12 {
            assert_eq!(judged(vec![text("is ok")], "all is ok here", piece), Ok(false));
            assert_eq!(judged(vec![text("is ok"), text("no")], "all is ok", piece).ok(), None);
            assert_eq!(judged(vec![pattern("^all .* ok$")], "all is ok", piece), Ok(false));
            assert_eq!(judged(vec![pattern("^ok")], "all is ok", piece), Err(Reason::Body));
            let tests = vec![BodyTest::Json(json_test("/a/0", json!(1))), text("a")];
            assert_eq!(judged(tests.clone(), r#"{"a": [1, 2]}"#, piece), Ok(false));
            assert_eq!(judged(tests.clone(), r#"{"a": [2]}"#, piece), Err(Reason::Body));
            assert_eq!(judged(tests, "a: 1", piece), Err(Reason::Body), "not JSON");
        }
    }

    #[test]
    fn no_more_is_read_than_needed_and_allowed() {
        let texts = probe(vec![BodyTest::Contains("ok".to_owned())]);
        let mut judge = Judge::new(&texts, None, 8);
        assert!(judge.take(b"..o"));
        assert!(!judge.take(b"k"), "found");
        let mut judge = Judge::new(&texts, None, 8);
        assert!(judge.take(b"......."));
        assert!(!judge.take(b"..ok"), "too late");
        assert_eq!((judge.body.len(), judge.end()), (8, Err(Reason::Body)));
        assert!(!Judge::new(&probe(Vec::new()), None, 8).wants_body());
    }

    #[test]
    fn an_answer_that_passes_may_be_degraded() {
        let degraded = Degraded {
            header: Some((HeaderName::from_static("x-h"), HeaderValue::from_static("degraded"))),
            json: Some(json_test("/s", json!("slow"))),
            weight_percent: 50,
        };
        let judged = |value: &'static str, body: &[u8]| {
            let probe = probe(Vec::new());
            let mut judge = Judge::new(&probe, Some(&degraded), 64);
            let mut headers = HeaderMap::new();
            headers.append("x-h", HeaderValue::from_static("other"));
            headers.append("x-h", HeaderValue::from_static(value));
            judge.head(StatusCode::OK, &headers).expect("expected");
            assert!(judge.take(body));
            judge.end()
        };
        assert_eq!(judged("degraded", b"text"), Ok(true));
        assert_eq!(judged("fine", br#"{"s": "slow"}"#), Ok(true));
        assert_eq!(judged("fine", br#"{"s": "fast"}"#), Ok(false));
        assert_eq!(judged("fine", b"text"), Ok(false));
    }
}
