//! Checks of the access log, and of trusted proxies and forwarding headers.

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};

use super::validator::{SettingKey, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{AccessLog, Located, LocatedTable};
use crate::config::model::{self, AccessLogFormat, AccessLogTarget, ForwardedHeaders};
use crate::config::suggest;
use crate::logic::model::network::Network;

/// The most request fields that are added to a line.
const MAX_HEADERS: usize = 32;

/// The most networks of trusted proxies: each request may be compared with all of them.
const MAX_NETWORKS: usize = 256;

/// Fields with credentials, which must never be logged.
const SECRET_HEADERS: [HeaderName; 4] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, SET_COOKIE];

impl Validator<'_> {
    pub(super) fn access_log(
        &mut self,
        given: Option<LocatedTable<AccessLog>>,
    ) -> model::AccessLogConfig {
        let default = model::AccessLogConfig::default();
        let Some(LocatedTable { value: given, span: table }) = given else { return default };
        let base = self.base_dir;
        let key = SettingKey::new(&table, "to", &given.to);
        let to = self.setting(&key, default.target, |text| match text.as_str() {
            "off" => Ok(AccessLogTarget::Off),
            "stdout" => Ok(AccessLogTarget::Stdout),
            path if path.contains('/') && !path.ends_with('/') && !path.contains('\0') => {
                Ok(AccessLogTarget::File(base.join(path)))
            }
            other => Err(Problem::new(
                format!("`{other}` is not a destination of the access log"),
                "write \"stdout\", \"off\", or a path with a `/` in it, such as \
                 \"/var/log/gapless/access.log\"",
            )),
        });
        if given.to.is_none() && !self.unread.has_key(&table, "to") {
            let help = "add `to = \"stdout\"` or the path of a file";
            self.diagnostics.warning(&table, Problem::new("nothing is logged without `to`", help));
        }
        let key = SettingKey::new(&table, "format", &given.format);
        let format = self.setting(&key, default.format, |text| parse_log_format(text)).value;
        let redact_query = self.bool_or(&given.redact_query, default.should_redact_query);
        let headers = self.log_headers(&given.headers.unwrap_or_default(), format);
        model::AccessLogConfig {
            target: to.value,
            format,
            should_redact_query: redact_query,
            headers,
        }
    }

    pub(super) fn trusted_proxies(&mut self, given: &[Located<String>]) -> Vec<Network> {
        let networks = self.networks(given, MAX_NETWORKS);
        for (network, span) in networks.iter().filter(|(network, _)| network.prefix == 0) {
            let problem = Problem::new(
                format!("`{network}` lets every client choose its own address"),
                "name the networks of your own proxies",
            );
            self.diagnostics.warning(span, problem);
        }
        networks.into_iter().map(|(network, _)| network).collect()
    }

    fn log_headers(
        &mut self,
        given: &[Located<String>],
        format: AccessLogFormat,
    ) -> Vec<HeaderName> {
        if let Some(first) = given.first().filter(|_| format == AccessLogFormat::Combined) {
            let help = "write `format = \"json\"`, or remove `headers`";
            let problem = Problem::new("lines in the combined format have no other fields", help);
            self.diagnostics.error(&first.span, problem);
        }
        if let Some(beyond) = given.get(MAX_HEADERS) {
            let message = format!("there are more than {MAX_HEADERS} fields");
            self.diagnostics.error(&beyond.span, Problem::new(message, "remove some"));
        }
        let mut names: Vec<HeaderName> = Vec::new();
        for one in given.iter().take(MAX_HEADERS) {
            match HeaderName::from_bytes(one.value.as_bytes()) {
                Ok(name) if SECRET_HEADERS.contains(&name) => {
                    let message = format!("`{name}` carries credentials, which are never logged");
                    self.diagnostics.error(&one.span, Problem::new(message, "remove it"));
                }
                Ok(name) if names.contains(&name) => {
                    let message = format!("`{name}` is given twice");
                    self.diagnostics.error(&one.span, Problem::new(message, "give it once"));
                }
                Ok(name) => names.push(name),
                Err(_) => {
                    let message = format!("`{}` cannot name a header", one.value);
                    let help = "write a name such as \"referer\"";
                    self.diagnostics.error(&one.span, Problem::new(message, help));
                }
            }
        }
        names
    }
}

/// Parses the kind of forwarding headers.
pub(super) fn parse_forwarded_headers(text: &str) -> Result<ForwardedHeaders, Problem> {
    let known = [
        ("x-forwarded", ForwardedHeaders::XForwarded),
        ("forwarded", ForwardedHeaders::Rfc7239),
        ("both", ForwardedHeaders::Both),
        ("off", ForwardedHeaders::Off),
    ];
    let found = known.into_iter().find(|(word, _)| *word == text);
    found.map(|(_, fields)| fields).ok_or_else(|| {
        let help = "write \"x-forwarded\", \"forwarded\", \"both\" or \"off\"";
        Problem::new(format!("`{text}` is not a kind of forwarding headers"), help)
    })
}

fn parse_log_format(text: &str) -> Result<AccessLogFormat, Problem> {
    match text {
        "json" => Ok(AccessLogFormat::Json),
        "combined" => Ok(AccessLogFormat::Combined),
        other => {
            let help = suggest::nearest(other, ["json", "combined"]).map_or_else(
                || "write \"json\" or \"combined\"".to_owned(),
                |suggestion| format!("did you mean \"{suggestion}\"?"),
            );
            Err(Problem::new(format!("`{other}` is not a format of the access log"), help))
        }
    }
}
