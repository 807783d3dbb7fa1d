//! Checks of the export of spans.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderValue, Uri};
use rustls::pki_types::ServerName;

use super::validator::{SettingKey, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{Entries, Located, LocatedTable, Otlp, Tls};
use crate::config::model::{self, TraceSampling};
use crate::logic::model::upstream_protocol::UpstreamTls;

/// Requests whose spans wait for export, at a few kilobytes each.
const QUEUE_RANGE: RangeInclusive<usize> = 1..=65_536;
const DEFAULT_QUEUE: usize = 2_048;

const BATCH_RANGE: RangeInclusive<usize> = 1..=8_192;
const DEFAULT_BATCH: usize = 512;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

const DEFAULT_SAMPLE_MILLIONTHS: u32 = TraceSampling::MAX_MILLIONTHS / 100;

/// The most header fields besides those that every request has.
const MAX_HEADERS: usize = 64;

/// The path that is appended to the URL of a collector (OTLP 1.7, "OTLP/HTTP Request").
const TRACES_PATH: &str = "v1/traces";

/// The port of collectors for gRPC, which is not supported here.
const GRPC_PORT: u16 = 4317;

const DEFAULT_SERVICE: &str = "gapless";

const URL_HELP: &str = "write a URL such as \"http://127.0.0.1:4318\"";

/// Header fields that gapless itself writes.
const RESERVED_HEADERS: [HeaderName; 7] =
    [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE];

impl Validator<'_> {
    /// The export settings, if the file has any. They switch `traceparent` on in `headers`; reports
    /// a file that switches it off.
    pub(super) fn otlp(
        &mut self,
        given: Option<LocatedTable<Otlp>>,
        traceparent: Option<Located<bool>>,
        headers: &mut model::HeaderPolicy,
    ) -> Option<model::OtlpConfig> {
        let LocatedTable { value: given, span: table } = given?;
        if !cfg!(feature = "otlp") {
            let help = "build it with `cargo build --release --features otlp`, or remove `[otlp]`";
            let problem = Problem::new("this program was built without `otlp`", help);
            self.diagnostics.error(&table, problem);
            return None;
        }
        if let Some(given) = traceparent.filter(|given| !given.value) {
            let help = "remove `traceparent`: `[otlp]` enables it";
            let problem = Problem::new("spans need `traceparent` to be parts of traces", help);
            self.diagnostics.error(&given.span, problem).add_related(&table, "spans are exported");
        }
        let key = SettingKey::new(&table, "sample", &given.sample);
        let sampling = self
            .setting(&key, TraceSampling::new(DEFAULT_SAMPLE_MILLIONTHS)?, |text| {
                parse_sampling(text)
            })
            .value;
        (headers.should_set_traceparent, headers.sampling) = (true, Some(sampling));
        let key = SettingKey::new(&table, "service", &given.service);
        let service =
            self.setting(&key, DEFAULT_SERVICE.to_owned(), |text| parse_service_name(text)).value;
        let timeout = self
            .duration(&SettingKey::new(&table, "timeout", &given.timeout), DEFAULT_TIMEOUT)
            .value;
        let queue = self.integer(
            &SettingKey::new(&table, "queue", &given.queue),
            &QUEUE_RANGE,
            DEFAULT_QUEUE,
        );
        let batch = self.integer(
            &SettingKey::new(&table, "batch", &given.batch),
            &BATCH_RANGE,
            DEFAULT_BATCH,
        );
        let fields = self.collector_headers(given.headers.as_ref(), given.headers_file.as_ref());
        let endpoint = self.collector_uri(&table, given.endpoint.as_ref())?;
        let tls = self.collector_tls(&endpoint, given.tls.as_ref());
        let is_local = matches!(endpoint.host(), Some("localhost" | "[::1]"))
            || endpoint.host().is_some_and(|host| host.starts_with("127."));
        if let Some(file) = given.headers_file.filter(|_| tls.is_none() && !is_local) {
            let problem = Problem::new(
                "what is in this file goes to the collector in cleartext",
                "write the endpoint with `https`",
            );
            self.diagnostics.warning(&file.span, problem);
        }
        Some(model::OtlpConfig {
            endpoint,
            headers: fields,
            tls,
            service,
            timeout,
            queue_spans: queue,
            batch_spans: batch,
        })
    }

    fn collector_uri(
        &mut self,
        table: &Range<usize>,
        given: Option<&Located<String>>,
    ) -> Option<Uri> {
        let Some(given) = given else {
            self.report_missing(
                table,
                "endpoint",
                Problem::new("the collector has no `endpoint`", URL_HELP),
            );
            return None;
        };
        match parse_collector_uri(&given.value) {
            Ok(uri) => {
                if uri.port_u16() == Some(GRPC_PORT) {
                    let message = "4317 is the port for gRPC, and this is HTTP";
                    let problem = Problem::new(message, "collectors listen for HTTP on port 4318");
                    self.diagnostics.warning(&given.span, problem);
                }
                Some(uri)
            }
            Err(problem) => {
                self.diagnostics.error(&given.span, problem);
                None
            }
        }
    }

    fn collector_tls(
        &mut self,
        endpoint: &Uri,
        given: Option<&LocatedTable<Tls>>,
    ) -> Option<Arc<UpstreamTls>> {
        if endpoint.scheme_str() != Some("https") {
            if let Some(given) = given {
                let help = "write the endpoint with `https`, or remove `tls`";
                let problem = Problem::new("`tls` has no meaning with an endpoint of `http`", help);
                self.diagnostics.error(&given.span, problem);
            }
            return None;
        }
        let default = Tls::default();
        let options = given.map_or(&default, |given| &given.value);
        let mut tls = self.tls_client(options, None, &[b"http/1.1"]);
        // Without `server_name` the certificate must be for the host in the URL.
        if tls.server_name.is_none() {
            let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
            Arc::make_mut(&mut tls).server_name = Some(host.to_owned());
        }
        Some(tls)
    }

    fn collector_headers(
        &mut self,
        given: Option<&Located<Entries<Located<String>>>>,
        file: Option<&Located<String>>,
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given.iter().flat_map(|given| &given.value.0) {
            if let Err(problem) = add_header(&mut headers, &name.value, &value.value) {
                self.diagnostics.error(&name.span, problem);
            }
        }
        let Some(file) = file else { return headers };
        let Some(bytes) = self.read_file(file) else { return headers };
        let Ok(text) = std::str::from_utf8(&bytes) else {
            let help = "write one `name: value` on a line, as text";
            let message = format!("`{}` is not UTF-8 text", file.value);
            self.diagnostics.error(&file.span, Problem::new(message, help));
            return headers;
        };
        // Errors never show a line of the file, which may be a secret.
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let added = match line.split_once(':') {
                Some((name, value)) => add_header(&mut headers, name.trim(), value.trim()),
                None => Err(Problem::new("not a header field", "write it as `name: value`")),
            };
            if let Err(Problem { message, help }) = added {
                let message = format!("line {} of `{}`: {message}", index + 1, file.value);
                self.diagnostics.error(&file.span, Problem::new(message, help));
            }
        }
        headers
    }
}

/// Adds a field; an error never contains its value.
fn add_header(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Problem> {
    let Ok(known) = HeaderName::from_bytes(name.as_bytes()) else {
        // In a file, the text before the first colon may be a secret.
        return Err(Problem::new("this is not a header name", "write it as `name: value`"));
    };
    if RESERVED_HEADERS.contains(&known) {
        return Err(Problem::new(format!("`{known}` is written by gapless"), "remove it"));
    }
    let Ok(mut value) = HeaderValue::from_str(value) else {
        let message = format!("the value of `{known}` cannot stand in a header");
        return Err(Problem::new(message, "use visible characters only, on one line"));
    };
    if headers.contains_key(&known) {
        return Err(Problem::new(format!("the header `{known}` is given twice"), "give it once"));
    }
    if headers.len() == MAX_HEADERS {
        let message = format!("there are more than {MAX_HEADERS} headers");
        return Err(Problem::new(message, "remove some"));
    }
    value.set_sensitive(true);
    headers.insert(known, value);
    Ok(())
}

/// Parses the URL of a collector, and appends the path for traces.
fn parse_collector_uri(text: &str) -> Result<Uri, Problem> {
    let url_problem = || Problem::new(format!("`{text}` is not a URL"), URL_HELP);
    let Some((scheme, rest)) = text.split_once("://") else {
        let is_host = text.parse::<http::uri::Authority>().is_ok();
        let help = if is_host { format!("write it as \"http://{text}\"") } else { URL_HELP.into() };
        return Err(Problem::new(format!("`{text}` is not a URL"), help));
    };
    if rest.contains('@') {
        let help = "remove them, and put a field into `headers_file`";
        return Err(Problem::new("the URL of a collector has no credentials", help));
    }
    if scheme != "http" && scheme != "https" {
        let help = "write it with `http` or `https`; gRPC is not supported";
        return Err(Problem::new(format!("`{scheme}` is not supported for a collector"), help));
    }
    if rest.contains(['?', '#']) {
        let help = "end it with the path";
        return Err(Problem::new(format!("`{text}` has more than a path"), help));
    }
    let base = text.trim_end_matches('/');
    let full_url = if base.ends_with(&format!("/{TRACES_PATH}")) {
        base.to_owned()
    } else {
        format!("{base}/{TRACES_PATH}")
    };
    let uri: Uri = full_url.parse().map_err(|_| url_problem())?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_valid_host = ServerName::try_from(host).is_ok();
    if is_valid_host && uri.port_u16() != Some(0) { Ok(uri) } else { Err(url_problem()) }
}

/// Parses `0.1%`.
fn parse_sampling(text: &str) -> Result<TraceSampling, Problem> {
    let problem = || {
        let is_number = text.trim().parse::<f64>().is_ok();
        let help = if is_number {
            format!("write it as \"{}%\"", text.trim())
        } else {
            "write it as \"0%\" to \"100%\", such as \"0.1%\"".to_owned()
        };
        Problem::new(format!("`{text}` is not a share of traces"), help)
    };
    let number = text.trim().strip_suffix('%').ok_or_else(problem)?;
    let percent: f64 = number.trim().parse().map_err(|_| problem())?;
    if !(0.0..=100.0).contains(&percent) {
        return Err(problem());
    }
    let millionths = (percent * f64::from(TraceSampling::MAX_MILLIONTHS / 100)).round();
    TraceSampling::new(millionths as u32).ok_or_else(problem)
}

fn parse_service_name(text: &str) -> Result<String, Problem> {
    let is_plain = |c: char| !c.is_control();
    if (1..=255).contains(&text.len()) && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err(Problem::new("`service` is not a name", "write a name such as \"gapless\""))
}
