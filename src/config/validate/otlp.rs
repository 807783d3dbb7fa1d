//! Checks of where spans of requests go.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderValue, Uri};
use rustls::pki_types::ServerName;

use super::check::{Check, Key};
use crate::config::file::{Entries, Located, Otlp, Table, Tls};
use crate::config::findings::Flaw;
use crate::config::model::{self, Sampling};
use crate::logic::speech::TlsClient;

/// Requests whose spans wait: a few kilobytes each.
const QUEUE: RangeInclusive<usize> = 1..=65_536;
const QUEUE_DEFAULT: usize = 2_048;

const BATCH: RangeInclusive<usize> = 1..=8_192;
const BATCH_DEFAULT: usize = 512;

const TIMEOUT: Duration = Duration::from_secs(10);

/// One percent.
const SAMPLE: u32 = Sampling::WHOLE / 100;

/// Fields besides those that every post has.
const MAX_HEADERS: usize = 64;

/// What is put behind the URL of a collector (OTLP 1.7, "OTLP/HTTP Request").
const PATH: &str = "v1/traces";

/// Where collectors listen for gRPC, which is not spoken here.
const GRPC_PORT: u16 = 4317;

const SERVICE: &str = "gapless";

const SUCH_AS: &str = "write a URL such as \"http://127.0.0.1:4318\"";

/// Fields that are this program's to write.
const OWN: [HeaderName; 7] =
    [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE];

impl Check<'_> {
    /// The collector, if there is one; then `headers` take part in traces, which `traceparent` of the
    /// file must not forbid.
    pub(super) fn otlp(
        &mut self,
        given: Option<Table<Otlp>>,
        traceparent: Option<Located<bool>>,
        headers: &mut model::Headers,
    ) -> Option<model::Otlp> {
        let Table { value: given, span: table } = given?;
        if !cfg!(feature = "otlp") {
            let mend =
                "build it with `cargo build --release --features otlp`, or leave `[otlp]` away";
            let flaw = Flaw::new("this program was built without `otlp`", mend);
            self.findings.error(&table, flaw);
            return None;
        }
        if let Some(given) = traceparent.filter(|given| !given.value) {
            let mend = "leave `traceparent` away: `[otlp]` switches it on";
            let flaw = Flaw::new("spans need `traceparent` to be parts of traces", mend);
            self.findings.error(&given.span, flaw).also(&table, "spans are exported");
        }
        let key = Key::new(&table, "sample", &given.sample);
        let sampling = self.setting(&key, Sampling::new(SAMPLE)?, |text| sampling(text)).value;
        (headers.traceparent, headers.sampling) = (true, Some(sampling));
        let key = Key::new(&table, "service", &given.service);
        let service = self.setting(&key, SERVICE.to_owned(), |text| service(text)).value;
        let timeout = self.duration(&Key::new(&table, "timeout", &given.timeout), TIMEOUT).value;
        let queue = self.whole(&Key::new(&table, "queue", &given.queue), &QUEUE, QUEUE_DEFAULT);
        let batch = self.whole(&Key::new(&table, "batch", &given.batch), &BATCH, BATCH_DEFAULT);
        let fields = self.fields_for_collector(given.headers.as_ref(), given.headers_file.as_ref());
        let endpoint = self.collector(&table, given.endpoint.as_ref())?;
        let tls = self.tls_to_collector(&endpoint, given.tls.as_ref());
        let is_local = matches!(endpoint.host(), Some("localhost" | "[::1]"))
            || endpoint.host().is_some_and(|host| host.starts_with("127."));
        if let Some(file) = given.headers_file.filter(|_| tls.is_none() && !is_local) {
            let flaw = Flaw::new(
                "what is in this file goes to the collector in cleartext",
                "write the endpoint with `https`",
            );
            self.findings.warning(&file.span, flaw);
        }
        Some(model::Otlp { endpoint, headers: fields, tls, service, timeout, queue, batch })
    }

    fn collector(&mut self, table: &Range<usize>, given: Option<&Located<String>>) -> Option<Uri> {
        let Some(given) = given else {
            self.missing(table, "endpoint", Flaw::new("the collector has no `endpoint`", SUCH_AS));
            return None;
        };
        match collector(&given.value) {
            Ok(uri) => {
                if uri.port_u16() == Some(GRPC_PORT) {
                    let message = "4317 is the port for gRPC, and this is HTTP";
                    let flaw = Flaw::new(message, "collectors listen for HTTP on port 4318");
                    self.findings.warning(&given.span, flaw);
                }
                Some(uri)
            }
            Err(flaw) => {
                self.findings.error(&given.span, flaw);
                None
            }
        }
    }

    fn tls_to_collector(
        &mut self,
        endpoint: &Uri,
        given: Option<&Table<Tls>>,
    ) -> Option<Arc<TlsClient>> {
        if endpoint.scheme_str() != Some("https") {
            if let Some(given) = given {
                let mend = "write the endpoint with `https`, or leave `tls` away";
                let flaw = Flaw::new("`tls` has no meaning with an endpoint of `http`", mend);
                self.findings.error(&given.span, flaw);
            }
            return None;
        }
        let default = Tls::default();
        let options = given.map_or(&default, |given| &given.value);
        let mut tls = self.tls_client(options, None, &[b"http/1.1"]);
        // It is the URL that says whom this is for.
        if tls.server_name.is_none() {
            let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
            Arc::make_mut(&mut tls).server_name = Some(host.to_owned());
        }
        Some(tls)
    }

    fn fields_for_collector(
        &mut self,
        given: Option<&Located<Entries<Located<String>>>>,
        file: Option<&Located<String>>,
    ) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in given.iter().flat_map(|given| &given.value.0) {
            if let Err(flaw) = add(&mut fields, &name.value, &value.value) {
                self.findings.error(&name.span, flaw);
            }
        }
        let Some(file) = file else { return fields };
        let Some(bytes) = self.file_of(file) else { return fields };
        let Ok(text) = std::str::from_utf8(&bytes) else {
            let mend = "write one `name: value` on a line, as text";
            let message = format!("`{}` is not UTF-8 text", file.value);
            self.findings.error(&file.span, Flaw::new(message, mend));
            return fields;
        };
        // Its lines are never shown.
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let added = match line.split_once(':') {
                Some((name, value)) => add(&mut fields, name.trim(), value.trim()),
                None => Err(Flaw::new("this is no field", "write it as `name: value`")),
            };
            if let Err(Flaw { message, mend }) = added {
                let message = format!("line {} of `{}`: {message}", index + 1, file.value);
                self.findings.error(&file.span, Flaw::new(message, mend));
            }
        }
        fields
    }
}

/// Adds a field; what is said of a wrong one does not have its value.
fn add(fields: &mut HeaderMap, name: &str, value: &str) -> Result<(), Flaw> {
    let Ok(known) = HeaderName::from_bytes(name.as_bytes()) else {
        // In a file, what stands before the first colon may be anything.
        return Err(Flaw::new("the name is not one of a header", "write it as `name: value`"));
    };
    if OWN.contains(&known) {
        return Err(Flaw::new(format!("`{known}` is written by gapless"), "leave it away"));
    }
    let Ok(mut value) = HeaderValue::from_str(value) else {
        let message = format!("the value of `{known}` cannot stand in a header");
        return Err(Flaw::new(message, "use visible characters only, on one line"));
    };
    if fields.contains_key(&known) {
        return Err(Flaw::new(format!("the header `{known}` is given twice"), "give it once"));
    }
    if fields.len() == MAX_HEADERS {
        let message = format!("there are more than {MAX_HEADERS} headers");
        return Err(Flaw::new(message, "leave some away"));
    }
    value.set_sensitive(true);
    fields.insert(known, value);
    Ok(())
}

/// Reads the URL of a collector, and puts the path of traces behind it.
fn collector(text: &str) -> Result<Uri, Flaw> {
    let bad = || Flaw::new(format!("`{text}` is not a URL"), SUCH_AS);
    let Some((scheme, rest)) = text.split_once("://") else {
        let is_host = text.parse::<http::uri::Authority>().is_ok();
        let mend = if is_host { format!("write it as \"http://{text}\"") } else { SUCH_AS.into() };
        return Err(Flaw::new(format!("`{text}` is not a URL"), mend));
    };
    if rest.contains('@') {
        let mend = "leave them away, and write a field into `headers_file`";
        return Err(Flaw::new("the URL of a collector has no credentials", mend));
    }
    if scheme != "http" && scheme != "https" {
        let mend = "write it with `http` or `https`; gRPC is not spoken";
        return Err(Flaw::new(format!("`{scheme}` is no way to speak to a collector"), mend));
    }
    if rest.contains(['?', '#']) {
        let mend = "end it with the path";
        return Err(Flaw::new(format!("`{text}` has more than a path"), mend));
    }
    let base = text.trim_end_matches('/');
    let whole = if base.ends_with(&format!("/{PATH}")) {
        base.to_owned()
    } else {
        format!("{base}/{PATH}")
    };
    let uri: Uri = whole.parse().map_err(|_| bad())?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_readable = ServerName::try_from(host).is_ok();
    if is_readable && uri.port_u16() != Some(0) { Ok(uri) } else { Err(bad()) }
}

/// Reads `0.1%`.
fn sampling(text: &str) -> Result<Sampling, Flaw> {
    let flaw = || {
        let is_number = text.trim().parse::<f64>().is_ok();
        let mend = if is_number {
            format!("write it as \"{}%\"", text.trim())
        } else {
            "write it as \"0%\" to \"100%\", such as \"0.1%\"".to_owned()
        };
        Flaw::new(format!("`{text}` is no share of traces"), mend)
    };
    let number = text.trim().strip_suffix('%').ok_or_else(flaw)?;
    let percent: f64 = number.trim().parse().map_err(|_| flaw())?;
    if !(0.0..=100.0).contains(&percent) {
        return Err(flaw());
    }
    let millionths = (percent * f64::from(Sampling::WHOLE / 100)).round();
    Sampling::new(millionths as u32).ok_or_else(flaw)
}

fn service(text: &str) -> Result<String, Flaw> {
    let is_plain = |c: char| !c.is_control();
    if (1..=255).contains(&text.len()) && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err(Flaw::new("`service` is not a name", "write a name such as \"gapless\""))
}
