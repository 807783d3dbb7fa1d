//! Checks of what is told of requests, and who is believed when he tells.

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};

use super::check::{Check, Key};
use crate::config::file::{AccessLog, Located, Table};
use crate::config::findings::Flaw;
use crate::config::model::{self, Forwarded, LogLines, LogTarget};
use crate::config::{address, suggest};
use crate::logic::network::Network;

/// Fields that a line may have besides its own.
const MAX_HEADERS: usize = 32;

/// Networks of trusted proxies, at most: each request may be compared with all of them.
const MAX_NETWORKS: usize = 256;

/// What is logged is read by many, so what opens doors is not.
const SECRET: [HeaderName; 4] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, SET_COOKIE];

impl Check<'_> {
    pub(super) fn access_log(&mut self, given: Option<Table<AccessLog>>) -> model::AccessLog {
        let default = model::AccessLog::default();
        let Some(Table { value: given, span: table }) = given else { return default };
        let base = self.base;
        let key = Key::new(&table, "to", &given.to);
        let to = self.setting(&key, default.to, |text| match text.as_str() {
            "off" => Ok(LogTarget::Off),
            "stdout" => Ok(LogTarget::Stdout),
            path if path.contains('/') && !path.ends_with('/') && !path.contains('\0') => {
                Ok(LogTarget::File(base.join(path)))
            }
            other => Err(Flaw::new(
                format!("`{other}` is no place for the access log"),
                "write \"stdout\", \"off\", or a path with a `/` in it, such as \
                 \"/var/log/gapless/access.log\"",
            )),
        });
        if given.to.is_none() && !self.gaps.has(&table, "to") {
            let mend = "add `to = \"stdout\"` or the path of a file";
            self.findings.warning(&table, Flaw::new("nothing is logged without `to`", mend));
        }
        let key = Key::new(&table, "format", &given.format);
        let lines = self.setting(&key, default.lines, |text| log_lines(text)).value;
        let redact_query = self.switch(&given.redact_query, default.redact_query);
        let headers = self.log_headers(&given.headers.unwrap_or_default(), lines);
        model::AccessLog { to: to.value, lines, redact_query, headers }
    }

    pub(super) fn trusted_proxies(&mut self, given: &[Located<String>]) -> Vec<Network> {
        if let Some(beyond) = given.get(MAX_NETWORKS) {
            let message = format!("there are more than {MAX_NETWORKS} networks");
            self.findings.error(&beyond.span, Flaw::new(message, "give larger ones"));
        }
        let mut networks = Vec::new();
        for one in given.iter().take(MAX_NETWORKS) {
            match address::network(&one.value) {
                Ok(network) if network.prefix == 0 => {
                    let flaw = Flaw::new(
                        format!("`{network}` believes every client what it says of its address"),
                        "name the networks that your own proxies are in",
                    );
                    self.findings.warning(&one.span, flaw);
                    networks.push(network);
                }
                Ok(network) => networks.push(network),
                Err(flaw) => {
                    self.findings.error(&one.span, flaw);
                }
            }
        }
        networks
    }

    fn log_headers(&mut self, given: &[Located<String>], lines: LogLines) -> Vec<HeaderName> {
        if let Some(first) = given.first().filter(|_| lines == LogLines::Combined) {
            let mend = "write `format = \"json\"`, or leave `headers` away";
            let flaw = Flaw::new("lines in the combined format have no other fields", mend);
            self.findings.error(&first.span, flaw);
        }
        if let Some(beyond) = given.get(MAX_HEADERS) {
            let message = format!("there are more than {MAX_HEADERS} fields");
            self.findings.error(&beyond.span, Flaw::new(message, "leave some away"));
        }
        let mut names: Vec<HeaderName> = Vec::new();
        for one in given.iter().take(MAX_HEADERS) {
            match HeaderName::from_bytes(one.value.as_bytes()) {
                Ok(name) if SECRET.contains(&name) => {
                    let message = format!("`{name}` carries credentials, which are never logged");
                    self.findings.error(&one.span, Flaw::new(message, "leave it away"));
                }
                Ok(name) if names.contains(&name) => {
                    let message = format!("`{name}` is given twice");
                    self.findings.error(&one.span, Flaw::new(message, "give it once"));
                }
                Ok(name) => names.push(name),
                Err(_) => {
                    let message = format!("`{}` cannot name a header", one.value);
                    let mend = "write a name such as \"referer\"";
                    self.findings.error(&one.span, Flaw::new(message, mend));
                }
            }
        }
        names
    }
}

/// The fields that say for whom a proxy asks, by the word for them.
pub(super) fn forwarded_fields(text: &str) -> Result<Forwarded, Flaw> {
    let known = [
        ("x-forwarded", Forwarded::XForwarded),
        ("forwarded", Forwarded::Rfc7239),
        ("both", Forwarded::Both),
        ("off", Forwarded::Off),
    ];
    let found = known.into_iter().find(|(word, _)| *word == text);
    found.map(|(_, fields)| fields).ok_or_else(|| {
        let mend = "write \"x-forwarded\", \"forwarded\", \"both\" or \"off\"";
        Flaw::new(format!("`{text}` is no way to tell for whom a proxy asks"), mend)
    })
}

fn log_lines(text: &str) -> Result<LogLines, Flaw> {
    match text {
        "json" => Ok(LogLines::Json),
        "combined" => Ok(LogLines::Combined),
        other => {
            let mend = suggest::nearest(other, ["json", "combined"]).map_or_else(
                || "write \"json\" or \"combined\"".to_owned(),
                |meant| format!("did you mean \"{meant}\"?"),
            );
            Err(Flaw::new(format!("`{other}` is no format of the access log"), mend))
        }
    }
}
