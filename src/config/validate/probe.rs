//! Checks of a pool's probe.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method};

use super::check::{Check, Key};
use crate::config::file::{Entries, Located, Probe, Table};
use crate::config::findings::Flaw;
use crate::config::units;
use crate::logic::probe::{BodyTest, HttpProbe, HttpVersion, ProbeKind, ProbeSpec};

const PORT: RangeInclusive<u16> = 1..=u16::MAX;

/// As much of a body as a probe looks at, so no more can be expected of it.
const EXPECT_BODY_BYTES: usize = 64 * 1024;

/// Headers in a probe.
const MAX_HEADERS: usize = 64;

const EITHER: &str = "write either `http = \"/healthz\"` or `tcp = true`";

impl Check<'_> {
    pub(super) fn probe(&mut self, probe: Option<Table<Probe>>) -> ProbeSpec {
        let Some(Table { value: given, span: table }) = probe else {
            return ProbeSpec::tcp();
        };
        let key = Key::new(&table, "port", &given.port);
        let port = given.port.is_some().then(|| self.whole(&key, &PORT, 1));
        if let Some(tcp) = given.tcp.as_ref().filter(|tcp| !tcp.value) {
            self.findings.error(&tcp.span, Flaw::new("`tcp = false` asks for nothing", EITHER));
        }
        let kind = match (&given.http, &given.tcp) {
            (Some(http), Some(tcp)) => {
                let flaw = Flaw::new("a probe is either `http` or `tcp`, not both", EITHER);
                self.findings.error(&tcp.span, flaw).also(&http.span, "the other one");
                ProbeKind::Tcp { send: None, expect: None }
            }
            (Some(path), None) => ProbeKind::Http(Box::new(self.http_probe(path, &given, &table))),
            (None, Some(_)) => {
                self.only_with_http(&given);
                ProbeKind::Tcp { send: None, expect: None }
            }
            (None, None) => {
                if !self.gaps.has(&table, "http") {
                    let flaw = Flaw::new("the probe does not say what to ask", EITHER);
                    self.missing(&table, "tcp", flaw);
                }
                ProbeKind::Tcp { send: None, expect: None }
            }
        };
        ProbeSpec { port, ..ProbeSpec::new(kind) }
    }

    fn only_with_http(&mut self, given: &Probe) {
        let spans = [
            ("method", given.method.as_ref().map(|key| &key.span)),
            ("host", given.host.as_ref().map(|key| &key.span)),
            ("headers", given.headers.as_ref().map(|key| &key.span)),
            ("expect_status", given.expect_status.as_ref().map(|key| &key.span)),
            ("expect_body", given.expect_body.as_ref().map(|key| &key.span)),
        ];
        for (name, span) in spans {
            let Some(span) = span else { continue };
            let message = format!("`{name}` has no meaning with `tcp`");
            let mend = format!("leave `{name}` away, or probe with `http = \"/healthz\"`");
            self.findings.error(span, Flaw::new(message, mend));
        }
    }

    fn http_probe(
        &mut self,
        path: &Located<String>,
        given: &Probe,
        table: &Range<usize>,
    ) -> HttpProbe {
        if let Err(flaw) = probe_path(&path.value) {
            self.findings.error(&path.span, flaw);
        }
        let key = Key::new(table, "method", &given.method);
        let method = self.setting(&key, Method::GET, |text| method(text)).value;
        let key = Key::new(table, "host", &given.host);
        let host = self.setting(&key, None, |text| authority(text).map(Some)).value;
        let headers = given.headers.as_ref().map(|headers| self.probe_headers(headers));
        let key = Key::new(table, "expect_status", &given.expect_status);
        let expect_status =
            self.setting(&key, vec![200..=299], |text| units::statuses(&text.0)).value;
        let expect_body = given.expect_body.as_ref().map(|text| self.expect_body(text, &method));
        HttpProbe {
            version: HttpVersion::H1,
            method,
            path: path.value.clone(),
            host,
            headers: headers.unwrap_or_default(),
            body: None,
            expect_status,
            expect_body: expect_body.map(BodyTest::Contains).into_iter().collect(),
        }
    }

    fn expect_body(&mut self, text: &Located<String>, method: &Method) -> String {
        let flaw = if text.value.is_empty() {
            Some(Flaw::new("every body contains the empty text", "leave `expect_body` away"))
        } else if text.value.len() > EXPECT_BODY_BYTES {
            Some(Flaw::new("no more than 64 KiB of a body are looked at", "expect a shorter text"))
        } else if method == Method::HEAD {
            let mend = "probe with `method = \"GET\"`, or leave `expect_body` away";
            Some(Flaw::new("the answer to a HEAD has no body", mend))
        } else {
            None
        };
        if let Some(flaw) = flaw {
            self.findings.error(&text.span, flaw);
        }
        text.value.clone()
    }

    fn probe_headers(&mut self, given: &Located<Entries<Located<String>>>) -> HeaderMap {
        let Entries(entries) = &given.value;
        if entries.len() > MAX_HEADERS {
            let flaw = Flaw::new(
                format!("a probe has at most {MAX_HEADERS} headers, not {}", entries.len()),
                "leave some away",
            );
            self.findings.error(&given.span, flaw);
            return HeaderMap::new();
        }
        let mut headers = HeaderMap::new();
        let mut seen = HashMap::new();
        for (key, text) in entries {
            let name =
                header_name(&key.value).map_err(|flaw| self.findings.error(&key.span, flaw)).ok();
            let value = HeaderValue::from_str(&text.value)
                .map_err(|_| {
                    let mend = "use visible characters only, on one line";
                    let message = format!("the value of `{}` cannot stand in a header", key.value);
                    self.findings.error(&text.span, Flaw::new(message, mend))
                })
                .ok();
            let Some(name) = name else { continue };
            let flaw = Flaw::new(format!("the header `{name}` is given twice"), "give it once");
            if self.unique(&mut seen, name.clone(), &key.span, flaw)
                && let Some(value) = value
            {
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// The path and query of a probe go into the request line as they are.
fn probe_path(text: &str) -> Result<(), Flaw> {
    if text.contains("://") {
        let mend = "write the path alone, such as \"/healthz\"; `host` and `port` are keys";
        return Err(Flaw::new(format!("`{text}` is a URL, not a path"), mend));
    }
    if !text.starts_with('/') {
        let message = format!("the path `{text}` does not begin with `/`");
        return Err(Flaw::new(message, format!("write it as \"/{text}\"")));
    }
    if text.contains('#') {
        return Err(Flaw::new("a `#` is never sent", "leave it and what follows away"));
    }
    let plain = text.bytes().all(|b| b.is_ascii_graphic());
    if !plain || text.parse::<PathAndQuery>().is_err() {
        let mend = "percent-encode what is not a plain character, such as \"%20\" for a space";
        return Err(Flaw::new(format!("`{text}` cannot stand in a request line"), mend));
    }
    Ok(())
}

fn method(text: &str) -> Result<Method, Flaw> {
    let upper = text.to_ascii_uppercase();
    let known = [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::PUT];
    match known.into_iter().find(|method| method.as_str() == upper) {
        Some(method) if upper == text => Ok(method),
        Some(_) => Err(Flaw::new("methods are in capitals", format!("write it as \"{upper}\""))),
        None => Err(Flaw::new(
            format!("`{text}` is not a method to probe with"),
            "write \"GET\", \"HEAD\", \"OPTIONS\", \"POST\" or \"PUT\"",
        )),
    }
}

fn authority(text: &str) -> Result<String, Flaw> {
    match text.parse::<Authority>() {
        Ok(authority) if !authority.as_str().contains('@') => Ok(text.to_owned()),
        _ => Err(Flaw::new(
            format!("`{text}` cannot be a Host header"),
            "write a name such as \"web.internal\", with `:port` if need be",
        )),
    }
}

fn header_name(text: &str) -> Result<HeaderName, Flaw> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        let mend = "use letters, digits and `-`, such as \"x-probe\"";
        return Err(Flaw::new(format!("`{text}` is not a header name"), mend));
    };
    let mend = match &name {
        n if *n == HOST => "use the probe's `host` key",
        n if *n == CONTENT_LENGTH || *n == TRANSFER_ENCODING => {
            "leave it away: a probe has no body"
        }
        n if *n == CONNECTION => "leave it away: the prober looks after its connections",
        _ => return Ok(name),
    };
    Err(Flaw::new(format!("a probe sets `{name}` itself"), mend))
}
