//! Checks of fixed responses.

use std::fs::File;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::config::diagnostics::Problem;
use crate::config::file::{Located, LocatedTable, Respond};
use crate::config::units;
use crate::config::validate::validator::{SettingKey, Validator, parse_integer};
use crate::logic::routing::DirectResponse;

/// Largest body of a fixed response: all bodies are held in memory.
const MAX_BODY_BYTES: usize = 64 * 1024;

const STATUS_RANGE: RangeInclusive<u16> = 200..=599;

const TEXT_PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

impl Validator<'_> {
    /// A fixed response; in a fallback (`is_standalone` is false) its default status is that of the
    /// error.
    pub(super) fn fixed_response(
        &mut self,
        given: &LocatedTable<Respond>,
        is_standalone: bool,
    ) -> DirectResponse {
        let LocatedTable { value: given, span: table } = given;
        let key = SettingKey::new(table, "status", &given.status);
        let default = is_standalone.then_some(StatusCode::OK);
        let status = self.setting(&key, default, |text| {
            let status = parse_integer(&text.0, "status", &STATUS_RANGE)?;
            Ok(StatusCode::from_u16(status).ok())
        });
        let status = status.value;
        let key = SettingKey::new(table, "content_type", &given.content_type);
        let content_type = self.setting(&key, TEXT_PLAIN, |text| parse_content_type(text)).value;
        let text = given.body.as_ref().map_or("", |body| body.value.as_str());
        if let Some(body) = &given.body {
            let bodiless_statuses =
                [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::RESET_CONTENT];
            if let Some(status) = status.filter(|status| bodiless_statuses.contains(status))
                && !text.is_empty()
            {
                let message = format!("a response with the status {} has no body", status.as_u16());
                self.diagnostics.error(&body.span, Problem::new(message, "remove `body`"));
            }
            if text.len() > MAX_BODY_BYTES {
                let most = units::format_size(MAX_BODY_BYTES as u64);
                let message = format!("`body` is longer than {most}");
                self.diagnostics.error(&body.span, Problem::new(message, "write a shorter text"));
            }
        }
        DirectResponse { status, body: Bytes::copy_from_slice(text.as_bytes()), content_type }
    }

    /// A fixed response whose body is in a file.
    pub(super) fn file_response(&mut self, path: &Located<String>) -> Option<DirectResponse> {
        let full = self.base_dir.join(&path.value);
        match read_body(&full) {
            Ok(body) => {
                let content_type = HeaderValue::from_static(content_type_of(&full));
                Some(DirectResponse { status: None, body: body.into(), content_type })
            }
            Err(error) => {
                let message = format!("cannot read `{}`: {error}", full.display());
                let help = "name a file, relative to the configuration file";
                self.diagnostics.error(&path.span, Problem::new(message, help));
                None
            }
        }
    }
}

fn read_body(path: &Path) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    File::open(path)?.take(MAX_BODY_BYTES as u64 + 1).read_to_end(&mut body)?;
    if body.len() > MAX_BODY_BYTES {
        let most = units::format_size(MAX_BODY_BYTES as u64);
        return Err(io::Error::other(format!("it is larger than {most}")));
    }
    Ok(body)
}

/// The content type of a file, by its extension.
fn content_type_of(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        _ => "text/plain; charset=utf-8",
    }
}

fn parse_content_type(text: &str) -> Result<HeaderValue, Problem> {
    let value = HeaderValue::from_str(text).ok().filter(|_| text.contains('/'));
    value.ok_or_else(|| {
        let help = "write one such as \"text/html; charset=utf-8\"";
        Problem::new(format!("`{text}` is not a media type"), help)
    })
}
