//! Checks of a route's changes to header fields.

use std::collections::HashMap;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};

use crate::config::diagnostics::Problem;
use crate::config::file::{self, Entries, Located, LocatedTable};
use crate::config::validate::validator::Validator;
use crate::logic::routing::HeaderMutations;

/// The most changes of one kind (`set`, `add`, `remove`).
const MAX_CHANGES: usize = 64;

/// The messages whose fields are changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageKind {
    Request,
    Response,
}

type HeaderEntries = Option<Located<Entries<Located<String>>>>;

impl Validator<'_> {
    pub(super) fn header_changes(
        &mut self,
        given: &Option<LocatedTable<file::HeaderChanges>>,
        kind: MessageKind,
    ) -> HeaderMutations {
        let Some(LocatedTable { value: given, .. }) = given else {
            return HeaderMutations::default();
        };
        let set = self.header_values(&given.set, kind);
        let add = self.header_values(&given.add, kind);
        let mut remove = Vec::new();
        for text in given.remove.iter().flatten().take(MAX_CHANGES) {
            remove.extend(self.changeable_header(text, kind));
        }
        if let Some(beyond) = given.remove.as_ref().and_then(|list| list.get(MAX_CHANGES)) {
            self.too_many_changes(beyond);
        }
        HeaderMutations { remove, set, add }
    }

    fn header_values(
        &mut self,
        given: &HeaderEntries,
        kind: MessageKind,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let Some(Located { value: Entries(entries), .. }) = given else { return Vec::new() };
        if let Some((beyond, _)) = entries.get(MAX_CHANGES) {
            self.too_many_changes(beyond);
        }
        let mut fields = Vec::new();
        let mut seen = HashMap::new();
        for (key, text) in entries.iter().take(MAX_CHANGES) {
            let name = self.changeable_header(key, kind);
            let value = HeaderValue::from_str(&text.value);
            if value.is_err() {
                let help = "use visible characters only, on one line";
                let message = format!("the value of `{}` cannot stand in a header", key.value);
                self.diagnostics.error(&text.span, Problem::new(message, help));
            }
            let Some(name) = name else { continue };
            let problem =
                Problem::new(format!("the header `{name}` is given twice"), "give it once");
            if self.is_unique(&mut seen, name.clone(), &key.span, problem) {
                fields.extend(value.ok().map(|value| (name, value)));
            }
        }
        fields
    }

    fn changeable_header(
        &mut self,
        text: &Located<String>,
        kind: MessageKind,
    ) -> Option<HeaderName> {
        let Ok(name) = HeaderName::from_bytes(text.value.as_bytes()) else {
            let help = "use letters, digits and `-`, such as \"x-env\"";
            let message = format!("`{}` is not a header name", text.value);
            self.diagnostics.error(&text.span, Problem::new(message, help));
            return None;
        };
        let Some(help) = reserved_header_help(&name, kind) else { return Some(name) };
        let message = format!("a route cannot change `{name}`");
        self.diagnostics.error(&text.span, Problem::new(message, help));
        None
    }

    fn too_many_changes(&mut self, beyond: &Located<String>) {
        let message = format!("there are more than {MAX_CHANGES} changes of one kind");
        self.diagnostics.error(&beyond.span, Problem::new(message, "remove some"));
    }
}

/// The help text for a field that a route may not change; `None` for other fields.
fn reserved_header_help(name: &HeaderName, kind: MessageKind) -> Option<&'static str> {
    let is_framing = *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING;
    let is_hop_by_hop = [CONNECTION, UPGRADE, TE, TRAILER].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings");
    let is_forwarding = *name == FORWARDED
        || matches!(name.as_str(), "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host");
    match kind {
        _ if is_framing => Some("remove it: it delimits the message"),
        _ if is_hop_by_hop => Some("remove it: it concerns one connection only"),
        MessageKind::Request if *name == HOST => Some("use `rewrite = { host = \"…\" }`"),
        MessageKind::Request if is_forwarding || *name == VIA || *name == EXPECT => {
            Some("remove it: the proxy writes it for every endpoint")
        }
        MessageKind::Response if name.as_str().starts_with("x-gapless-") => {
            Some("remove it: the proxy sets it")
        }
        _ => None,
    }
}
