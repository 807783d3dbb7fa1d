//! Checks of what a route does to header fields.

use std::collections::HashMap;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};

use super::super::check::Check;
use crate::config::file::{self, Entries, Located, Table};
use crate::config::findings::Flaw;
use crate::logic::route::HeaderChanges;

/// Changes of one kind in one message.
const MAX_CHANGES: usize = 64;

/// Whose fields they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Request,
    Response,
}

type Given = Option<Located<Entries<Located<String>>>>;

impl Check<'_> {
    pub(super) fn header_changes(
        &mut self,
        given: &Option<Table<file::HeaderChanges>>,
        message: Message,
    ) -> HeaderChanges {
        let Some(Table { value: given, .. }) = given else { return HeaderChanges::default() };
        let set = self.fields(&given.set, message);
        let add = self.fields(&given.add, message);
        let mut remove = Vec::new();
        for text in given.remove.iter().flatten().take(MAX_CHANGES) {
            remove.extend(self.field_name(text, message));
        }
        if let Some(beyond) = given.remove.as_ref().and_then(|list| list.get(MAX_CHANGES)) {
            self.too_many_changes(beyond);
        }
        HeaderChanges { remove, set, add }
    }

    fn fields(&mut self, given: &Given, message: Message) -> Vec<(HeaderName, HeaderValue)> {
        let Some(Located { value: Entries(entries), .. }) = given else { return Vec::new() };
        if let Some((beyond, _)) = entries.get(MAX_CHANGES) {
            self.too_many_changes(beyond);
        }
        let mut fields = Vec::new();
        let mut seen = HashMap::new();
        for (key, text) in entries.iter().take(MAX_CHANGES) {
            let name = self.field_name(key, message);
            let value = HeaderValue::from_str(&text.value);
            if value.is_err() {
                let mend = "use visible characters only, on one line";
                let message = format!("the value of `{}` cannot stand in a header", key.value);
                self.findings.error(&text.span, Flaw::new(message, mend));
            }
            let Some(name) = name else { continue };
            let flaw = Flaw::new(format!("the header `{name}` is given twice"), "give it once");
            if self.unique(&mut seen, name.clone(), &key.span, flaw) {
                fields.extend(value.ok().map(|value| (name, value)));
            }
        }
        fields
    }

    fn field_name(&mut self, text: &Located<String>, message: Message) -> Option<HeaderName> {
        let Ok(name) = HeaderName::from_bytes(text.value.as_bytes()) else {
            let mend = "use letters, digits and `-`, such as \"x-env\"";
            let message = format!("`{}` is not a header name", text.value);
            self.findings.error(&text.span, Flaw::new(message, mend));
            return None;
        };
        let Some(mend) = kept(&name, message) else { return Some(name) };
        let message = format!("`{name}` is not for a route to change");
        self.findings.error(&text.span, Flaw::new(message, mend));
        None
    }

    fn too_many_changes(&mut self, beyond: &Located<String>) {
        let message = format!("there are more than {MAX_CHANGES} changes of one kind");
        self.findings.error(&beyond.span, Flaw::new(message, "leave some away"));
    }
}

/// Why a field keeps what the proxy makes of it, as a mend.
fn kept(name: &HeaderName, message: Message) -> Option<&'static str> {
    let is_framing = *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING;
    let is_hop_by_hop = [CONNECTION, UPGRADE, TE, TRAILER].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings");
    let is_forwarding = *name == FORWARDED
        || matches!(name.as_str(), "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host");
    match message {
        _ if is_framing => Some("leave it away: it says where the message ends"),
        _ if is_hop_by_hop => Some("leave it away: it is about one connection only"),
        Message::Request if *name == HOST => Some("use `rewrite = { host = \"…\" }`"),
        Message::Request if is_forwarding || *name == VIA || *name == EXPECT => {
            Some("leave it away: it is written anew for every endpoint")
        }
        Message::Response if name.as_str().starts_with("x-gapless-") => {
            Some("leave it away: by it the proxy speaks of itself")
        }
        _ => None,
    }
}
