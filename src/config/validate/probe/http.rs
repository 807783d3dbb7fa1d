//! Checks of the request of an HTTP probe.

use std::collections::HashMap;
use std::ops::Range;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};

use super::MAX_TEXT_BYTES;
use crate::config::address;
use crate::config::diagnostics::Problem;
use crate::config::file::{Entries, Located, Probe};
use crate::config::units;
use crate::config::validate::validator::{SettingKey, Validator};
use crate::logic::probing::probe::{HttpProbe, ProbeHttpVersion};

/// The most header fields of a probe.
const MAX_HEADERS: usize = 64;

impl Validator<'_> {
    pub(super) fn http_probe(
        &mut self,
        path: &Located<String>,
        version: ProbeHttpVersion,
        given: &Probe,
        table: &Range<usize>,
        read_bytes: usize,
    ) -> HttpProbe {
        if let Err(problem) = check_probe_path(&path.value) {
            self.diagnostics.error(&path.span, problem);
        }
        let default = if given.body.is_some() { Method::POST } else { Method::GET };
        let key = SettingKey::new(table, "method", &given.method);
        let method = self.setting(&key, default, |text| parse_method(text)).value;
        let body = given.body.as_ref().map(|body| self.request_body(body, &method));
        let headers = given.headers.as_ref().map(|headers| self.probe_headers(headers));
        let key = SettingKey::new(table, "expect_status", &given.expect_status);
        let expect_status =
            self.setting(&key, vec![200..=299], |text| units::parse_statuses(&text.0)).value;
        let expect_body = self.body_tests(given, &method, read_bytes);
        HttpProbe {
            version,
            method,
            path: path.value.clone(),
            host: self.authority(given, table),
            headers: headers.unwrap_or_default(),
            body,
            expect_status,
            expect_body,
        }
    }

    /// The value of the probe's `host`.
    pub(super) fn authority(&mut self, given: &Probe, table: &Range<usize>) -> Option<String> {
        let key = SettingKey::new(table, "host", &given.host);
        self.setting(&key, None, |text| address::parse_authority(text).map(Some)).value
    }

    fn request_body(&mut self, body: &Located<String>, method: &Method) -> Vec<u8> {
        if *method == Method::GET || *method == Method::HEAD {
            let help = "remove `method`, or write `method = \"POST\"`";
            let problem = Problem::new(format!("a {method} has no body"), help);
            self.diagnostics.error(&body.span, problem);
        }
        self.check_text_length(body, "body", MAX_TEXT_BYTES);
        body.value.clone().into_bytes()
    }

    fn probe_headers(&mut self, given: &Located<Entries<Located<String>>>) -> HeaderMap {
        let Entries(entries) = &given.value;
        if entries.len() > MAX_HEADERS {
            let problem = Problem::new(
                format!("a probe has at most {MAX_HEADERS} headers, not {}", entries.len()),
                "remove some",
            );
            self.diagnostics.error(&given.span, problem);
            return HeaderMap::new();
        }
        let mut headers = HeaderMap::new();
        let mut seen = HashMap::new();
        for (key, text) in entries {
            let name = parse_header_name(&key.value)
                .map_err(|problem| self.diagnostics.error(&key.span, problem))
                .ok();
            let value = HeaderValue::from_str(&text.value)
                .map_err(|_| {
                    let help = "use visible characters only, on one line";
                    let message = format!("the value of `{}` cannot stand in a header", key.value);
                    self.diagnostics.error(&text.span, Problem::new(message, help))
                })
                .ok();
            let Some(name) = name else { continue };
            let problem =
                Problem::new(format!("the header `{name}` is given twice"), "give it once");
            if self.is_unique(&mut seen, name.clone(), &key.span, problem)
                && let Some(value) = value
            {
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// The path and query of a probe are sent unchanged in the request line.
fn check_probe_path(text: &str) -> Result<(), Problem> {
    if text.contains("://") {
        let help = "write the path alone, such as \"/healthz\"; `host` and `port` are keys";
        return Err(Problem::new(format!("`{text}` is a URL, not a path"), help));
    }
    if !text.starts_with('/') {
        let message = format!("the path `{text}` does not begin with `/`");
        return Err(Problem::new(message, format!("write it as \"/{text}\"")));
    }
    if text.contains('#') {
        return Err(Problem::new("a `#` is never sent", "remove it and what follows"));
    }
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic());
    if !is_plain || text.parse::<PathAndQuery>().is_err() {
        let help = "percent-encode what is not a plain character, such as \"%20\" for a space";
        return Err(Problem::new(format!("`{text}` cannot stand in a request line"), help));
    }
    Ok(())
}

fn parse_method(text: &str) -> Result<Method, Problem> {
    let upper = text.to_ascii_uppercase();
    let known = [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::PUT];
    match known.into_iter().find(|method| method.as_str() == upper) {
        Some(method) if upper == text => Ok(method),
        Some(_) => Err(Problem::new("methods are in capitals", format!("write it as \"{upper}\""))),
        None => Err(Problem::new(
            format!("`{text}` is not a method to probe with"),
            "write \"GET\", \"HEAD\", \"OPTIONS\", \"POST\" or \"PUT\"",
        )),
    }
}

fn parse_header_name(text: &str) -> Result<HeaderName, Problem> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        let help = "use letters, digits and `-`, such as \"x-probe\"";
        return Err(Problem::new(format!("`{text}` is not a header name"), help));
    };
    let help = match &name {
        n if *n == HOST => "use the probe's `host` key",
        n if *n == CONTENT_LENGTH || *n == TRANSFER_ENCODING => {
            "remove it: the probe sends its `body` key"
        }
        n if [CONNECTION, UPGRADE, TE, TRAILER].contains(n) => {
            "remove it: the prober manages its connections"
        }
        _ => return Ok(name),
    };
    Err(Problem::new(format!("a probe sets `{name}` itself"), help))
}
