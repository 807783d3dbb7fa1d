//! Checks of fixed answers.

use std::fs::File;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::super::check::{Check, Key, whole_from};
use crate::config::file::{Located, Respond, Table};
use crate::config::findings::Flaw;
use crate::config::units;
use crate::logic::route::Fixed;

/// Largest body of a fixed answer: all of them are held.
const MAX_BODY_BYTES: usize = 64 * 1024;

const STATUS: RangeInclusive<u16> = 200..=599;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

impl Check<'_> {
    /// A fixed answer; one that `stands_alone` has a status of its own.
    pub(super) fn fixed(&mut self, given: &Table<Respond>, stands_alone: bool) -> Fixed {
        let Table { value: given, span: table } = given;
        let key = Key::new(table, "status", &given.status);
        let default = stands_alone.then_some(StatusCode::OK);
        let status = self.setting(&key, default, |text| {
            let status = whole_from(&text.0, "status", &STATUS)?;
            Ok(StatusCode::from_u16(status).ok())
        });
        let status = status.value;
        let key = Key::new(table, "content_type", &given.content_type);
        let content_type = self.setting(&key, TEXT, |text| content_type(text)).value;
        let text = given.body.as_ref().map_or("", |body| body.value.as_str());
        if let Some(body) = &given.body {
            let has_none =
                [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::RESET_CONTENT];
            if let Some(status) = status.filter(|status| has_none.contains(status))
                && !text.is_empty()
            {
                let message = format!("an answer with the status {} has no body", status.as_u16());
                self.findings.error(&body.span, Flaw::new(message, "leave `body` away"));
            }
            if text.len() > MAX_BODY_BYTES {
                let most = units::size_text(MAX_BODY_BYTES as u64);
                let message = format!("`body` is longer than {most}");
                self.findings.error(&body.span, Flaw::new(message, "write a shorter text"));
            }
        }
        Fixed { status, body: Bytes::copy_from_slice(text.as_bytes()), content_type }
    }

    /// A fixed answer whose body lies in a file.
    pub(super) fn page(&mut self, path: &Located<String>) -> Option<Fixed> {
        let full = self.base.join(&path.value);
        match read(&full) {
            Ok(body) => {
                let content_type = HeaderValue::from_static(type_of(&full));
                Some(Fixed { status: None, body: body.into(), content_type })
            }
            Err(error) => {
                let message = format!("cannot read `{}`: {error}", full.display());
                let mend = "name a file, relative to the configuration file";
                self.findings.error(&path.span, Flaw::new(message, mend));
                None
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    File::open(path)?.take(MAX_BODY_BYTES as u64 + 1).read_to_end(&mut body)?;
    if body.len() > MAX_BODY_BYTES {
        let most = units::size_text(MAX_BODY_BYTES as u64);
        return Err(io::Error::other(format!("it is larger than {most}")));
    }
    Ok(body)
}

/// What a file is, by its ending.
fn type_of(path: &Path) -> &'static str {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        _ => "text/plain; charset=utf-8",
    }
}

fn content_type(text: &str) -> Result<HeaderValue, Flaw> {
    let value = HeaderValue::from_str(text).ok().filter(|_| text.contains('/'));
    value.ok_or_else(|| {
        let mend = "write one such as \"text/html; charset=utf-8\"";
        Flaw::new(format!("`{text}` is not the type of a body"), mend)
    })
}
